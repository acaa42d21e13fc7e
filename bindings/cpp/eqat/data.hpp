/** @file
 * libeqat for C++17: calibration and training data.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_DATA_HPP
#define EQAT_DATA_HPP

#include "eqat/data.h"
#include "tokenizer.hpp"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{

struct data_options : eqat_data_options {
    data_options() { eqat_data_options_init(this, sizeof(eqat_data_options)); }
};

/** What a caller's record is written to: T = seq_len values each (embeddings [T, H]); empty where
 * the field is not wanted.  The meaning is that of eqat_sample. */
struct record {
    span<std::int32_t> ids, labels, positions, segments;
    span<float> embeddings;
};

/** Fills record `index`, the same each time. */
using record_fn =
    std::function<outcome<void>(bool validation, std::int64_t index, const record &record)>;

/** Samples: eqat_data. */
class data : public detail::handle<eqat_data, eqat_data_free>
{
  public:
    using handle::handle;
    struct sample {
        std::vector<std::int32_t> ids, labels, positions, segments;
        std::vector<float> embeddings;
    };

    /** From a file: .txt and .jsonl with a tokenizer, .npy, .u16, .u32; vocab_size > 0 checks ids.
     */
    static outcome<data> open(const context &c, const std::string &path,
                              const tokenizer *tokenizer = nullptr,
                              const data_options &options = data_options(),
                              std::int64_t vocab_size = 0)
    {
        eqat_data *out = nullptr;
        eqat_status status =
            eqat_data_open(c.get(), &out, path.c_str(), tokenizer ? tokenizer->get() : nullptr,
                           vocab_size, &options);
        return c.made<data>(status, out);
    }
    static outcome<data> open(const context &c, const std::string &path,
                              const std::optional<tokenizer> &tokenizer,
                              const data_options &options = data_options(),
                              std::int64_t vocab_size = 0)
    {
        return open(c, path, tokenizer ? &*tokenizer : nullptr, options, vocab_size);
    }
    static outcome<data> from_tokens(const context &c, span<const std::int32_t> ids,
                                     const data_options &options = data_options(),
                                     std::int64_t vocab_size = 0)
    {
        eqat_data *out = nullptr;
        eqat_status status =
            eqat_data_from_tokens(c.get(), &out, ids.data(), ids.size(), vocab_size, &options);
        return c.made<data>(status, out);
    }
    /** From the caller, with these fields (eqat_sample_field, or-ed).  fill lives as long as the
     * data and jobs made with it. */
    static outcome<data> from_records(const context &c, record_fn fill, std::int32_t fields,
                                      const data_options &options = data_options(),
                                      std::int64_t vocab_size = 0, std::int64_t hidden_size = 0);

    std::int64_t train_size() const { return eqat_data_train_size(get()); }
    std::int64_t val_size() const { return eqat_data_val_size(get()); }
    std::int64_t seq_len() const { return eqat_data_seq_len(get()); }
    std::int64_t token_count() const { return eqat_data_token_count(get()); }
    std::int32_t fields() const { return eqat_data_fields(get()); }
    std::int64_t hidden_size() const { return eqat_data_hidden_size(get()); }
    std::int64_t order(std::int64_t epoch, std::int64_t position) const
    {
        return eqat_data_order(get(), epoch, position);
    }
    /** Sample `index`: these fields (eqat_sample_field, or-ed), the others empty. */
    outcome<sample> at(std::int64_t index, std::int32_t wanted = EQAT_SAMPLE_IDS,
                       bool validation = false) const
    {
        sample out;
        eqat_sample raw{};
        std::size_t t = static_cast<std::size_t>(seq_len());
        raw.struct_size = sizeof raw;
        raw.ids = sized(out.ids, t, wanted & EQAT_SAMPLE_IDS);
        raw.labels = sized(out.labels, t, wanted & EQAT_SAMPLE_LABELS);
        raw.positions = sized(out.positions, t, wanted & EQAT_SAMPLE_POSITIONS);
        raw.segments = sized(out.segments, t, wanted & EQAT_SAMPLE_SEGMENTS);
        raw.embeddings = sized(out.embeddings, t * static_cast<std::size_t>(hidden_size()),
                               wanted & EQAT_SAMPLE_EMBEDDINGS);
        eqat_status status = eqat_data_sample(get(), validation, index, &raw);
        return value(status, out);
    }
    /** What callbacks of this data need, for whoever keeps the C handle. */
    std::shared_ptr<void> callbacks() const { return owner() ? owner()->callbacks : nullptr; }

  private:
    struct source {
        std::shared_ptr<detail::home> where;
        record_fn fill;
        std::size_t time, width;
    };
    template <class T> static T *sized(std::vector<T> &v, std::size_t n, bool wanted)
    {
        if (wanted) v.resize(n);
        return wanted ? v.data() : nullptr;
    }
    static eqat_status call_fill(void *user, bool validation, std::int64_t index,
                                 const eqat_sample *s)
    {
        auto *from = static_cast<source *>(user);
        auto of = [&](auto *p, std::size_t n) {
            return span<std::remove_pointer_t<decltype(p)>>(p, p ? n : 0);
        };
        return from->where->guard([&]() -> outcome<void> {
            std::size_t t = from->time;
            return from->fill(validation, index,
                              record{of(s->ids, t), of(s->labels, t), of(s->positions, t),
                                     of(s->segments, t), of(s->embeddings, t * from->width)});
        });
    }
};

inline outcome<data> data::from_records(const context &c, record_fn fill, std::int32_t fields,
                                        const data_options &options, std::int64_t vocab_size,
                                        std::int64_t hidden_size)
{
    auto from = std::make_shared<source>(source{c.shared(), std::move(fill),
                                                static_cast<std::size_t>(options.seq_len),
                                                static_cast<std::size_t>(hidden_size)});
    eqat_data *out = nullptr;
    eqat_status status =
        eqat_data_from_records(c.get(), &out, from->fill ? call_fill : nullptr, from.get(), fields,
                               vocab_size, hidden_size, &options);
    data made(c.shared(), out);
    made.owner()->callbacks = std::move(from);
    return made.value(status, made);
}

} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
