#include <math.h>

#include "api/options.h"
#include "base/entry.h"
#include "train/block_ap.h"
#include "train/report.h"

/* The loop over blocks and epochs; everything here is also in reach of a driver of one's own. */

static eqi_epoch *epoch_of(const eqat_block_ap *job, int64_t block, int64_t epoch)
{
    return &job->epochs[eqi_block_ap_first_epoch(job, block) + epoch];
}

eqat_status eqat_block_ap_epoch(const eqat_block_ap *job, int64_t block, int64_t epoch,
                                eqat_epoch_report *report)
{
    EQI_ENTER_OF(job);
    EQI_NEED(job->ctx, report);
    bool exists =
        epoch >= 0 && epoch < eqi_block_ap_epochs(job, block); /* 0 of a block that is not there */
    const eqi_epoch *e = exists ? epoch_of(job, block, epoch) : NULL;
    if (!e || isnan(e->train_loss))
        return eqi_fail(job->ctx, EQAT_NOT_FOUND, "block %lld, epoch %lld: no report",
                        (long long)block, (long long)epoch);
    eqat_epoch_report full = {.train_loss = e->train_loss, .val_loss = e->val_loss};
    return eqi_options_give(job->ctx, "eqat_epoch_report", report, &full, sizeof full);
}

static eqat_status report(eqat_block_ap *job, int64_t epoch, int64_t step, double loss,
                          double val_loss)
{
    const eqat_block_ap_options *o = &job->options;
    int64_t steps = eqat_block_ap_steps(job), blocks = job->model->config.blocks;
    int64_t before = eqi_block_ap_first_epoch(job, job->block);
    eqat_progress p = {
        .phase = "block-ap",
        .block = job->block,
        .blocks = blocks,
        .epoch = epoch,
        .epochs = eqi_block_ap_epochs(job, job->block),
        .step = (before + epoch) * steps + step + 1,
        .steps = eqi_block_ap_first_epoch(job, blocks) * steps,
        .loss = loss,
        .val_loss = val_loss,
        .lr = o->quant_lr * exp2(-eqi_block_ap_outcome(job)->retries) *
            eqat_optimizer_lr_factor(job->optimizer, epoch % o->epochs * steps + step),
        .grad_norm = NAN,
        .work = "step",
    };
    return eqi_report_progress(job->ctx, o->progress, o->progress_user, &p);
}

/* Ranks learn of a loss that is not finite together, at the end of the epoch. */
static eqat_status run_step(eqat_block_ap *job, int64_t epoch, int64_t step, double *loss)
{
    const eqat_block_ap_options *o = &job->options;
    double *wanted = o->progress ? loss : NULL; /* else nobody waits for the device */
    return o->reduce ? eqi_block_ap_take_step(job, epoch, step, wanted)
                     : eqat_block_ap_step(job, epoch, step, wanted);
}

/* Its remaining steps. */
static eqat_status run_epoch(eqat_block_ap *job, int64_t epoch)
{
    int64_t steps = eqat_block_ap_steps(job), done = job->taken - epoch * steps;
    bool watched = job->options.progress != NULL;
    double loss = NAN;
    for (int64_t step = done < 0 ? 0 : done; step < steps; step++) {
        EQI_RETURN_IF(run_step(job, epoch, step, &loss));
        if (watched && step + 1 < steps) EQI_RETURN_IF(report(job, epoch, step, loss, NAN));
    }
    eqi_epoch now;
    EQI_RETURN_IF(eqi_block_ap_mean_loss(job, epoch, &now.train_loss));
    EQI_RETURN_IF(eqat_block_ap_validate(job, &now.val_loss));
    *epoch_of(job, job->block, epoch) = now;
    EQI_RETURN_IF(eqi_block_ap_note(job, epoch, now.val_loss));
    return watched ? report(job, epoch, steps - 1, loss, now.val_loss) : EQAT_OK;
}

/* Without the epochs that a driver has trained. */
static eqat_status train_stage(eqat_block_ap *job, int64_t stage)
{
    double val_loss = NAN, best = INFINITY;
    int64_t worse = 0, early_stop = job->options.early_stop, epochs = job->options.epochs,
            last = -1;
    for (int64_t epoch = stage * epochs; epoch < (stage + 1) * epochs; epoch++) {
        const eqi_epoch *e = epoch_of(job, job->block, epoch);
        bool reported = !isnan(e->train_loss);
        if (!reported && job->taken >= (epoch + 1) * eqat_block_ap_steps(job)) continue;
        if (!reported) EQI_RETURN_IF(run_epoch(job, epoch));
        val_loss = e->val_loss;
        last = epoch;
        worse = val_loss < best ? 0 : worse + 1;
        if (val_loss < best) best = val_loss;
        if (early_stop && worse >= early_stop) break;
    }
    return last < 0 ? EQAT_OK : eqi_block_ap_keep(job, last, val_loss);
}

/* What is not finite before the first step stays so. */
static eqat_status run_stage(eqat_block_ap *job, int64_t stage)
{
    bool again = job->options.epochs > 0;
    if (!again) return EQAT_OK;
    EQI_RETURN_IF(eqi_block_ap_enter_stage(job, stage * job->options.epochs));
    EQI_RETURN_IF(eqi_block_ap_measure_start(job));
    while (again) {
        eqat_status st = train_stage(job, stage);
        if (st != EQAT_NUMERIC) return st;
        EQI_RETURN_IF(eqi_block_ap_try_again(job, &again));
    }
    return EQAT_OK;
}

static eqat_status run_block(eqat_block_ap *job)
{
    int64_t stages = eqat_block_ap_stages(job, job->block);
    EQI_RETURN_IF(eqi_block_ap_catch_up(job)); /* behind a load that was cancelled */
    for (int64_t stage = job->stage; stage < stages; stage++) EQI_RETURN_IF(run_stage(job, stage));
    return EQAT_OK;
}

eqat_status eqat_block_ap_run(eqat_block_ap *job)
{
    EQI_ENTER_OF(job);
    while (job->block < job->model->config.blocks) {
        if (job->cut) eqat_block_ap_abandon(job);
        if (job->work.state == EQI_BLOCK_DENSE) EQI_RETURN_IF(eqat_block_ap_begin(job));
        eqat_status st = job->work.state == EQI_BLOCK_MASTERS ? run_block(job) : EQAT_OK;
        if (st == EQAT_OK) st = eqat_block_ap_finish(job);
        if (st != EQAT_OK) {
            eqat_block_ap_abandon(job); /* unless it is packed by now */
            return st;
        }
    }
    return EQAT_OK;
}

eqat_status eqat_block_ap_quantize(eqat_model *model, const eqat_quantizer *quantizer,
                                   eqat_data *data, const eqat_block_ap_options *options)
{
    EQI_ENTER_OF(model);
    EQI_NEED(model->ctx, quantizer, data);
    eqat_block_ap *job;
    EQI_RETURN_IF(eqat_block_ap_create(model, &job, quantizer, data, options));
    eqat_status st = eqat_block_ap_run(job);
    eqat_block_ap_free(job);
    return st;
}
