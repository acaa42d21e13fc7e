/** @file
 * libeqat for C++17: text to token ids and back.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_TOKENIZER_HPP
#define EQAT_TOKENIZER_HPP

#include "context.hpp"
#include "eqat/tokenizer.h"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{

/** A byte-pair-encoding tokenizer: eqat_tokenizer.  Flags are eqat_tokenize_flags, or-ed. */
class tokenizer : public detail::handle<eqat_tokenizer, eqat_tokenizer_free>
{
  public:
    using handle::handle;

    static outcome<tokenizer> open(const context &c, const std::string &path)
    {
        eqat_tokenizer *out = nullptr;
        eqat_status status = eqat_tokenizer_open(c.get(), &out, path.c_str());
        return c.made<tokenizer>(status, out);
    }
    outcome<std::vector<std::int32_t>> encode(std::string_view text,
                                              std::uint32_t flags = EQAT_TOKENIZE_PLAIN) const
    {
        const std::int32_t *first = nullptr;
        std::size_t count = 0;
        eqat_status status =
            eqat_tokenizer_encode(get(), text.data(), text.size(), flags, &first, &count);
        std::vector<std::int32_t> ids(first, first + count);
        return value(status, ids);
    }
    /** Bytes, also where they are no whole UTF-8 characters. */
    outcome<std::string> decode(span<const std::int32_t> ids,
                                std::uint32_t flags = EQAT_TOKENIZE_PLAIN) const
    {
        const char *first = nullptr;
        std::size_t length = 0;
        eqat_status status =
            eqat_tokenizer_decode(get(), ids.data(), ids.size(), flags, &first, &length);
        std::string text(first ? first : "", length);
        return value(status, text);
    }
    std::int32_t vocab_size() const { return eqat_tokenizer_vocab_size(get()); }
    /** The token as the vocabulary writes it; borrowed from the tokenizer. */
    std::optional<std::string_view> token_text(std::int32_t id) const
    {
        std::size_t length = 0;
        const char *text = eqat_tokenizer_token_text(get(), id, &length);
        return text ? std::optional<std::string_view>({text, length}) : std::nullopt;
    }
    std::optional<std::int32_t> token_id(std::string_view text) const
    {
        return known(eqat_tokenizer_token_id(get(), text.data(), text.size()));
    }
    bool is_special(std::int32_t id) const { return eqat_tokenizer_is_special(get(), id); }
    std::optional<std::int32_t> bos() const { return known(eqat_tokenizer_bos(get())); }
    std::optional<std::int32_t> eos() const { return known(eqat_tokenizer_eos(get())); }
    std::optional<std::int32_t> unk() const { return known(eqat_tokenizer_unk(get())); }
    outcome<void> save(const std::string &dir) const
    {
        return done(eqat_tokenizer_save(get(), dir.c_str()));
    }
    void release_buffers() const { eqat_tokenizer_release_buffers(get()); }

  private:
    static std::optional<std::int32_t> known(std::int32_t id)
    {
        return id < 0 ? std::nullopt : std::optional<std::int32_t>(id);
    }
};

} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
