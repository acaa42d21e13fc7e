/* The tests are compiled twice: failures thrown, and failures returned. */
#ifndef TESTS_CPP_MODES_HPP
#define TESTS_CPP_MODES_HPP

#include <cstdlib>
#include <cstring>
#include <eqat/eqat.hpp>
#include <filesystem>
#include <fstream>
#include <string>

extern "C" {
#include "run_suite.h"
}
#undef fail /* of Check, also the name of members of the standard library */

#ifdef EQAT_NO_EXCEPTIONS
template <class T> auto must(eqat::result<T> r)
{
    ck_assert_msg(r.has_value(), "%s", r ? "" : r.error().what());
    return std::move(r).value();
}
#define MUST(call) must(call)
#define FAILS(expected, text, call)                                                             \
    do {                                                                                        \
        auto failed_ = (call);                                                                  \
        ck_assert_msg(!failed_, "no failure");                                                  \
        ck_assert_int_eq(failed_.error().status(), expected);                                   \
        ck_assert_msg(std::strstr(failed_.error().what(), text), "%s", failed_.error().what()); \
    } while (0)
#define BREAK(message) return eqat::error(EQAT_FORMAT, message)
#else
#define MUST(call) (call)
#define FAILS(expected, text, call)                                     \
    do {                                                                \
        bool failed_ = false;                                           \
        try {                                                           \
            (void)(call);                                               \
        } catch (const eqat::error &e) {                                \
            failed_ = true;                                             \
            ck_assert_int_eq(e.status(), expected);                     \
            ck_assert_msg(std::strstr(e.what(), text), "%s", e.what()); \
        }                                                               \
        ck_assert_msg(failed_, "no failure");                           \
    } while (0)
#define BREAK(message) throw eqat::error(EQAT_FORMAT, message)
#endif

/* The small model of the golden tests: 2 blocks, 32 wide, a vocabulary of 96. */
inline std::string source(const char *path)
{
    return std::string(std::getenv("EQAT_SOURCE")) + path;
}
inline std::string small_model() { return source("/tests/golden/llama"); }

/* A folder of the test's own. */
class scratch
{
  public:
    scratch();
    ~scratch();
    std::string operator/(const char *name) const { return path_ + "/" + name; }

  private:
    std::string path_;
};
std::string read_file(const std::string &path);

/* Everything a job wants, in the compute type F32. */
struct setting {
    setting(const eqat::context_options &options = eqat::context_options());
    eqat::context context;
    eqat::model model;
    eqat::quantizer quantizer;
    eqat::data data;
};
eqat::data_options few_samples();
std::vector<std::int32_t> some_tokens(std::size_t n = 640);
eqat::block_ap_options fast_block_ap();
eqat::e2e_qp_options fast_e2e_qp();

#endif
