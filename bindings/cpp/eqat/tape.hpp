/** @file
 * libeqat for C++17: reverse-mode differentiation.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_TAPE_HPP
#define EQAT_TAPE_HPP

#include "eqat/tape.h"
#include "quantizer.hpp"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{

struct attention_options : eqat_attention_options {
    attention_options() { eqat_attention_options_init(this, sizeof(eqat_attention_options)); }
};

/** Records ops on tensors that require a gradient: eqat_tape.  Every member that is called like an
 * eqat_op_... is that op, whose header tells shapes and gradients; a tensor that may be left out is
 * a pointer. */
class tape : public detail::handle<eqat_tape, eqat_tape_free>
{
  public:
    using handle::handle;
    struct routed {
        tensor weights, index;
    };
    struct mean_loss {
        tensor loss, count; /**< F32 [1] each; count: of labels */
    };
    using backward_fn = std::function<outcome<void>(tape &tape, const tensor &out_grad,
                                                    const std::vector<tensor> &in)>;
    using segment_fn = std::function<outcome<tensor>(tape &tape, const std::vector<tensor> &in)>;

    static outcome<tape> create(const context &c)
    {
        eqat_tape *out = nullptr;
        eqat_status status = eqat_tape_create(c.get(), &out);
        return c.made<tape>(status, out);
    }
    void clear() { eqat_tape_clear(get()); }
    void set_recording(bool on) { eqat_tape_set_recording(get(), on); }
    outcome<void> backward(const tensor &loss, double scale = 1)
    {
        return done(eqat_tape_backward(get(), loss.get(), scale));
    }
    outcome<void> backward_from(const tensor &out, const tensor &grad)
    {
        return done(eqat_tape_backward_from(get(), out.get(), grad.get()));
    }
    outcome<void> add_grad(const tensor &t, const tensor &grad)
    {
        return done(eqat_tape_add_grad(get(), t.get(), grad.get()));
    }

    outcome<tensor> linear(const tensor &x, const tensor &w, const tensor *bias = nullptr)
    {
        return op(eqat_op_linear, x.get(), w.get(), detail::raw(bias));
    }
    outcome<tensor> fakequant_linear(const tensor &x, const tensor &w, const tensor &s,
                                     const tensor &z, const quantizer &q,
                                     const tensor *bias = nullptr)
    {
        return op(eqat_op_fakequant_linear, x.get(), w.get(), s.get(), z.get(), detail::raw(bias),
                  q.get());
    }
    outcome<tensor> packed_linear(const tensor &x, const tensor &codes, const tensor &s,
                                  const tensor &z, const tensor *bias = nullptr)
    {
        return op(eqat_op_packed_linear, x.get(), codes.get(), s.get(), z.get(), detail::raw(bias));
    }
    outcome<tensor> fakequant(const tensor &w, const tensor &s, const tensor &z, const quantizer &q,
                              eqat_dtype dtype = EQAT_F32)
    {
        return op(eqat_op_fakequant, w.get(), s.get(), z.get(), q.get(), dtype);
    }
    outcome<tensor> embedding(const tensor &ids, const tensor &table, eqat_dtype dtype = EQAT_F32)
    {
        return op(eqat_op_embedding, ids.get(), table.get(), dtype);
    }
    outcome<tensor> rmsnorm(const tensor &x, const tensor &gain, double eps, double offset = 0)
    {
        return op(eqat_op_rmsnorm, x.get(), gain.get(), eps, offset);
    }
    outcome<tensor> rope(const tensor &x, const tensor &cos, const tensor &sin,
                         const tensor *positions = nullptr)
    {
        return op(eqat_op_rope, x.get(), cos.get(), sin.get(), detail::raw(positions));
    }
    outcome<tensor> attention(const tensor &q, const tensor &k, const tensor &v,
                              const attention_options &options = attention_options(),
                              const tensor *segments = nullptr)
    {
        return op(eqat_op_attention, q.get(), k.get(), v.get(), detail::raw(segments), &options);
    }
    outcome<tensor> gated(const tensor &gate, const tensor &up, eqat_activation activation)
    {
        return op(eqat_op_gated, gate.get(), up.get(), activation);
    }
    outcome<routed> route(const tensor &logits, std::int64_t k, bool normalised)
    {
        eqat_tensor *weights = nullptr, *index = nullptr;
        eqat_status status = eqat_op_route(get(), logits.get(), k, normalised, &weights, &index);
        routed out{tensor(where(), weights), tensor(where(), index)};
        return value(status, out);
    }
    outcome<tensor> gather_rows(const tensor &x, const tensor &rows)
    {
        return op(eqat_op_gather_rows, x.get(), rows.get());
    }
    /** sum becomes the result. */
    outcome<void> scatter_rows(tensor &sum, const tensor &y, const tensor &weights,
                               const tensor &rows, const tensor &slots)
    {
        eqat_tensor *taken = sum.get();
        eqat_status status =
            eqat_op_scatter_rows(get(), &taken, y.get(), weights.get(), rows.get(), slots.get());
        if (sum) sum.replace(taken);
        return done(status);
    }
    outcome<tensor> add(const tensor &a, const tensor &b)
    {
        return op(eqat_op_add, a.get(), b.get());
    }
    outcome<tensor> mul(const tensor &a, const tensor &b)
    {
        return op(eqat_op_mul, a.get(), b.get());
    }
    outcome<tensor> scale(const tensor &a, double factor)
    {
        return op(eqat_op_scale, a.get(), factor);
    }
    outcome<tensor> reshape(const tensor &a, span<const std::int64_t> shape)
    {
        return op(eqat_op_reshape, a.get(), static_cast<std::int32_t>(shape.size()), shape.data());
    }
    outcome<tensor> slice(const tensor &a, std::int32_t dim, std::int64_t start,
                          std::int64_t length)
    {
        return op(eqat_op_slice, a.get(), dim, start, length);
    }
    outcome<tensor> transpose(const tensor &a, std::int32_t dim0, std::int32_t dim1)
    {
        return op(eqat_op_transpose, a.get(), dim0, dim1);
    }
    outcome<tensor> cast(const tensor &a, eqat_dtype dtype)
    {
        return op(eqat_op_cast, a.get(), dtype);
    }
    outcome<tensor> mse(const tensor &x, const tensor &target)
    {
        return op(eqat_op_mse, x.get(), target.get());
    }
    /** Of softmax(logits) from softmax(target), over the rows whose label is not negative. */
    outcome<tensor> kl_divergence(const tensor &logits, const tensor &target,
                                  const tensor *labels = nullptr)
    {
        return op(eqat_op_kl_divergence, logits.get(), target.get(), detail::raw(labels));
    }
    outcome<mean_loss> linear_cross_entropy(const tensor &x, const tensor &w, const tensor &labels)
    {
        eqat_tensor *loss = nullptr, *count = nullptr;
        eqat_status status =
            eqat_op_linear_cross_entropy(get(), x.get(), w.get(), labels.get(), &loss, &count);
        mean_loss out{tensor(where(), loss), tensor(where(), count)};
        return value(status, out);
    }

    /** An op of the caller's: `out` was computed from `in`; backward adds to the inputs' gradients
     * with add_grad, and ends the pass by throwing or returning an error. */
    outcome<void> custom(const char *name, const std::vector<const tensor *> &in, const tensor &out,
                         backward_fn backward)
    {
        if (!get()) return failed<void>(EQAT_INVALID_ARGUMENT);
        std::vector<eqat_tensor *> inputs = detail::raw(in);
        auto *user = new rule<backward_fn>{where(), std::move(backward)};
        return done(eqat_op_custom(get(), name, inputs.data(),
                                   static_cast<std::int32_t>(inputs.size()), out.get(),
                                   call_backward, rule<backward_fn>::release, user));
    }
    /** Runs segment now without recording and again during backward. */
    outcome<tensor> checkpoint(segment_fn segment, const std::vector<const tensor *> &in)
    {
        if (!get()) return failed<tensor>(EQAT_INVALID_ARGUMENT);
        std::vector<eqat_tensor *> inputs = detail::raw(in);
        auto *user = new rule<segment_fn>{where(), std::move(segment)};
        eqat_tensor *out = nullptr;
        return made<tensor>(eqat_tape_checkpoint(get(), call_segment, user,
                                                 rule<segment_fn>::release, inputs.data(),
                                                 static_cast<std::int32_t>(inputs.size()), &out),
                            out);
    }

    /** A tape that C lends for a callback. */
    static tape lent(const std::shared_ptr<detail::home> &where, eqat_tape *raw)
    {
        return tape(std::make_shared<detail::anchor>(where, nullptr, nullptr), raw);
    }

  private:
    template <class F> struct rule {
        std::shared_ptr<detail::home> where;
        F call;
        static void release(void *user) { delete static_cast<rule *>(user); }
    };

    template <class F, class... In> outcome<tensor> op(F f, In... in)
    {
        eqat_tensor *out = nullptr;
        return made<tensor>(f(get(), in..., &out), out);
    }

    static eqat_status call_backward(void *user, eqat_tape *raw, eqat_tensor *out_grad,
                                     eqat_tensor *const *in, std::int32_t n_in)
    {
        auto *r = static_cast<rule<backward_fn> *>(user);
        return r->where->guard([&]() -> outcome<void> {
            tape t = lent(r->where, raw);
            return r->call(t, tensor(r->where, eqat_tensor_ref(out_grad)),
                           detail::lent(r->where, in, static_cast<std::size_t>(n_in)));
        });
    }
    static eqat_status call_segment(eqat_tape *raw, void *user, eqat_tensor *const *in,
                                    std::int32_t n_in, eqat_tensor **out)
    {
        auto *r = static_cast<rule<segment_fn> *>(user);
        return r->where->guard([&]() -> outcome<void> {
            tape t = lent(r->where, raw);
            return detail::then(
                r->call(t, detail::lent(r->where, in, static_cast<std::size_t>(n_in))),
                [&](const tensor &y) { *out = eqat_tensor_ref(y.get()); });
        });
    }
};

} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
