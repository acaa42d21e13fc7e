#include <math.h>

#include "model/weights.h"
#include "quant/feedback.h"
#include "quant/freeze.h"
#include "train/block_ap.h"
#include "train/optimizer.h"
#include "train/rates.h"

/* The stages of the block in work: what trains together, from masters to codes. */

static bool trains(const eqat_block_ap *job, const eqi_linear *l)
{
    return eqi_block_ap_stage_of(job, l) == job->stage;
}

/* Norms are no more than the first stage can take. */
static bool norms_train(const eqat_block_ap *job) { return job->stage == 0; }

static eqat_status tell(eqat_block_ap *job, const char *work, int linear)
{
    EQI_RETURN_IF(eqi_check_cancel(job->ctx));
    return eqi_block_ap_tell(job, work, job->block, linear, job->work.n_linears);
}

/* ---- to work ---- */

eqat_status eqi_block_ap_take_weights(eqat_block_ap *job, bool told)
{
    eqi_block *b = &job->work;
    EQI_RETURN_IF(eqi_block_outline(job->model, job->block, b));
    EQI_RETURN_IF(eqi_block_own_vectors(job->model, b));
    for (int i = 0; i < b->n_linears; i++) {
        int64_t stage = eqi_block_ap_stage_of(job, &b->linears[i]);
        eqi_dtype dtype = stage == job->stage ? EQI_F32 : job->model->compute;
        if (told) EQI_RETURN_IF(tell(job, "load", i));
        if (stage >= job->stage) EQI_RETURN_IF(eqi_block_own_weight(job->model, b, i, dtype));
    }
    return EQAT_OK;
}

static void drop(eqi_tensor **t)
{
    eqi_tensor_unref(*t);
    *t = NULL;
}

static void drop_beside(eqi_linear *l)
{
    for (int t = 0; t < EQI_KIND_TENSORS; t++) {
        eqi_tensor_unref(l->beside[t]);
        l->beside[t] = NULL;
    }
    l->quant = (eqi_quant){.kind = NULL};
}

static eqat_status take_masters(eqat_block_ap *job)
{
    for (int i = 0; i < job->work.n_linears; i++) {
        eqi_linear *l = &job->work.linears[i];
        if (!trains(job, l)) continue;
        if (l->quant.kind && l->quant.init->feedback) drop(&l->weight.w);
        drop_beside(l);
        EQI_RETURN_IF(eqi_block_own_weight(job->model, &job->work, i, EQI_F32));
    }
    return EQAT_OK;
}

/* When the quantizer selects the linear, its initial tensors; without `values` any. */
static eqat_status start_tensors(eqat_block_ap *job, eqi_linear *l, bool values)
{
    eqi_quant quant;
    EQI_RETURN_IF(eqi_linear_choose(l, job->quantizer, &quant));
    if (!quant.kind) return EQAT_OK;
    eqi_quant now = quant;
    if (!values) now.init = &eqi_starts[EQAT_INIT_MINMAX];
    eqat_status st = quant.kind->start(&now, l->weight.w, l->moments, l->beside);
    if (st != EQAT_OK) return eqi_fail_in(job->ctx, st, "%s", l->name);
    EQI_RETURN_IF(eqi_quant_check_scales(l->name, l->beside[0], false));
    l->quant = quant;
    return EQAT_OK;
}

/* The error feedback of one input after another: linears that share it share its factor. */
typedef struct feedback {
    const eqi_tensor *moments; /* that it was made of */
    eqi_feedback of;
} feedback;

static eqat_status start_master(eqi_linear *l, feedback *f)
{
    if (!l->quant.kind || !l->quant.init->feedback) return EQAT_OK;
    if (f->moments != l->moments) {
        f->moments = NULL;
        eqi_feedback_release(eqi_tensor_ctx(l->moments), &f->of);
        EQI_RETURN_IF(eqi_feedback_make(l->moments, &f->of));
        f->moments = l->moments;
    }
    return eqi_feedback_start(&f->of, l->weight.w, l->beside[0], l->beside[1], &l->quant.desc);
}

static eqat_status start_linears(eqat_block_ap *job, bool values, feedback *f)
{
    for (int i = 0; i < job->work.n_linears; i++) {
        eqi_linear *l = &job->work.linears[i];
        if (!trains(job, l)) continue;
        if (values) EQI_RETURN_IF(tell(job, "start", i));
        EQI_RETURN_IF(start_tensors(job, l, values));
        eqat_status st = values ? start_master(l, f) : EQAT_OK;
        if (st != EQAT_OK) return eqi_fail_in(job->ctx, st, "%s", l->name);
    }
    return EQAT_OK;
}

/* May be called again after a failure. */
static eqat_status start(eqat_block_ap *job, bool values)
{
    feedback f = {0};
    EQI_RETURN_IF(take_masters(job));
    if (values) EQI_RETURN_IF(eqi_block_ap_measure(job));
    eqat_status st = start_linears(job, values, &f);
    eqi_feedback_release(job->ctx, &f.of);
    eqi_block_ap_drop_moments(job);
    return st;
}

/* ---- the optimizer ---- */

static eqat_status fewest_bits(const eqat_block_ap *job, int *bits)
{
    *bits = 8;
    for (int i = 0; i < job->work.n_linears; i++) {
        eqi_quant quant;
        EQI_RETURN_IF(eqi_linear_choose(&job->work.linears[i], job->quantizer, &quant));
        if (quant.kind && quant.desc.bits < *bits) *bits = quant.desc.bits;
    }
    return EQAT_OK;
}

/* `size` is what a relative rate counts in; NULL: 1. */
static eqat_status train(eqat_block_ap *job, eqi_tensor *t, double lr, const eqi_tensor *size)
{
    int32_t group;
    double unit = 1;
    if (lr < 0) return EQAT_OK;
    if (job->options.lr_unit == EQAT_LR_RELATIVE && size) EQI_RETURN_IF(eqi_mean_size(size, &unit));
    EQI_RETURN_IF(eqat_optimizer_add_group(job->optimizer, lr * unit, &group));
    t->requires_grad = true;
    return eqat_optimizer_add(job->optimizer, group, t);
}

static eqat_status train_linear(eqat_block_ap *job, const eqi_linear *l, double weight_lr)
{
    eqi_tensor *w = l->weight.w, *scales = l->beside[0];
    EQI_RETURN_IF(train(job, w, weight_lr, scales ? scales : w));
    for (int t = 0; t < EQI_KIND_TENSORS && l->quant.kind; t++)
        if (l->quant.kind->tensors[t].trains)
            EQI_RETURN_IF(train(job, l->beside[t], job->options.quant_lr, t ? NULL : scales));
    return EQAT_OK;
}

static eqat_status add_parameters(eqat_block_ap *job)
{
    const eqat_block_ap_options *o = &job->options;
    const eqi_block *b = &job->work;
    int bits;
    EQI_RETURN_IF(fewest_bits(job, &bits));
    int64_t steps = o->epochs * eqat_block_ap_steps(job);
    double weight_lr = eqi_block_ap_rate(o->weight_lr, o->lr_unit, EQI_WEIGHT, steps, bits);
    /* As a share of itself a gain is a scale, one of all groups of its channel. */
    bool as_scales = o->lr_unit == EQAT_LR_RELATIVE && weight_lr >= 0;
    double gain_lr = as_scales ? o->quant_lr / 4 : weight_lr;
    for (int i = 0; i < b->n_linears; i++)
        if (trains(job, &b->linears[i]))
            EQI_RETURN_IF(train_linear(job, &b->linears[i], weight_lr));
    for (int i = 0; i < b->n_norms && norms_train(job); i++)
        EQI_RETURN_IF(train(job, b->norms[i].gain, gain_lr, b->norms[i].gain));
    return EQAT_OK;
}

static eqat_status make_optimizer(eqat_block_ap *job)
{
    const eqat_block_ap_options *o = &job->options;
    eqat_optimizer_options options;
    eqat_optimizer_options_init(&options, sizeof options);
    options.total_steps = o->epochs * eqat_block_ap_steps(job);
    options.min_lr_factor = o->min_lr_factor;
    EQI_RETURN_IF(eqat_optimizer_create(job->ctx, &job->optimizer, &options));
    eqat_optimizer_set_grad_callback(job->optimizer, o->gradient, o->gradient_user);
    eqat_status st = add_parameters(job);
    if (st != EQAT_OK) eqi_block_ap_drop_optimizer(job);
    return st;
}

void eqi_block_ap_drop_optimizer(eqat_block_ap *job)
{
    eqat_optimizer_free(job->optimizer);
    job->optimizer = NULL;
}

static eqat_status begin_stage(eqat_block_ap *job, bool values)
{
    if (job->optimizer) return EQAT_OK;
    EQI_RETURN_IF(start(job, values));
    EQI_RETURN_IF(make_optimizer(job));
    eqi_optimizer_scale_rates(job->optimizer, exp2(-eqi_block_ap_outcome(job)->retries));
    return EQAT_OK;
}

eqat_status eqi_block_ap_begin_stage(eqat_block_ap *job) { return begin_stage(job, true); }

eqat_status eqi_block_ap_make_stage(eqat_block_ap *job) { return begin_stage(job, false); }

eqat_status eqi_block_ap_restart_stage(eqat_block_ap *job)
{
    eqi_block *b = &job->work;
    eqi_block_ap_drop_optimizer(job);
    for (int i = 0; i < b->n_linears; i++)
        if (trains(job, &b->linears[i])) drop(&b->linears[i].weight.w);
    for (int i = 0; i < b->n_norms && norms_train(job); i++) drop(&b->norms[i].gain);
    EQI_RETURN_IF(eqi_block_own_vectors(job->model, b));
    return eqi_block_ap_begin_stage(job);
}

/* ---- the freeze ---- */

/* Codes of what is quantized; the rest is rounded where it lies and stays F32: that is how the
 * model tells what may differ from its file. Rounding twice changes nothing, so a failure half-way
 * leaves a stage that can still be frozen. */
static eqat_status take_codes(const eqat_block_ap *job, eqi_weight *packed)
{
    const eqi_block *b = &job->work;
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_linear *l = &b->linears[i];
        if (!trains(job, l)) continue;
        if (!l->quant.kind) {
            EQI_RETURN_IF(eqi_round_kept(l->weight.w, l->stored));
            continue;
        }
        EQI_RETURN_IF(eqi_quant_check_scales(l->name, l->beside[0], true));
        EQI_RETURN_IF(l->quant.kind->freeze(&l->quant, l->weight.w, l->beside, &packed[i]));
    }
    for (int i = 0; i < b->n_norms && norms_train(job); i++)
        EQI_RETURN_IF(eqi_round_kept(b->norms[i].gain, b->norms[i].stored));
    return EQAT_OK;
}

static void end_training(eqi_tensor *t)
{
    eqi_tensor_zero_grad(t);
    t->requires_grad = false;
}

static void settle_linear(eqi_linear *l, eqi_weight *packed)
{
    drop_beside(l);
    if (!packed->codes) {
        end_training(l->weight.w);
        return;
    }
    packed->bias = l->weight.bias;
    l->weight.bias = NULL;
    eqi_weight_release(&l->weight);
    l->weight = *packed;
    *packed = (eqi_weight){0};
}

static void settle(eqat_block_ap *job, eqi_weight *packed)
{
    eqi_block *b = &job->work;
    for (int i = 0; i < b->n_linears; i++)
        if (trains(job, &b->linears[i])) settle_linear(&b->linears[i], &packed[i]);
    for (int i = 0; i < b->n_norms && norms_train(job); i++) end_training(b->norms[i].gain);
}

static eqat_status freeze(eqat_block_ap *job)
{
    int n = job->work.n_linears;
    eqi_weight *packed =
        eqi_calloc(job->ctx, (size_t)n, sizeof *packed, "a block's packed weights");
    if (!packed) return EQAT_OUT_OF_MEMORY;
    eqat_status st = take_codes(job, packed);
    if (st == EQAT_OK) {
        eqi_block_ap_drop_optimizer(job);
        settle(job, packed);
        job->stage++;
    }
    for (int i = 0; i < n; i++) eqi_weight_release(&packed[i]);
    eqi_free(job->ctx, packed);
    return st;
}

eqat_status eqi_block_ap_freeze_before(eqat_block_ap *job, int64_t stage)
{
    while (job->stage < stage) {
        if (!job->optimizer) EQI_RETURN_IF(start(job, true));
        EQI_RETURN_IF(freeze(job));
    }
    return EQAT_OK;
}
