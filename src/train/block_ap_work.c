#include <math.h>

#include "base/entry.h"
#include "model/weights.h"
#include "quant/freeze.h"
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
} pass;

static eqat_status forward(void *user, int64_t first, eqi_tensor *x, eqi_tensor **y)
{
    const pass *p = user;
    eqat_block_ap *job = p->job;
    eqi_block_input in = eqi_model_input(job->model, x);
    eqi_marks marks;
    int64_t n = x->v.shape[0];
    for (int64_t i = 0; i < n; i++) job->numbers[i] = first + i;
    EQI_RETURN_IF(eqi_samples_gather(&job->marks, job->numbers, n, &marks));
    in.positions = marks.positions;
    in.segments = marks.segments;
    eqat_status st = eqi_block_forward(job->tape, p->block, &in, y);
    eqi_marks_release(&marks);
    return st;
}

static eqat_status advance(eqat_block_ap *job, eqi_stream stream, const eqi_block *block)
{
    pass p = {.job = job, .block = block};
    EQI_RETURN_IF(eqi_model_prepare(job->model, job->length));
    eqi_tape_set_recording(job->tape, false);
    return eqi_streams_advance(job->streams, stream, forward, &p);
}

static eqat_status advance_quantized(eqat_block_ap *job, int64_t index)
{
    const eqi_block *b;
    EQI_RETURN_IF(eqi_block_acquire(job->model, index, &b));
    eqat_status st = advance(job, EQI_STREAM_QUANTIZED, b);
    eqi_block_release(job->model, index);
    return st;
}

static eqat_status advance_full(eqat_block_ap *job, int64_t index)
{
    eqi_block original;
    EQI_RETURN_IF(eqi_block_originals(job->model, index, &original));
    eqat_status st = advance(job, EQI_STREAM_FULL, &original);
    eqi_block_drop(job->ctx, &original);
    return st;
}

eqat_status eqi_block_ap_catch_up(eqat_block_ap *job)
{
    int64_t targets = job->block + (job->work.state == EQI_BLOCK_MASTERS), at;
    if (job->block == job->model->config.blocks) return EQAT_OK;
    while ((at = eqi_streams_blocks(job->streams, EQI_STREAM_FULL)) < targets)
        EQI_RETURN_IF(advance_full(job, at));
    while ((at = eqi_streams_blocks(job->streams, EQI_STREAM_QUANTIZED)) < job->block)
        EQI_RETURN_IF(advance_quantized(job, at));
    return EQAT_OK;
}

/* ---- begin ---- */

/* Initial tensors of the linears that the quantizer selects; *bits: the fewest. */
static eqat_status start(eqat_block_ap *job, int *bits)
{
    *bits = 8;
    for (int i = 0; i < job->work.n_linears; i++) {
        eqi_linear *l = &job->work.linears[i];
        EQI_RETURN_IF(eqi_linear_choose(l, job->quantizer, &l->quant));
        if (!l->quant.kind) continue;
        eqat_status st = l->quant.kind->start(&l->quant, l->weight.w, l->beside);
        if (st != EQAT_OK) return eqi_fail_in(job->ctx, st, "%s", l->name);
        if (l->quant.desc.bits < *bits) *bits = l->quant.desc.bits;
    }
    return EQAT_OK;
}

static eqat_status train(eqat_block_ap *job, eqi_tensor *t, int32_t group)
{
    t->requires_grad = true;
    return eqat_optimizer_add(job->optimizer, group, t);
}

static eqat_status train_linear(eqat_block_ap *job, const eqi_linear *l, int32_t quant_group,
                                int32_t weight_group)
{
    if (weight_group >= 0) EQI_RETURN_IF(train(job, l->weight.w, weight_group));
    for (int t = 0; t < EQI_KIND_TENSORS && l->quant.kind; t++)
        if (l->quant.kind->tensors[t].trains) EQI_RETURN_IF(train(job, l->beside[t], quant_group));
    return EQAT_OK;
}

static eqat_status make_optimizer(eqat_block_ap *job, int bits)
{
    const eqat_block_ap_options *o = &job->options;
    const eqi_block *b = &job->work;
    double weight_lr = o->weight_lr != 0 ? o->weight_lr : bits == 2 ? 2e-5 : 1e-5;
    int32_t quant_group, weight_group = -1;
    eqat_optimizer_options options;
    eqat_optimizer_options_init(&options, sizeof options);
    options.total_steps = o->epochs * eqat_block_ap_steps(job);
    options.min_lr_factor = o->min_lr_factor;
    EQI_RETURN_IF(eqat_optimizer_create(job->ctx, &job->optimizer, &options));
    eqat_optimizer_set_grad_callback(job->optimizer, o->gradient, o->gradient_user);
    EQI_RETURN_IF(eqat_optimizer_add_group(job->optimizer, o->quant_lr, &quant_group));
    if (weight_lr > 0)
        EQI_RETURN_IF(eqat_optimizer_add_group(job->optimizer, weight_lr, &weight_group));
    for (int i = 0; i < b->n_linears; i++)
        EQI_RETURN_IF(train_linear(job, &b->linears[i], quant_group, weight_group));
    for (int i = 0; i < b->n_norms && weight_group >= 0; i++)
        EQI_RETURN_IF(train(job, b->norms[i].gain, weight_group));
    return EQAT_OK;
}

static void drop_optimizer(eqat_block_ap *job)
{
    eqat_optimizer_free(job->optimizer);
    job->optimizer = NULL;
}

static void give_up(eqat_block_ap *job)
{
    drop_optimizer(job);
    eqi_block_drop(job->ctx, &job->work);
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

static void forget_steps(eqat_block_ap *job)
{
    int64_t epochs = job->options.epochs;
    job->taken = 0;
    for (int64_t i = 0; i < epochs; i++) job->epochs[job->block * epochs + i].train_loss = NAN;
}

static eqat_status take_masters(eqat_block_ap *job)
{
    EQI_RETURN_IF(eqi_block_masters(job->model, job->block, &job->work));
    job->model->job = EQI_JOB_BLOCK_AP;
    job->model->job_block = job->block;
    return EQAT_OK;
}

static eqat_status make_trainable(eqat_block_ap *job)
{
    int bits;
    EQI_RETURN_IF(start(job, &bits));
    return make_optimizer(job, bits);
}

eqat_status eqi_block_ap_take_block(eqat_block_ap *job)
{
    EQI_RETURN_IF(take_masters(job));
    eqat_status st = make_trainable(job);
    if (st != EQAT_OK) give_up(job);
    return st;
}

eqat_status eqat_block_ap_begin(eqat_block_ap *job)
{
    EQI_ENTER_OF(job);
    eqat_status st;
    EQI_RETURN_IF(expect_idle(job));
    EQI_RETURN_IF(eqi_block_ap_catch_up(job));
    forget_steps(job);
    EQI_RETURN_IF(take_masters(job));
    /* Targets are made once, however often the block is begun. */
    if (eqi_streams_blocks(job->streams, EQI_STREAM_FULL) == job->block)
        EQI_GOTO(failed, advance(job, EQI_STREAM_FULL, &job->work));
    EQI_GOTO(failed, make_trainable(job));
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
    if (job->work.state == EQI_BLOCK_MASTERS) return eqi_block_ap_catch_up(job);
    return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                    "block %lld: found it not in work, expected begin first",
                    (long long)job->block);
}

/* ---- finish ---- */

/* Codes of what is quantized; the rest is rounded where it lies and stays F32: that is how the
 * model tells what may differ from its file. Rounding twice changes nothing, so a failure half-way
 * leaves a block that can still be finished. */
static eqat_status take_codes(eqi_block *b, eqi_weight *packed)
{
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_linear *l = &b->linears[i];
        if (!l->quant.kind)
            EQI_RETURN_IF(eqi_round_kept(l->weight.w, l->stored));
        else
            EQI_RETURN_IF(l->quant.kind->freeze(&l->quant, l->weight.w, l->beside, &packed[i]));
    }
    for (int i = 0; i < b->n_norms; i++)
        EQI_RETURN_IF(eqi_round_kept(b->norms[i].gain, b->norms[i].stored));
    return EQAT_OK;
}

static void end_training(eqi_tensor *t)
{
    eqi_tensor_zero_grad(t);
    t->requires_grad = false;
}

static void settle(eqi_block *b, eqi_weight *packed)
{
    for (int i = 0; i < b->n_linears; i++) {
        eqi_linear *l = &b->linears[i];
        if (!packed[i].codes) {
            end_training(l->weight.w);
            continue;
        }
        packed[i].bias = l->weight.bias;
        l->weight.bias = NULL;
        eqi_weight_release(&l->weight);
        l->weight = packed[i];
        packed[i] = (eqi_weight){0};
    }
    for (int i = 0; i < b->n_norms; i++) end_training(b->norms[i].gain);
    b->state = EQI_BLOCK_FROZEN;
}

static eqat_status freeze(eqat_block_ap *job)
{
    eqi_block *b = &job->work;
    eqi_weight *packed =
        eqi_calloc(job->ctx, (size_t)b->n_linears, sizeof *packed, "a block's packed weights");
    if (!packed) return EQAT_OUT_OF_MEMORY;
    eqat_status st = take_codes(b, packed);
    if (st == EQAT_OK) {
        drop_optimizer(job);
        settle(b, packed);
        eqi_block_put(job->model, b);
        job->model->job = EQI_JOB_NONE;
    }
    for (int i = 0; i < b->n_linears; i++) eqi_weight_release(&packed[i]);
    eqi_free(job->ctx, packed);
    return st;
}

eqat_status eqat_block_ap_finish(eqat_block_ap *job)
{
    EQI_ENTER_OF(job);
    if (job->work.state != EQI_BLOCK_FROZEN) {
        EQI_RETURN_IF(eqi_block_ap_expect_training(job));
        EQI_RETURN_IF(freeze(job));
    }
    /* Behind the last block nobody reads the quantized stream. */
    if (job->block + 1 < job->model->config.blocks)
        EQI_RETURN_IF(advance_quantized(job, job->block));
    eqi_block_drop(job->ctx, &job->work);
    job->block++;
    return EQAT_OK;
}
