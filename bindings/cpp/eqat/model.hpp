/** @file
 * libeqat for C++17: decoder language models.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_MODEL_HPP
#define EQAT_MODEL_HPP

#include "eqat/model.h"
#include "progress.hpp"
#include "tape.hpp"
#include "tokenizer.hpp"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{

struct model_options : eqat_model_options {
    model_options() { eqat_model_options_init(this, sizeof(eqat_model_options)); }
};

/** Its strings stay borrowed. */
struct save_options : eqat_save_options {
    save_options() { eqat_save_options_init(this, sizeof(eqat_save_options)); }
    progress_fn on_progress;
};

struct rtn_options : eqat_rtn_options {
    rtn_options() { eqat_rtn_options_init(this, sizeof(eqat_rtn_options)); }
    progress_fn on_progress;
};

/** Several sequences of equal length: eqat_batch.  ids, or embeddings, and what else is not empty
 * hold batch * time values each. */
struct batch {
    std::int64_t batch_size = 1, time = 0;
    span<const std::int32_t> ids, labels, positions, segments;
    const tensor *embeddings = nullptr;
    bool keep_activations = false;

    batch() = default;
    /** Sequences one behind the other. */
    batch(span<const std::int32_t> sequences, std::int64_t count = 1)
        : batch_size(count),
          time(count > 0 ? static_cast<std::int64_t>(sequences.size()) / count : 0), ids(sequences)
    {
    }
    /** What C lends a callback; `embeddings` holds the batch's. */
    static batch lent(const eqat_batch &b, const tensor &embeddings)
    {
        batch out;
        std::size_t n = static_cast<std::size_t>(b.batch * b.time);
        auto of = [n](const std::int32_t *p) { return span<const std::int32_t>(p, p ? n : 0); };
        out.batch_size = b.batch;
        out.time = b.time;
        out.ids = of(b.ids);
        out.labels = of(b.labels);
        out.positions = of(b.positions);
        out.segments = of(b.segments);
        out.embeddings = embeddings ? &embeddings : nullptr;
        out.keep_activations = b.keep_activations;
        return out;
    }
};

/** A decoder-only transformer, full precision or quantized: eqat_model. */
class model : public detail::handle<eqat_model, eqat_model_free>
{
  public:
    using handle::handle;
    using mean_loss = tape::mean_loss;

    /** A Hugging Face folder or a .gguf file. */
    static outcome<model> open(const context &c, const std::string &path,
                               const model_options &options = model_options())
    {
        eqat_model *out = nullptr;
        eqat_status status = eqat_model_open(c.get(), &out, path.c_str(), &options);
        return c.made<model>(status, out);
    }
    /** Strings in infos are borrowed from the model. */
    outcome<eqat_model_info> info() const
    {
        eqat_model_info info{};
        info.struct_size = sizeof info;
        eqat_status status = eqat_model_inspect(get(), &info);
        return value(status, info);
    }
    outcome<std::vector<eqat_linear_info>> linears(std::int64_t block) const
    {
        std::vector<eqat_linear_info> all;
        eqat_status status = EQAT_OK;
        for (std::int64_t i = 0, n = eqat_model_linear_count(get(), block); i < n; i++) {
            eqat_linear_info one{};
            one.struct_size = sizeof one;
            status = eqat_model_linear(get(), block, i, &one);
            if (status != EQAT_OK) break;
            all.push_back(one);
        }
        return value(status, all);
    }
    /** The one that came with the model, which it keeps alive. */
    std::optional<eqat::tokenizer> tokenizer() const
    {
        const eqat_tokenizer *t = eqat_model_tokenizer(get());
        if (!t) return std::nullopt;
        return eqat::tokenizer(owner(), const_cast<eqat_tokenizer *>(t));
    }

    /** Logits F32 [B, T, V]; recorded when a tape is given. */
    outcome<tensor> forward(const batch &b, tape *t = nullptr) const
    {
        eqat_tensor *out = nullptr;
        return with(b, [&](const eqat_batch &raw) {
            return made<tensor>(eqat_model_forward(get(), raw_of(t), &raw, &out), out);
        });
    }
    /** Mean cross-entropy over the batch's labels; recorded when a tape is given. */
    outcome<mean_loss> loss(const batch &b, tape *t = nullptr) const
    {
        return with(b, [&](const eqat_batch &raw) {
            eqat_tensor *loss = nullptr, *count = nullptr;
            eqat_status status = eqat_model_loss(get(), raw_of(t), &raw, &loss, &count);
            mean_loss out{tensor(where(), loss), tensor(where(), count)};
            return value(status, out);
        });
    }
    /** A pass in pieces, recorded: what enters the first block, each block, final norm and head. */
    outcome<tensor> embed(tape &t, const batch &b) const
    {
        eqat_tensor *x = nullptr;
        return with(b, [&](const eqat_batch &raw) {
            return made<tensor>(eqat_model_embed(get(), t.get(), &raw, &x), x);
        });
    }
    outcome<tensor> block(tape &t, std::int64_t number, const tensor &x, const batch &b) const
    {
        eqat_tensor *y = nullptr;
        return with(b, [&](const eqat_batch &raw) {
            return made<tensor>(eqat_model_block(get(), t.get(), number, x.get(), &raw, &y), y);
        });
    }
    outcome<tensor> block(tape &t, std::int64_t number, const tensor &x) const
    {
        eqat_tensor *y = nullptr;
        return made<tensor>(eqat_model_block(get(), t.get(), number, x.get(), nullptr, &y), y);
    }
    outcome<tensor> logits(tape &t, const tensor &x, std::int64_t last_n = 0) const
    {
        eqat_tensor *out = nullptr;
        return made<tensor>(eqat_model_logits(get(), t.get(), x.get(), last_n, &out), out);
    }

    /** A tensor of the model by name; the model forgets it when the linear is quantized. */
    outcome<tensor> parameter(const std::string &name) const
    {
        eqat_tensor *lent = nullptr;
        eqat_status status = eqat_model_parameter(get(), name.c_str(), &lent);
        eqat_tensor *own = eqat_tensor_ref(lent);
        return made<tensor>(status, own);
    }
    std::vector<std::string> parameter_names() const
    {
        std::vector<std::string> names;
        while (const char *name = eqat_model_parameter_name(get(), names.size()))
            names.emplace_back(name);
        return names;
    }

    /** Rounds what the quantizer selects to nearest. */
    outcome<void> quantize_rtn(const quantizer &q, const rtn_options &options = rtn_options())
    {
        eqat_rtn_options raw = options;
        detail::progress_call call{where(), options.on_progress};
        call.enter(raw.progress, raw.progress_user);
        return done(eqat_model_quantize_rtn(get(), q.get(), &raw));
    }
    outcome<void> set_linear(std::int64_t block, std::int64_t linear,
                             const quantizer::packed &packed)
    {
        return done(eqat_model_set_linear(get(), block, linear, packed.codes.get(), packed.s.get(),
                                          packed.z.get()));
    }
    /** Writes a Hugging Face folder, new or empty. */
    outcome<void> save(const std::string &path, const save_options &options = save_options()) const
    {
        eqat_save_options raw = options;
        detail::progress_call call{where(), options.on_progress};
        call.enter(raw.progress, raw.progress_user);
        return done(eqat_model_save(get(), path.c_str(), &raw));
    }
    /** Whether that can hold the model as it is, or as q would quantize it. */
    outcome<void> check_save(const quantizer *q = nullptr,
                             const save_options &options = save_options()) const
    {
        return done(eqat_model_check_save(get(), q ? q->get() : nullptr, &options));
    }

  private:
    static eqat_tape *raw_of(tape *t) { return t ? t->get() : nullptr; }

    /** f of the C batch, once every span has its size. */
    template <class F>
    auto with(const batch &b, F f) const -> decltype(f(std::declval<const eqat_batch &>()))
    {
        using out = decltype(f(std::declval<const eqat_batch &>()));
        eqat_batch raw;
        eqat_batch_init(&raw, sizeof raw);
        raw.batch = b.batch_size;
        raw.time = b.time;
        raw.ids = b.ids.data();
        raw.labels = b.labels.data();
        raw.positions = b.positions.data();
        raw.segments = b.segments.data();
        raw.embeddings = detail::raw(b.embeddings);
        raw.keep_activations = b.keep_activations;
        std::size_t n = static_cast<std::size_t>(b.batch_size * b.time);
        for (const auto &values : {b.ids, b.labels, b.positions, b.segments})
            if (values.data() && values.size() != n) return wrong_size<out>(values.size(), n);
        return f(raw);
    }
#ifdef EQAT_NO_EXCEPTIONS
    template <class Out> static Out wrong_size(std::size_t found, std::size_t expected)
    {
        return detail::mismatch("batch", found, expected);
    }
#else
    template <class Out> [[noreturn]] static Out wrong_size(std::size_t found, std::size_t expected)
    {
        throw detail::mismatch("batch", found, expected);
    }
#endif
};

} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
