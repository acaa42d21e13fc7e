#include <math.h>

#include "api/options.h"
#include "base/entry.h"
#include "train/block_ap.h"
#include "train/optimizer.h"

/* What becomes of stages, and the room for a best state. */

static int64_t first_outcome(const eqat_block_ap *job, int64_t block)
{
    int64_t stages = 0;
    for (int64_t b = 0; b < block; b++) stages += eqat_block_ap_stages(job, b);
    return stages;
}

int64_t eqi_block_ap_outcomes(const eqat_block_ap *job)
{
    return first_outcome(job, job->model->config.blocks);
}

eqi_outcome *eqi_block_ap_outcome(const eqat_block_ap *job)
{
    return &job->outcomes[first_outcome(job, job->block) + job->stage];
}

void eqi_block_ap_forget_outcomes(eqat_block_ap *job)
{
    int64_t first = first_outcome(job, job->block), n = eqat_block_ap_stages(job, job->block);
    for (int64_t i = first; i < first + n; i++)
        job->outcomes[i] = (eqi_outcome){.start_loss = NAN, .loss = NAN, .epoch = NAN};
}

eqat_status eqat_block_ap_stage_report(const eqat_block_ap *job, int64_t block, int64_t stage,
                                       eqat_stage_report *report)
{
    EQI_ENTER_OF(job);
    EQI_NEED(job->ctx, report);
    bool exists = stage >= 0 && stage < eqat_block_ap_stages(job, block);
    const eqi_outcome *o = exists ? &job->outcomes[first_outcome(job, block) + stage] : NULL;
    if (!o || isnan(o->epoch))
        return eqi_fail(job->ctx, EQAT_NOT_FOUND, "block %lld, stage %lld: no report",
                        (long long)block, (long long)stage);
    eqat_stage_report full = {.start_loss = o->start_loss,
                              .val_loss = o->loss,
                              .epoch = (int64_t)o->epoch,
                              .retries = (int64_t)o->retries,
                              .step = ((int64_t)o->epoch + 1) * eqat_block_ap_steps(job)};
    return eqi_options_give(job->ctx, "eqat_stage_report", report, &full, sizeof full);
}

/* ---- the best state ---- */

void eqi_block_ap_drop_best(eqat_block_ap *job)
{
    for (size_t i = 0; i < job->best.count; i++) eqi_tensor_unref(job->best.tensors[i]);
    eqi_free(job->ctx, job->best.tensors);
    job->best = (eqi_best){.loss = INFINITY};
}

eqat_status eqi_block_ap_make_best(eqat_block_ap *job)
{
    size_t n = eqi_optimizer_count(job->optimizer);
    if (job->best.tensors) return EQAT_OK;
    job->best.tensors = eqi_calloc(job->ctx, n, sizeof(eqi_tensor *), "the best state");
    if (!job->best.tensors) return EQAT_OUT_OF_MEMORY;
    while (job->best.count < n) {
        const eqi_tensor *p = eqi_optimizer_parameter(job->optimizer, job->best.count);
        eqi_tensor **best = &job->best.tensors[job->best.count];
        EQI_RETURN_IF(eqi_tensor_cast(p, EQI_F32, best));
        job->best.count++;
        EQI_RETURN_IF(eqi_tensor_to_host(*best)); /* as large as the masters, asked for rarely */
    }
    return EQAT_OK;
}
