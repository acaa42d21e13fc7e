#include <math.h>

#include "model/weights.h"
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

/* ---- to work ---- */

eqat_status eqi_block_ap_take_weights(eqat_block_ap *job, bool told)
{
    eqi_block *b = &job->work;
    EQI_RETURN_IF(eqi_block_outline(job->model, job->block, b));
    EQI_RETURN_IF(eqi_block_own_vectors(job->model, b));
    for (int i = 0; i < b->n_linears; i++) {
        int64_t stage = eqi_block_ap_stage_of(job, &b->linears[i]);
        eqi_dtype dtype = stage == job->stage ? EQI_F32 : job->model->compute;
        if (told) EQI_RETURN_IF(eqi_block_ap_tell_linear(job, "load", i));
        if (stage >= job->stage) EQI_RETURN_IF(eqi_block_own_weight(job->model, b, i, dtype));
    }
    return EQAT_OK;
}

static void drop(eqi_tensor **t)
{
    eqi_tensor_unref(*t);
    *t = NULL;
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
    options.decay_ratio = o->decay_ratio;
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
    EQI_RETURN_IF(eqi_block_ap_start(job, values));
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
        EQI_RETURN_IF(eqi_quant_check_scales(l->name, l->beside[0], NULL));
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
    eqi_block_ap_drop_tensors(l);
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
        if (!job->optimizer) EQI_RETURN_IF(eqi_block_ap_start(job, true));
        EQI_RETURN_IF(freeze(job));
    }
    return EQAT_OK;
}
