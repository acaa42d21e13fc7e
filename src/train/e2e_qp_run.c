#include <math.h>
#include <stdio.h>

#include "base/entry.h"
#include "train/e2e_qp.h"
#include "train/optimizer.h"
#include "train/report.h"

/* The loop over steps; everything here is also in reach of a driver of one's own. */

static eqat_status report(eqat_e2e_qp *job, int64_t step)
{
    const eqat_e2e_qp_options *o = &job->options;
    eqat_progress p = eqi_e2e_qp_progress(job, step, step + 1);
    if (!o->progress) return EQAT_OK;
    p.loss = job->reports[step];
    p.val_loss = job->validations[step];
    p.lr = o->lr * eqat_optimizer_lr_factor(job->optimizer, step);
    EQI_RETURN_IF(eqat_optimizer_grad_norm(job->optimizer, &p.grad_norm));
    return eqi_report_progress(job->ctx, o->progress, o->progress_user, &p);
}

static eqat_status accumulate_step(eqat_e2e_qp *job, int64_t step)
{
    int64_t micros = eqat_e2e_qp_micro_steps(job, step);
    eqi_e2e_qp_drop_gradients(job); /* of a step that was cancelled on its way */
    for (int64_t micro = 0; micro < micros; micro++) {
        eqat_status st = eqi_e2e_qp_tell(job, "accumulate", step, micro, micros);
        if (st == EQAT_OK) st = eqi_e2e_qp_accumulate(job, step, micro);
        if (st == EQAT_OK) continue;
        eqi_e2e_qp_drop_gradients(job);
        return st;
    }
    return EQAT_OK;
}

/* *sound: the losses of the step, and of the validation behind it, are finite. */
static eqat_status take_step(eqat_e2e_qp *job, int64_t step, bool *sound)
{
    EQI_RETURN_IF(accumulate_step(job, step));
    eqat_status st = eqi_e2e_qp_report_loss(job, step);
    *sound = st != EQAT_NUMERIC;
    EQI_RETURN_IF(st);
    EQI_RETURN_IF(eqi_e2e_qp_keep_good(job));
    if (job->options.progress) eqi_optimizer_want_norm(job->optimizer);
    EQI_RETURN_IF(eqat_e2e_qp_step(job));
    st = eqi_e2e_qp_measure(job, step);
    *sound = st != EQAT_NUMERIC;
    return st == EQAT_OK ? report(job, step) : st;
}

static eqat_status take_steps(eqat_e2e_qp *job, bool *sound)
{
    int64_t first = eqat_optimizer_steps(job->optimizer), steps = eqat_e2e_qp_steps(job);
    eqat_status st = eqi_e2e_qp_measure(job, first - 1); /* which was cancelled */
    *sound = st != EQAT_NUMERIC;
    for (int64_t step = first; step < steps && st == EQAT_OK; step++)
        st = take_step(job, step, sound);
    return st;
}

/* Of the values that gave the last finite loss; infinite when it is not finite there. */
static eqat_status measure_good(eqat_e2e_qp *job, double *loss)
{
    eqat_status st = eqat_e2e_qp_validate(job, loss);
    if (st != EQAT_NUMERIC) return st;
    job->ctx->error[0] = 0;
    *loss = INFINITY;
    return EQAT_OK;
}

static int64_t good_steps(const eqat_e2e_qp *job)
{
    return eqat_optimizer_steps(job->optimizer) - 1;
}

/* The context's error was the reason. */
static eqat_status fall_back(eqat_e2e_qp *job)
{
    char why[sizeof job->ctx->error];
    snprintf(why, sizeof why, "%s", job->ctx->error);
    job->ctx->error[0] = 0; /* mended */
    if (job->best_loss < INFINITY) {
        eqi_log(job->ctx, EQI_LOG_WARN, "E2E-QP: %s; kept: the state behind %lld steps (%.4g)", why,
                (long long)job->best_step, job->best_loss);
    } else {
        eqi_log(job->ctx, EQI_LOG_WARN, "E2E-QP: %s; kept: the state behind %lld of %lld steps",
                why, (long long)good_steps(job), (long long)eqat_e2e_qp_steps(job));
        EQI_RETURN_IF(eqi_e2e_qp_back_to_good(job));
    }
    job->fallen = true;
    return EQAT_OK;
}

/* Again when it was cancelled, to the same end. */
static eqat_status keep_fallen(eqat_e2e_qp *job)
{
    double loss = NAN;
    if (job->best_loss < INFINITY) return eqi_e2e_qp_back_to_best(job);
    if (!isnan(job->start_loss)) EQI_RETURN_IF(measure_good(job, &loss));
    return eqi_e2e_qp_keep(job, good_steps(job), loss);
}

static eqat_status train(eqat_e2e_qp *job)
{
    bool sound;
    int64_t steps = eqat_e2e_qp_steps(job);
    eqat_status st = take_steps(job, &sound);
    if (st == EQAT_OK) return eqi_e2e_qp_keep(job, steps, job->validations[steps - 1]);
    if (sound || !eqi_e2e_qp_has_good(job)) return st;
    EQI_RETURN_IF(fall_back(job));
    return keep_fallen(job);
}

eqat_status eqat_e2e_qp_run(eqat_e2e_qp *job)
{
    EQI_ENTER_OF(job);
    if (job->finished) return eqi_e2e_qp_check_step(job, 0);
    EQI_RETURN_IF(eqi_e2e_qp_measure_start(job));
    EQI_RETURN_IF(job->fallen ? keep_fallen(job) : train(job));
    return eqat_e2e_qp_finish(job);
}

eqat_status eqat_e2e_qp_train(eqat_model *model, eqat_data *data,
                              const eqat_e2e_qp_options *options)
{
    EQI_ENTER_OF(model);
    EQI_NEED(model->ctx, data);
    eqat_e2e_qp *job;
    EQI_RETURN_IF(eqat_e2e_qp_create(model, &job, data, options));
    eqat_status st = eqat_e2e_qp_run(job);
    eqat_e2e_qp_free(job);
    return st;
}
