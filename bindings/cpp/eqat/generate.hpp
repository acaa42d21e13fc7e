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
