#include <math.h>

#include "base/entry.h"
#include "model/weights.h"
#include "train/block_ap.h"

/* The block in work: a copy of the job's own, from begin to abandon or until finish has moved it
 * into the model. */

eqat_status eqi_block_ap_check_block(const eqat_block_ap *job, int64_t index)
{
    const eqi_block *b = &job->model->blocks[index];
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_linear *l = &b->linears[i];
        eqi_quant quant;
        if (eqi_linear_quantization(l).bits)
            return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                            "%s: found packed codes, expected full precision", l->name);
        EQI_RETURN_IF(eqi_linear_choose(l, job->quantizer, &quant));
    }
    return EQAT_OK;
}

/* ---- streams ---- */

typedef struct pass {
    eqat_block_ap *job;
    const eqi_block *block;
    const char *work; /* as eqat_progress tells it */
    int64_t index;    /* of the block */
} pass;

static eqat_status forward(void *user, int64_t first, eqi_tensor *x, eqi_tensor **y)
{
    const pass *p = user;
    eqat_block_ap *job = p->job;
    eqi_block_input in = eqi_model_input(job->model, x);
    eqi_marks marks;
    int64_t n = x->v.shape[0];
    EQI_RETURN_IF(eqi_block_ap_between(job, p->work, p->index, first, job->train + job->val));
    for (int64_t i = 0; i < n; i++) job->numbers[i] = first + i;
    EQI_RETURN_IF(eqi_samples_gather(&job->marks, job->numbers, n, &marks));
    in.positions = marks.positions;
    in.segments = marks.segments;
    eqat_status st = eqi_block_forward(job->tape, p->block, &in, y);
    eqi_marks_release(&marks);
    return st;
}

static eqat_status advance(eqat_block_ap *job, eqi_stream stream, const eqi_block *block,
                           const char *work, int64_t index)
{
    pass p = {.job = job, .block = block, .work = work, .index = index};
    EQI_RETURN_IF(eqi_model_prepare(job->model, job->length));
    eqi_tape_set_recording(job->tape, false);
    return eqi_streams_advance(job->streams, stream, forward, &p);
}

static eqat_status advance_quantized(eqat_block_ap *job, int64_t index, const char *work)
{
    const eqi_block *b;
    EQI_RETURN_IF(eqi_block_acquire(job->model, index, &b));
    eqat_status st = advance(job, EQI_STREAM_QUANTIZED, b, work, index);
    eqi_block_release(job->model, index);
    return st;
}

static eqat_status advance_full(eqat_block_ap *job, int64_t index)
{
    eqi_block original;
    EQI_RETURN_IF(eqi_block_originals(job->model, index, &original));
    eqat_status st = advance(job, EQI_STREAM_FULL, &original, "resume", index);
    eqi_block_drop(job->ctx, &original);
    return st;
}

/* What a resumed job has finished waits on the host as in one that was not interrupted. */
eqat_status eqi_block_ap_catch_up(eqat_block_ap *job)
{
    int64_t targets = job->block + (job->work.state == EQI_BLOCK_MASTERS), at;
    if (job->block == job->model->config.blocks) return EQAT_OK;
    while ((at = eqi_streams_blocks(job->streams, EQI_STREAM_FULL)) < targets)
        EQI_RETURN_IF(advance_full(job, at));
    while ((at = eqi_streams_blocks(job->streams, EQI_STREAM_QUANTIZED)) < job->block) {
        EQI_RETURN_IF(advance_quantized(job, at, "resume"));
        EQI_RETURN_IF(eqi_block_offload(job->model, at));
    }
    return EQAT_OK;
}

/* ---- begin ---- */

static void give_up(eqat_block_ap *job)
{
    eqi_block_ap_drop_optimizer(job);
    eqi_block_ap_drop_best(job);
    eqi_block_drop(job->ctx, &job->work);
    job->cut = false;
    job->stage = 0;
    job->model->job = EQI_JOB_NONE;
}

static eqat_status expect_idle(const eqat_block_ap *job)
{
    int64_t blocks = job->model->config.blocks;
    if (job->work.state != EQI_BLOCK_DENSE)
        return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                        "block %lld: found it in work, expected finish or abandon first",
                        (long long)job->block);
    if (job->block == blocks)
        return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT, "block %lld: found %lld blocks, all done",
                        (long long)blocks, (long long)blocks);
    EQI_RETURN_IF(eqi_model_check_idle(job->model));
    return eqi_block_ap_check_block(job, job->block);
}

static void forget_epochs(eqat_block_ap *job, int64_t first, int64_t n)
{
    first += eqi_block_ap_first_epoch(job, job->block);
    for (int64_t i = first; i < first + n; i++) job->epochs[i].train_loss = NAN;
}

void eqi_block_ap_forget_epochs(eqat_block_ap *job)
{
    forget_epochs(job, job->stage * job->options.epochs, job->options.epochs);
}

static void forget_steps(eqat_block_ap *job)
{
    job->taken = 0;
    forget_epochs(job, 0, eqi_block_ap_epochs(job, job->block));
    eqi_block_ap_forget_outcomes(job);
}

static eqat_status take_weights(eqat_block_ap *job, int64_t stage, bool told)
{
    job->stage = stage;
    job->model->job = EQI_JOB_BLOCK_AP;
    job->model->job_block = job->block;
    return eqi_block_ap_take_weights(job, told);
}

eqat_status eqi_block_ap_take_block(eqat_block_ap *job, int64_t stage)
{
    /* Of a state that is being read, which a cancel would leave half in hand. */
    eqat_status st = take_weights(job, stage, false);
    if (st == EQAT_OK) st = eqi_block_ap_make_stage(job);
    if (st != EQAT_OK) give_up(job);
    return st;
}

eqat_status eqat_block_ap_begin(eqat_block_ap *job)
{
    EQI_ENTER_OF(job);
    eqat_status st;
    EQI_RETURN_IF(expect_idle(job));
    EQI_RETURN_IF(eqi_block_ap_catch_up(job));
    for (int64_t i = 0; i < job->block; i++) EQI_RETURN_IF(eqi_block_offload(job->model, i));
    forget_steps(job);
    EQI_GOTO(failed, take_weights(job, 0, true));
    /* Targets are made once, however often the block is begun. */
    if (eqi_streams_blocks(job->streams, EQI_STREAM_FULL) == job->block)
        EQI_GOTO(failed, advance(job, EQI_STREAM_FULL, &job->work, "targets", job->block));
    EQI_GOTO(failed, eqi_block_ap_begin_stage(job));
    return EQAT_OK;
failed:
    give_up(job);
    return st;
}

void eqat_block_ap_abandon(eqat_block_ap *job)
{
    if (!job) return;
    if (job->work.state == EQI_BLOCK_MASTERS) give_up(job);
}

eqat_status eqi_block_ap_expect_training(eqat_block_ap *job)
{
    if (job->cut)
        return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                        "block %lld: found its last step cut off half-way, expected abandon first",
                        (long long)job->block);
    if (job->work.state == EQI_BLOCK_MASTERS) return eqi_block_ap_catch_up(job);
    return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                    "block %lld: found it not in work, expected begin first",
                    (long long)job->block);
}

/* ---- finish ---- */

static void put(eqat_block_ap *job)
{
    eqi_block_ap_drop_best(job);
    job->work.state = EQI_BLOCK_FROZEN;
    eqi_block_put(job->model, &job->work);
    job->model->job = EQI_JOB_NONE;
}

eqat_status eqat_block_ap_finish(eqat_block_ap *job)
{
    EQI_ENTER_OF(job);
    if (job->work.state != EQI_BLOCK_FROZEN) {
        EQI_RETURN_IF(eqi_block_ap_expect_training(job));
        EQI_RETURN_IF(eqi_block_ap_freeze_before(job, eqat_block_ap_stages(job, job->block)));
        put(job);
    }
    /* Behind the last block nobody reads the quantized stream. */
    if (job->block + 1 < job->model->config.blocks)
        EQI_RETURN_IF(advance_quantized(job, job->block, "inputs"));
    eqi_block_drop(job->ctx, &job->work);
    job->block++;
    return EQAT_OK;
}
