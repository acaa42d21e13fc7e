/** @file
 * libeqat for C++17: AdamW with parameter groups and schedules.  SPDX-License-Identifier:
 * Apache-2.0
 */
#ifndef EQAT_OPTIMIZER_HPP
#define EQAT_OPTIMIZER_HPP

#include "eqat/optimizer.h"
#include "tape.hpp"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{

struct optimizer_options : eqat_optimizer_options {
    optimizer_options() { eqat_optimizer_options_init(this, sizeof(eqat_optimizer_options)); }
};

/** Between backward and update, when gradients are complete: eqat_grad_fn. */
using gradient_fn = std::function<outcome<void>(const std::vector<tensor> &parameters)>;

namespace detail
{

struct gradient_call {
    std::shared_ptr<home> where;
    gradient_fn call;
};

inline eqat_status call_gradient(void *user, eqat_tensor *const *parameters, std::size_t count)
{
    auto *g = static_cast<gradient_call *>(user);
    return g->where->guard(
        [&]() -> outcome<void> { return g->call(lent(g->where, parameters, count)); });
}

} // namespace detail

/** AdamW: eqat_optimizer.  One that a job lends is valid until the job's finish or abandon. */
class optimizer : public detail::handle<eqat_optimizer, eqat_optimizer_free>
{
  public:
    using handle::handle;

    static outcome<optimizer> create(const context &c,
                                     const optimizer_options &options = optimizer_options())
    {
        eqat_optimizer *out = nullptr;
        eqat_status status = eqat_optimizer_create(c.get(), &out, &options);
        return c.made<optimizer>(status, out);
    }
    /** The number of the new group. */
    outcome<std::int32_t> add_group(double lr)
    {
        std::int32_t group = 0;
        eqat_status status = eqat_optimizer_add_group(get(), lr, &group);
        return value(status, group);
    }
    outcome<void> add(std::int32_t group, const tensor &parameter)
    {
        return done(eqat_optimizer_add(get(), group, parameter.get()));
    }
    void zero_grad() { eqat_optimizer_zero_grad(get()); }
    /** Replaces the gradient callback; an empty one: none. */
    void on_gradient(gradient_fn f)
    {
        if (!get()) return;
        bool is_set = static_cast<bool>(f);
        auto call = std::make_shared<detail::gradient_call>();
        /* Not the anchor's own reference: an anchor that holds its callback would never go. */
        call->where = where();
        call->call = std::move(f);
        eqat_optimizer_set_grad_callback(get(), is_set ? detail::call_gradient : nullptr,
                                         call.get());
        owner()->gradient = std::move(call);
    }
    outcome<void> step(double grad_scale = 1)
    {
        return done(eqat_optimizer_step(get(), grad_scale));
    }
    /** Backward and step in one. */
    outcome<void> backward(tape &t, const tensor &loss)
    {
        return done(eqat_optimizer_backward(get(), t.get(), loss.get()));
    }
    double lr_factor(std::int64_t k) const { return eqat_optimizer_lr_factor(get(), k); }
    std::int64_t steps() const { return eqat_optimizer_steps(get()); }
    outcome<double> grad_norm() const
    {
        double norm = 0;
        eqat_status status = eqat_optimizer_grad_norm(get(), &norm);
        return value(status, norm);
    }
};

} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
