#include <math.h>

#include "base/entry.h"
#include "data/data.h"
#include "train/e2e_qp.h"

/* Which state of E2E-QP is kept. */

eqat_status eqi_e2e_qp_make_validation(eqat_e2e_qp *job, int64_t steps)
{
    job->val = eqat_data_val_size(job->data);
    job->start_loss = job->kept_loss = NAN;
    job->best_loss = INFINITY;
    job->kept_step = -1;
    job->validations =
        eqi_alloc(job->ctx, (size_t)steps * sizeof *job->validations, "the losses of validations");
    if (!job->validations) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < steps; i++) job->validations[i] = NAN;
    return EQAT_OK;
}

eqat_status eqi_e2e_qp_make_best(eqat_e2e_qp *job)
{
    for (size_t i = 0; i < job->count; i++) {
        eqi_trained *t = &job->trained[i];
        if (!t->best) EQI_RETURN_IF(eqi_e2e_qp_copy(job, t->value, &t->best));
    }
    return EQAT_OK;
}

eqat_status eqi_e2e_qp_note(eqat_e2e_qp *job, int64_t steps, double loss)
{
    if (!eqi_keep_is_best(job->options.keep, job->start_loss, job->best_loss, loss)) return EQAT_OK;
    EQI_RETURN_IF(eqi_e2e_qp_make_best(job));
    for (size_t i = 0; i < job->count; i++)
        EQI_RETURN_IF(eqi_tensor_copy(job->trained[i].best, job->trained[i].value));
    job->best_loss = loss;
    job->best_step = steps;
    return EQAT_OK;
}

/* ---- back ---- */

static eqat_status settle(eqat_e2e_qp *job, double loss, int64_t steps)
{
    job->kept_loss = loss;
    job->kept_step = steps;
    return EQAT_OK;
}

static eqat_status back_to_start(eqat_e2e_qp *job)
{
    for (size_t i = 0; i < job->count; i++) {
        eqi_trained *t = &job->trained[i];
        eqi_tensor *wide;
        EQI_RETURN_IF(eqi_tensor_cast(t->before, EQI_F32, &wide));
        eqat_status st = eqi_tensor_copy(t->value, wide);
        eqi_tensor_unref(wide);
        EQI_RETURN_IF(st);
    }
    return settle(job, job->start_loss, 0);
}

eqat_status eqi_e2e_qp_back_to_best(eqat_e2e_qp *job)
{
    for (size_t i = 0; i < job->count; i++)
        EQI_RETURN_IF(eqi_tensor_copy(job->trained[i].value, job->trained[i].best));
    return settle(job, job->best_loss, job->best_step);
}

eqat_status eqi_e2e_qp_keep(eqat_e2e_qp *job, int64_t steps, double loss)
{
    switch (eqi_keep_choose(job->options.keep, job->start_loss, job->best_loss, loss)) {
    case EQI_KEPT_LAST: return settle(job, loss, steps);
    case EQI_KEPT_BEST:
        eqi_log(job->ctx, EQI_LOG_INFO,
                "E2E-QP: validation ends at %.4g; kept: the state behind %lld steps (%.4g)", loss,
                (long long)job->best_step, job->best_loss);
        return eqi_e2e_qp_back_to_best(job);
    case EQI_KEPT_START: break;
    }
    eqi_log(job->ctx, EQI_LOG_WARN,
            "E2E-QP: validation ends at %.4g, worse than its start, %.4g; kept: its start", loss,
            job->start_loss);
    return back_to_start(job);
}

eqat_status eqat_e2e_qp_stage_report(const eqat_e2e_qp *job, eqat_stage_report *report)
{
    EQI_ENTER_OF(job);
    EQI_NEED(job->ctx, report);
    if (job->kept_step < 0)
        return eqi_fail(job->ctx, EQAT_NOT_FOUND, "E2E-QP: no report of what is kept");
    eqat_stage_report full = {.start_loss = job->start_loss,
                              .val_loss = job->kept_loss,
                              .epoch =
                                  job->kept_step ? (job->kept_step - 1) / job->steps_per_epoch : -1,
                              .step = job->kept_step};
    return eqi_options_give(job->ctx, "eqat_stage_report", report, &full, sizeof full);
}
