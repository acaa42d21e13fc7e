/** @file
 * libeqat for C++17: Block-AP, E2E-QP and evaluation.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_TRAIN_HPP
#define EQAT_TRAIN_HPP

#include "data.hpp"
#include "eqat/eval.h"
#include "eqat/train.h"
#include "model.hpp"
#include "optimizer.hpp"

namespace eqat
{
inline namespace EQAT_CPP_MODE
{

/** A loss of the caller's, made of ops on the tape: eqat_block_loss_fn. */
using block_loss_fn =
    std::function<outcome<tensor>(tape &tape, const tensor &y, const tensor &target)>;
/** The same end to end, of the logits of a micro-batch; its labels are there: eqat_e2e_loss_fn. */
using e2e_loss_fn =
    std::function<outcome<tensor>(tape &tape, const tensor &logits, const batch &batch)>;
/** Replaces sums by their sums over all ranks: eqat_reduce_fn. */
using reduce_fn = std::function<outcome<void>(span<double> sums)>;

struct block_ap_options : eqat_block_ap_options {
    block_ap_options() { eqat_block_ap_options_init(this, sizeof(eqat_block_ap_options)); }
    progress_fn on_progress;
    progress_fn on_between; /**< of what comes between steps */
    block_loss_fn on_loss;
    gradient_fn on_gradient;
    reduce_fn on_reduce;
};

struct e2e_qp_options : eqat_e2e_qp_options {
    e2e_qp_options() { eqat_e2e_qp_options_init(this, sizeof(eqat_e2e_qp_options)); }
    progress_fn on_progress;
    progress_fn on_between; /**< of micro-batches */
    e2e_loss_fn on_loss;
    gradient_fn on_gradient;
    reduce_fn on_reduce;
};

struct eval_options : eqat_eval_options {
    eval_options() { eqat_eval_options_init(this, sizeof(eqat_eval_options)); }
    progress_fn on_progress;
};

namespace detail
{

/** The callbacks of one job, which live as long as the C job; and its data's. */
struct job_calls {
    std::shared_ptr<home> where;
    progress_call progress, between;
    block_loss_fn loss;
    e2e_loss_fn e2e_loss;
    reduce_fn reduce;
    gradient_call gradient;
    std::shared_ptr<void> data;

    static eqat_status call_loss(void *user, eqat_tape *raw, eqat_tensor *y, eqat_tensor *target,
                                 eqat_tensor **loss)
    {
        auto *job = static_cast<job_calls *>(user);
        return job->where->guard([&]() -> outcome<void> {
            tape t = tape::lent(job->where, raw);
            return then(job->loss(t, tensor(job->where, eqat_tensor_ref(y)),
                                  tensor(job->where, eqat_tensor_ref(target))),
                        [&](const tensor &made) { *loss = eqat_tensor_ref(made.get()); });
        });
    }
    static eqat_status call_e2e_loss(void *user, eqat_tape *raw, eqat_tensor *logits,
                                     const eqat_batch *b, eqat_tensor **loss)
    {
        auto *job = static_cast<job_calls *>(user);
        return job->where->guard([&]() -> outcome<void> {
            tape t = tape::lent(job->where, raw);
            tensor embeddings(job->where, eqat_tensor_ref(b->embeddings));
            return then(job->e2e_loss(t, tensor(job->where, eqat_tensor_ref(logits)),
                                      batch::lent(*b, embeddings)),
                        [&](const tensor &made) { *loss = eqat_tensor_ref(made.get()); });
        });
    }
    static eqat_status call_reduce(void *user, double *sums, std::size_t count)
    {
        auto *job = static_cast<job_calls *>(user);
        return job->where->guard(
            [&]() -> outcome<void> { return job->reduce(span<double>(sums, count)); });
    }

    /** Of what both kinds of jobs have: those that the caller gave replace the C ones in `raw`. */
    template <class Options, class Raw> void enter(const Options &o, Raw &raw)
    {
        progress = {where, o.on_progress};
        between = {where, o.on_between};
        reduce = o.on_reduce;
        gradient = {where, o.on_gradient};
        progress.enter(raw.progress, raw.progress_user);
        between.enter(raw.between, raw.between_user);
        if (gradient.call) {
            raw.gradient = call_gradient;
            raw.gradient_user = &gradient;
        }
        if (reduce) {
            raw.reduce = call_reduce;
            raw.reduce_user = this;
        }
    }
};

} // namespace detail

/** A running Block-AP job: eqat_block_ap. */
class block_ap : public detail::handle<eqat_block_ap, eqat_block_ap_free>
{
  public:
    using handle::handle;
    struct passed {
        tensor y, target;
    };

    static outcome<block_ap> create(const model &m, const quantizer &q, const data &d,
                                    const block_ap_options &options = block_ap_options());
    /** create and run. */
    static outcome<void> quantize(const model &m, const quantizer &q, const data &d,
                                  const block_ap_options &options = block_ap_options())
    {
#ifdef EQAT_NO_EXCEPTIONS
        outcome<block_ap> job = create(m, q, d, options);
        if (!job) return job.error();
        return job->run();
#else
        create(m, q, d, options).run();
#endif
    }

    /** The loop over the remaining blocks. */
    outcome<void> run() { return done(eqat_block_ap_run(get())); }
    std::int64_t block() const { return eqat_block_ap_block(get()); }
    outcome<void> begin() { return done(eqat_block_ap_begin(get())); }
    std::int64_t steps() const { return eqat_block_ap_steps(get()); }
    std::int64_t stages(std::int64_t block) const { return eqat_block_ap_stages(get(), block); }
    std::int64_t stage() const { return eqat_block_ap_stage(get()); }
    /** One training step; with `loss` it waits for the device. */
    outcome<void> step(std::int64_t epoch, std::int64_t step, double *loss = nullptr)
    {
        return done(eqat_block_ap_step(get(), epoch, step, loss));
    }
    outcome<passed> forward(tape &t, std::int64_t epoch, std::int64_t step)
    {
        eqat_tensor *y = nullptr, *target = nullptr;
        eqat_status status = eqat_block_ap_forward(get(), t.get(), epoch, step, &y, &target);
        passed out{tensor(where(), y), tensor(where(), target)};
        return value(status, out);
    }
    outcome<double> validate()
    {
        double loss = 0;
        eqat_status status = eqat_block_ap_validate(get(), &loss);
        return value(status, loss);
    }
    outcome<void> finish() { return done(eqat_block_ap_finish(get())); }
    void abandon() { eqat_block_ap_abandon(get()); }
    /** Of the block in work; nothing when there is none. */
    std::optional<eqat::optimizer> optimizer() const
    {
        eqat_optimizer *o = eqat_block_ap_optimizer(get());
        return o ? std::optional<eqat::optimizer>(eqat::optimizer(owner(), o)) : std::nullopt;
    }
    std::optional<tensor> parameter(const std::string &name) const
    {
        eqat_tensor *t = eqat_tensor_ref(eqat_block_ap_parameter(get(), name.c_str()));
        return t ? std::optional<tensor>(tensor(where(), t)) : std::nullopt;
    }
    outcome<eqat_epoch_report> epoch(std::int64_t block, std::int64_t epoch) const
    {
        eqat_epoch_report report{};
        report.struct_size = sizeof report;
        eqat_status status = eqat_block_ap_epoch(get(), block, epoch, &report);
        return value(status, report);
    }
    outcome<eqat_stage_report> stage_report(std::int64_t block, std::int64_t stage = 0) const
    {
        eqat_stage_report report{};
        report.struct_size = sizeof report;
        eqat_status status = eqat_block_ap_stage_report(get(), block, stage, &report);
        return value(status, report);
    }
    /** The state of the job, to a file and back. */
    outcome<void> save(const std::string &path)
    {
        return done(eqat_block_ap_save(get(), path.c_str()));
    }
    outcome<void> load(const std::string &path)
    {
        return done(eqat_block_ap_load(get(), path.c_str()));
    }
};

/** A running E2E-QP job: eqat_e2e_qp. */
class e2e_qp : public detail::handle<eqat_e2e_qp, eqat_e2e_qp_free>
{
  public:
    using handle::handle;

    static outcome<e2e_qp> create(const model &m, const data &d,
                                  const e2e_qp_options &options = e2e_qp_options());
    /** Whether it can train a model as q, if given, would quantize it: eqat_e2e_qp_check. */
    static outcome<void> check(const model &m, const quantizer *q, const data &d,
                               const e2e_qp_options &options = e2e_qp_options())
    {
        eqat_status status = eqat_e2e_qp_check(m.get(), q ? q->get() : nullptr, d.get(), &options);
        if (status != EQAT_OK) return m.where()->template give_up<void>(status);
        return outcome<void>();
    }
    /** create and run. */
    static outcome<void> train(const model &m, const data &d,
                               const e2e_qp_options &options = e2e_qp_options())
    {
#ifdef EQAT_NO_EXCEPTIONS
        outcome<e2e_qp> job = create(m, d, options);
        if (!job) return job.error();
        return job->run();
#else
        create(m, d, options).run();
#endif
    }

    /** The loop over the remaining steps, finish included. */
    outcome<void> run() { return done(eqat_e2e_qp_run(get())); }
    std::int64_t steps() const { return eqat_e2e_qp_steps(get()); }
    std::int64_t micro_steps(std::int64_t step) const
    {
        return eqat_e2e_qp_micro_steps(get(), step);
    }
    outcome<void> accumulate(std::int64_t step, std::int64_t micro, double *loss = nullptr)
    {
        return done(eqat_e2e_qp_accumulate(get(), step, micro, loss));
    }
    outcome<void> step() { return done(eqat_e2e_qp_step(get())); }
    /** Nothing after finish. */
    std::optional<eqat::optimizer> optimizer() const
    {
        eqat_optimizer *o = eqat_e2e_qp_optimizer(get());
        return o ? std::optional<eqat::optimizer>(eqat::optimizer(owner(), o)) : std::nullopt;
    }
    outcome<void> finish() { return done(eqat_e2e_qp_finish(get())); }
    /** Of an optimizer step; NaN when not taken. */
    double loss(std::int64_t step) const { return eqat_e2e_qp_loss(get(), step); }
    /** Over the validation samples; behind a step of run. */
    outcome<double> validate()
    {
        double loss = 0;
        eqat_status status = eqat_e2e_qp_validate(get(), &loss);
        return value(status, loss);
    }
    double val_loss(std::int64_t step) const { return eqat_e2e_qp_val_loss(get(), step); }
    outcome<eqat_stage_report> stage_report() const
    {
        eqat_stage_report report{};
        report.struct_size = sizeof report;
        eqat_status status = eqat_e2e_qp_stage_report(get(), &report);
        return value(status, report);
    }
    outcome<void> save(const std::string &path)
    {
        return done(eqat_e2e_qp_save(get(), path.c_str()));
    }
    outcome<void> load(const std::string &path)
    {
        return done(eqat_e2e_qp_load(get(), path.c_str()));
    }
};

inline outcome<block_ap> block_ap::create(const model &m, const quantizer &q, const data &d,
                                          const block_ap_options &options)
{
    eqat_block_ap_options raw = options;
    auto calls = std::make_shared<detail::job_calls>();
    calls->where = m.where();
    calls->data = d.callbacks();
    calls->enter(options, raw);
    calls->loss = options.on_loss;
    if (calls->loss) {
        raw.loss = detail::job_calls::call_loss;
        raw.loss_user = calls.get();
    }
    eqat_block_ap *out = nullptr;
    eqat_status status = eqat_block_ap_create(m.get(), &out, q.get(), d.get(), &raw);
    block_ap job(m.where(), out);
    job.owner()->callbacks = std::move(calls);
    return job.value(status, job);
}

inline outcome<e2e_qp> e2e_qp::create(const model &m, const data &d, const e2e_qp_options &options)
{
    eqat_e2e_qp_options raw = options;
    auto calls = std::make_shared<detail::job_calls>();
    calls->where = m.where();
    calls->data = d.callbacks();
    calls->enter(options, raw);
    calls->e2e_loss = options.on_loss;
    if (calls->e2e_loss) {
        raw.loss = detail::job_calls::call_e2e_loss;
        raw.loss_user = calls.get();
    }
    eqat_e2e_qp *out = nullptr;
    eqat_status status = eqat_e2e_qp_create(m.get(), &out, d.get(), &raw);
    e2e_qp job(m.where(), out);
    job.owner()->callbacks = std::move(calls);
    return job.value(status, job);
}

/** Perplexity over the training windows of d: eqat_eval_perplexity, whose header says how to open
 * them. */
inline outcome<eqat_perplexity> perplexity(const model &m, const data &d,
                                           const eval_options &options = eval_options())
{
    eqat_eval_options raw = options;
    detail::progress_call call{m.where(), options.on_progress};
    call.enter(raw.progress, raw.progress_user);
    eqat_perplexity out{};
    out.struct_size = sizeof out;
    eqat_status status = eqat_eval_perplexity(m.get(), d.get(), &raw, &out);
    return m.value(status, out);
}

} // namespace EQAT_CPP_MODE
} // namespace eqat
#endif
