#include <math.h>
#include <string.h>

#include "base/entry.h"
#include "train/block_ap.h"
#include "train/report.h"

/* What can be asked of a job, and what it tells. */

int64_t eqat_block_ap_block(const eqat_block_ap *job)
{
    if (!job) return 0;
    return job->block;
}

int64_t eqat_block_ap_steps(const eqat_block_ap *job)
{
    if (!job) return 0;
    int64_t batch = job->options.batch_size;
    return (job->train + batch - 1) / batch;
}

/* ---- stages ---- */

int64_t eqi_block_ap_stage_of(const eqat_block_ap *job, const eqi_linear *l)
{
    int64_t together = job->options.experts_at_a_time;
    return together ? l->expert / together : 0;
}

int64_t eqat_block_ap_stages(const eqat_block_ap *job, int64_t block)
{
    if (!job || block < 0 || block >= job->model->config.blocks) return 0;
    const eqi_block *b = &job->model->blocks[block];
    int64_t last = 0;
    for (int i = 0; i < b->n_linears; i++) {
        int64_t stage = eqi_block_ap_stage_of(job, &b->linears[i]);
        if (stage > last) last = stage;
    }
    return last + 1;
}

int64_t eqat_block_ap_stage(const eqat_block_ap *job)
{
    return job && job->work.state == EQI_BLOCK_MASTERS ? job->stage : 0;
}

int64_t eqi_block_ap_epochs(const eqat_block_ap *job, int64_t block)
{
    return job->options.epochs * eqat_block_ap_stages(job, block);
}

int64_t eqi_block_ap_first_epoch(const eqat_block_ap *job, int64_t block)
{
    int64_t epochs = 0;
    for (int64_t b = 0; b < block; b++) epochs += eqi_block_ap_epochs(job, b);
    return epochs;
}

/* ---- what trains ---- */

eqat_optimizer *eqat_block_ap_optimizer(eqat_block_ap *job)
{
    if (!job) return NULL;
    return job->optimizer;
}

eqat_tensor *eqat_block_ap_parameter(eqat_block_ap *job, const char *name)
{
    if (!job || !name) return NULL;
    const eqi_block *b = &job->work;
    if (b->state != EQI_BLOCK_MASTERS) return NULL;
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_linear *l = &b->linears[i];
        if (eqi_block_ap_stage_of(job, l) != job->stage) continue;
        size_t n = strlen(l->local);
        if (strncmp(name, l->local, n) != 0 || name[n] != '.') continue;
        if (!strcmp(name + n + 1, "weight")) return l->weight.w;
        for (int t = 0; t < EQI_KIND_TENSORS && l->quant.kind; t++) {
            const char *tensor = l->quant.kind->tensors[t].name;
            if (tensor && !strcmp(name + n + 1, tensor)) return l->beside[t];
        }
    }
    for (int i = 0; i < b->n_norms && job->stage == 0; i++)
        if (!strcmp(name, b->norms[i].local)) return b->norms[i].gain;
    return NULL;
}

/* ---- told ---- */

eqat_status eqi_block_ap_tell(eqat_block_ap *job, const char *work, int64_t block, int64_t batch,
                              int64_t batches)
{
    const eqat_block_ap_options *o = &job->options;
    int64_t steps = eqat_block_ap_steps(job), blocks = job->model->config.blocks;
    int64_t done = job->block + (job->work.state == EQI_BLOCK_FROZEN);
    int64_t taken = job->work.state == EQI_BLOCK_MASTERS ? job->taken : 0;
    eqat_progress p = {
        .phase = "block-ap",
        .block = block,
        .blocks = blocks,
        .epoch = taken ? (taken - 1) / steps : 0,
        .epochs = eqi_block_ap_epochs(job, block),
        .step = eqi_block_ap_first_epoch(job, done) * steps + taken,
        .steps = eqi_block_ap_first_epoch(job, blocks) * steps,
        .loss = NAN,
        .val_loss = NAN,
        .grad_norm = NAN,
        .work = work,
        .batch = batch,
        .batches = batches,
    };
    return eqi_report_progress(job->ctx, o->between, o->between_user, &p);
}

eqat_status eqi_block_ap_between(eqat_block_ap *job, const char *work, int64_t block,
                                 int64_t sample, int64_t samples)
{
    int64_t size = job->pass;
    return eqi_block_ap_tell(job, work, block, sample / size, (samples + size - 1) / size);
}
