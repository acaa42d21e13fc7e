#include <math.h>
#include <stdio.h>

#include "base/entry.h"
#include "train/block_ap.h"
#include "train/optimizer.h"

/* Which state of a stage is kept, and what happens when its numbers stop being finite. */

/* All that trains, from or to the best state. */
static eqat_status copy_best(eqat_block_ap *job, bool back)
{
    for (size_t i = 0; i < job->best.count; i++) {
        eqi_tensor *p = eqi_optimizer_parameter(job->optimizer, i), *best = job->best.tensors[i];
        EQI_RETURN_IF(back ? eqi_tensor_copy(p, best) : eqi_tensor_copy(best, p));
    }
    return EQAT_OK;
}

eqat_status eqi_block_ap_note(eqat_block_ap *job, int64_t epoch, double val_loss)
{
    const eqi_outcome *o = eqi_block_ap_outcome(job);
    if (!eqi_keep_is_best(job->options.keep, o->start_loss, job->best.loss, val_loss))
        return EQAT_OK;
    EQI_RETURN_IF(eqi_block_ap_make_best(job));
    EQI_RETURN_IF(copy_best(job, false));
    job->best.loss = val_loss;
    job->best.epoch = epoch;
    return EQAT_OK;
}

/* ---- back ---- */

static eqat_status settle(eqat_block_ap *job, double loss, int64_t epoch)
{
    eqi_outcome *o = eqi_block_ap_outcome(job);
    o->loss = loss;
    o->epoch = (double)epoch;
    eqi_block_ap_drop_best(job);
    return EQAT_OK;
}

/* To the best state that is known: that of an epoch, or the start. */
static eqat_status go_back(eqat_block_ap *job, const char *why)
{
    const eqi_outcome *o = eqi_block_ap_outcome(job);
    bool has_best = job->best.loss < INFINITY;
    if (has_best) {
        eqi_log(job->ctx, EQI_LOG_INFO, "block %lld: %s; kept: the state after epoch %lld (%.4g)",
                (long long)job->block, why, (long long)job->best.epoch, job->best.loss);
        EQI_RETURN_IF(copy_best(job, true));
        return settle(job, job->best.loss, job->best.epoch);
    }
    eqi_log(job->ctx, EQI_LOG_WARN, "block %lld: %s; kept: its initial rounding",
            (long long)job->block, why);
    EQI_RETURN_IF(eqi_block_ap_restart_stage(job)); /* whose steps stay taken */
    return settle(job, o->start_loss, -1);
}

eqat_status eqi_block_ap_keep(eqat_block_ap *job, int64_t epoch, double val_loss)
{
    const eqi_outcome *o = eqi_block_ap_outcome(job);
    char why[128];
    switch (eqi_keep_choose(job->options.keep, o->start_loss, job->best.loss, val_loss)) {
    case EQI_KEPT_LAST: return settle(job, val_loss, epoch);
    case EQI_KEPT_BEST:
        snprintf(why, sizeof why, "validation ends at %.4g", val_loss);
        return go_back(job, why);
    case EQI_KEPT_START: break;
    }
    snprintf(why, sizeof why, "validation ends at %.4g, worse than its start, %.4g", val_loss,
             o->start_loss);
    return go_back(job, why);
}

eqat_status eqi_block_ap_measure_start(eqat_block_ap *job)
{
    const int64_t first = job->stage * job->options.epochs * eqat_block_ap_steps(job);
    eqi_outcome *o = eqi_block_ap_outcome(job);
    bool matters = job->val && job->options.keep != EQAT_KEEP_LAST;
    if (!matters || job->taken > first || !isnan(o->start_loss)) return EQAT_OK;
    return eqat_block_ap_validate(job, &o->start_loss);
}

eqat_status eqi_block_ap_try_again(eqat_block_ap *job, bool *again)
{
    eqi_outcome *o = eqi_block_ap_outcome(job);
    char why[sizeof job->ctx->error];
    *again = o->retries < EQI_RETRIES;
    snprintf(why, sizeof why, "%s", job->ctx->error);
    job->ctx->error[0] = 0; /* mended */
    if (!*again) return go_back(job, why);
    bool has_best = job->best.loss < INFINITY;
    o->retries++;
    eqi_log(job->ctx, EQI_LOG_WARN,
            "%s; block %lld goes back to its %s, at half the rates (%d of %d)", why,
            (long long)job->block, has_best ? "best state" : "start", (int)o->retries, EQI_RETRIES);
    eqi_block_ap_forget_epochs(job);
    job->taken = job->stage * job->options.epochs * eqat_block_ap_steps(job);
    EQI_RETURN_IF(eqi_block_ap_restart_stage(job));
    return has_best ? copy_best(job, true) : EQAT_OK;
}
