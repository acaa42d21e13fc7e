/** @file
 * libeqat for C++17: continuing texts, token by token.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_GENERATE_HPP
#define EQAT_GENERATE_HPP

#include "eqat/generate.h"
#include "model.hpp"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{

struct choose_options : eqat_choose_options {
    choose_options() { eqat_choose_options_init(this, sizeof(eqat_choose_options)); }
    explicit choose_options(double degrees) : choose_options() { temperature = degrees; }
};

/** Sequences of one length that grow, with their keys and values: eqat_generation. */
class generation : public detail::handle<eqat_generation, eqat_generation_free>
{
  public:
    using handle::handle;

    static outcome<generation> create(const model &m, std::int64_t batch_size = 1)
    {
        eqat_generation *out = nullptr;
        eqat_status status = eqat_generation_create(m.get(), &out, batch_size);
        return m.made<generation>(status, out);
    }
    /** `time` more tokens behind each sequence, ids [batch_size, time]: logits of the last ones. */
    outcome<tensor> feed(const std::int32_t *ids, std::int64_t time, std::int64_t last_n = 1)
    {
        eqat_tensor *logits = nullptr;
        return made<tensor>(eqat_generation_feed(get(), ids, time, last_n, &logits), logits);
    }
    /** The same of one sequence. */
    outcome<tensor> feed(const std::vector<std::int32_t> &ids, std::int64_t last_n = 1)
    {
        return feed(ids.data(), static_cast<std::int64_t>(ids.size()), last_n);
    }
    /** A next token for each sequence, from logits [batch_size, n, V] of its last positions. */
    outcome<std::vector<std::int32_t>> choose(const tensor &logits,
                                              const choose_options &options = {}) const
    {
        std::vector<std::int32_t> ids(logits ? static_cast<std::size_t>(logits.size(0)) : 0);
        return value(eqat_generation_choose(get(), logits.get(), &options, ids.data()), ids);
    }
    /** Tokens of each sequence so far. */
    std::int64_t length() const { return eqat_generation_length(get()); }
    /** Keeps the first tokens of each sequence. */
    outcome<void> rewind(std::int64_t length)
    {
        return done(eqat_generation_rewind(get(), length));
    }
};

} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
