#include "eqat/allocate.h"

#include <math.h>

#include "api/options.h"
#include "api/progress.h"
#include "base/entry.h"
#include "data/data.h"
#include "model/weights.h"
#include "quant/quantizer.h"
#include "train/hidden.h"

static const eqat_field fields[] = {
    EQI_FIELD_F64(eqat_allocate_options, bits_per_weight, 0, 0, 5.25,
                  "bits by sensitivity: 2, 3 or 4 for each linear, so many on average, scales and "
                  "zero points included; 0: as bits says"),
    EQI_FIELD_I64(eqat_allocate_options, sensitivity_windows, 2, 1, 1 << 20,
                  "training samples on which sensitivity is measured"),
    EQI_FIELD_POINTER(eqat_allocate_options, progress, "called for every block passed"),
    EQI_FIELD_POINTER(eqat_allocate_options, progress_user, "its first argument"),
};

const eqi_struct eqi_struct_allocate = EQI_STRUCT(eqat_allocate_options, "allocate", fields);

void eqat_allocate_options_init(eqat_allocate_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_allocate, options, struct_size);
}

/* ---- what there is to choose ---- */

enum { LEAST = 2, MOST = 4, CHOICES = MOST - LEAST + 1, MEASURED = 3 };

/* The selected linears of one input. */
typedef struct set {
    int64_t block;
    int first; /* of its linears */
    double weights, groups;
    double error[CHOICES]; /* squared, of the weights */
    double divergence;     /* at MEASURED bits */
    int choice;            /* bits - LEAST */
    eqi_tensor *stream;    /* what the set's rounding makes of the samples */
} set;

typedef struct work {
    eqi_ctx *ctx;
    eqat_model *model;
    eqat_quantizer *quantizer;
    eqat_data *data;
    eqat_allocate_options options;
    set *sets; /* in order of blocks */
    int count;
    eqi_hidden hidden;
    int64_t *numbers;              /* of the samples */
    eqi_tensor *x, *last, *labels; /* before the block in work; behind all blocks, normalised; 0 */
    int64_t passes, passed;
} work;

static eqat_status choose(const work *w, const eqi_linear *l, eqi_quant *quant)
{
    EQI_RETURN_IF(eqi_linear_choose(l, w->quantizer, quant));
    if (!quant->kind || !eqi_linear_quantization(l).bits) return EQAT_OK;
    return eqi_fail(w->ctx, EQAT_INVALID_ARGUMENT, "%s: already quantized, expected full precision",
                    l->name);
}

static set *set_of(const work *w, int64_t block, const eqi_linear *l)
{
    const eqi_linear *linears = w->model->blocks[block].linears;
    for (int i = w->count - 1; i >= 0 && w->sets[i].block == block; i--)
        if (eqi_linear_shares_input(l, &linears[w->sets[i].first])) return &w->sets[i];
    return NULL;
}

static eqat_status list_block(work *w, int64_t block)
{
    const eqi_block *b = &w->model->blocks[block];
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_linear *l = &b->linears[i];
        eqi_quant quant;
        EQI_RETURN_IF(choose(w, l, &quant));
        if (!quant.kind) continue;
        set *s = set_of(w, block, l);
        if (!s) {
            s = &w->sets[w->count++];
            *s = (set){.block = block, .first = i};
        }
        s->weights += (double)l->out * (double)l->in;
        s->groups += (double)l->out * (double)l->in / (double)quant.desc.group;
    }
    return EQAT_OK;
}

static eqat_status list_sets(work *w)
{
    const eqi_config *c = &w->model->config;
    size_t most = 0;
    for (int64_t b = 0; b < c->blocks; b++) most += (size_t)w->model->blocks[b].n_linears;
    w->sets = eqi_calloc(w->ctx, most, sizeof *w->sets, "sets of linears");
    if (!w->sets) return EQAT_OUT_OF_MEMORY;
    for (int64_t b = 0; b < c->blocks; b++) EQI_RETURN_IF(list_block(w, b));
    if (!w->count)
        return eqi_fail(w->ctx, EQAT_INVALID_ARGUMENT,
                        "allocate: found no linear that the quantizer selects, expected some");
    for (int i = 0; i < w->count; i++) w->passes += c->blocks - w->sets[i].block;
    return EQAT_OK;
}

/* Bits that a set takes: codes, scales of fp16, zero points of as many bits as codes. */
static double size_of(const set *s, int choice)
{
    double bits = LEAST + choice;
    return bits * s->weights + (16 + bits) * s->groups;
}

static eqat_status check_budget(const work *w, double *budget)
{
    double least = 0, weights = 0;
    for (int i = 0; i < w->count; i++) {
        least += size_of(&w->sets[i], 0);
        weights += w->sets[i].weights;
    }
    *budget = w->options.bits_per_weight * weights;
    /* What is told with three digits is enough. */
    if (*budget >= least - 0.0005 * weights) return EQAT_OK;
    return eqi_fail(w->ctx, EQAT_INVALID_ARGUMENT,
                    "bits_per_weight: found %g, expected at least %.3f, which all linears take at "
                    "%d bits with their scales and zero points",
                    w->options.bits_per_weight, ceil(least / weights * 1000) / 1000, LEAST);
}

/* ---- what rounding does ---- */

static eqat_status tell(work *w, int64_t block)
{
    eqat_progress p = {.phase = "allocate",
                       .block = block,
                       .blocks = w->model->config.blocks,
                       .step = w->passed,
                       .steps = w->passes,
                       .loss = NAN,
                       .val_loss = NAN,
                       .grad_norm = NAN,
                       .work = "step"};
    EQI_RETURN_IF(eqi_check_cancel(w->ctx));
    return eqi_report_progress(w->ctx, w->options.progress, w->options.progress_user, &p);
}

/* w^ F32 of a linear rounded to so many bits, and its squared error. */
static eqat_status rounded(const work *w, const eqi_linear *l, int bits, eqi_tensor **out,
                           double *error)
{
    eqi_quant quant;
    eqi_weight packed = {0};
    eqi_tensor *mean = NULL;
    float value;
    eqat_status st;
    *out = NULL;
    EQI_RETURN_IF(choose(w, l, &quant));
    quant.desc.bits = bits;
    quant.init = &eqi_starts[EQAT_INIT_MSE];
    EQI_GOTO(done, quant.kind->round(&quant, l->weight.w, &packed));
    EQI_GOTO(done, eqi_dequantize(&packed, EQI_F32, out));
    EQI_GOTO(done, eqi_op_mse(w->hidden.tape, *out, l->weight.w, &mean));
    EQI_GOTO(done, eqi_tensor_download(mean, &value, sizeof value));
    *error = (double)value * (double)eqi_view_count(&l->weight.w->v);
done:
    eqi_weight_release(&packed);
    eqi_tensor_unref(mean);
    if (st != EQAT_OK) {
        eqi_tensor_unref(*out);
        *out = NULL;
    }
    return st;
}

static bool belongs(const work *w, const set *s, const eqi_linear *l)
{
    eqi_quant quant;
    return eqi_linear_shares_input(l, &w->model->blocks[s->block].linears[s->first]) &&
        choose(w, l, &quant) == EQAT_OK && quant.kind;
}

/* The set's linears of the copy `own`, in F32, to MEASURED bits. */
static eqat_status round_set(const work *w, set *s, eqi_block *own)
{
    for (int i = s->first; i < own->n_linears; i++) {
        eqi_linear *l = &own->linears[i];
        eqi_tensor *kept = NULL;
        if (!belongs(w, s, l)) continue;
        for (int choice = 0; choice < CHOICES; choice++) {
            eqi_tensor *what;
            double error;
            eqat_status st = rounded(w, l, LEAST + choice, &what, &error);
            if (st != EQAT_OK) {
                eqi_tensor_unref(kept);
                return eqi_fail_in(w->ctx, st, "%s", l->name);
            }
            s->error[choice] += error;
            if (LEAST + choice == MEASURED)
                kept = what;
            else
                eqi_tensor_unref(what);
        }
        eqi_tensor_unref(l->weight.w);
        l->weight.w = kept;
    }
    return EQAT_OK;
}

/* `from` through the block, to a stream of its own. */
static eqat_status pass(work *w, const eqi_block *block, eqi_tensor *from, eqi_tensor **to)
{
    eqi_hidden *h = &w->hidden;
    EQI_RETURN_IF(eqi_tensor_copy(h->streams, from));
    EQI_RETURN_IF(eqi_hidden_pass(h, block));
    if (!*to)
        EQI_RETURN_IF(eqi_tensor_create(w->ctx, to, h->streams->v.dtype, 3, h->streams->v.shape));
    return eqi_tensor_copy(*to, h->streams);
}

/* The first block of the sets [first, end): the masters of one set at a time are rounded. */
static eqat_status perturb(work *w, int first, int end)
{
    for (int i = first; i < end; i++) {
        set *s = &w->sets[i];
        eqi_block own = {0};
        EQI_RETURN_IF(tell(w, s->block));
        eqat_status st = eqi_block_masters(w->model, s->block, &own);
        if (st == EQAT_OK) st = round_set(w, s, &own);
        if (st == EQAT_OK) st = pass(w, &own, w->x, &s->stream);
        eqi_block_drop(w->ctx, &own);
        EQI_RETURN_IF(st);
        w->passed++;
    }
    return EQAT_OK;
}

/* A block behind it; `x` is NULL but where the unperturbed stream passes, too. */
static eqat_status pass_all(work *w, int64_t index, int first, int end, bool x)
{
    const eqi_block *block;
    EQI_RETURN_IF(eqi_block_acquire(w->model, index, &block));
    eqat_status st = x ? pass(w, block, w->x, &w->x) : EQAT_OK;
    for (int i = first; i < end && st == EQAT_OK; i++, w->passed++) {
        st = tell(w, index);
        if (st == EQAT_OK) st = pass(w, block, w->sets[i].stream, &w->sets[i].stream);
    }
    eqi_block_release(w->model, index);
    return st;
}

static eqat_status divergence(work *w, set *s)
{
    eqi_distill from = {.x = w->last, .w = w->model->head, .share = 1};
    eqi_tensor *loss;
    float value;
    EQI_RETURN_IF(
        eqi_model_head_loss(w->hidden.tape, w->model, s->stream, w->labels, &from, &loss, NULL));
    eqat_status st = eqi_tensor_download(loss, &value, sizeof value);
    eqi_tensor_unref(loss);
    s->divergence = (double)value;
    eqi_tensor_unref(s->stream);
    s->stream = NULL;
    return st;
}

static eqat_status measure_block(work *w, int64_t block, int *first)
{
    const int64_t blocks = w->model->config.blocks;
    int end = *first;
    while (end < w->count && w->sets[end].block == block) end++;
    EQI_RETURN_IF(perturb(w, *first, end));
    EQI_RETURN_IF(pass_all(w, block, 0, 0, true));
    for (int64_t b = block + 1; b < blocks; b++) EQI_RETURN_IF(pass_all(w, b, *first, end, false));
    for (; *first < end; ++*first) EQI_RETURN_IF(divergence(w, &w->sets[*first]));
    return EQAT_OK;
}

/* The samples, what enters the first block, and what the head takes in full precision. */
static eqat_status prepare(work *w)
{
    const int64_t train = eqat_data_train_size(w->data);
    int64_t n = w->options.sensitivity_windows < train ? w->options.sensitivity_windows : train;
    EQI_RETURN_IF(eqi_hidden_create(&w->hidden, w->model, w->data, false, n, 1));
    eqi_hidden *h = &w->hidden;
    n = h->room;
    w->numbers = eqi_calloc(w->ctx, (size_t)n, sizeof *w->numbers, "sample numbers");
    if (!w->numbers) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < n; i++) w->numbers[i] = i;
    EQI_RETURN_IF(eqi_hidden_run(h, w->numbers, n));
    EQI_RETURN_IF(eqi_model_final_norm(h->tape, w->model, h->streams, &w->last));
    EQI_RETURN_IF(eqi_tensor_zeros(w->ctx, &w->labels, EQI_I32, 2, h->streams->v.shape));
    EQI_RETURN_IF(eqi_hidden_begin(h, w->numbers, n));
    EQI_RETURN_IF(eqi_tensor_create(w->ctx, &w->x, h->streams->v.dtype, 3, h->streams->v.shape));
    return eqi_tensor_copy(w->x, h->streams);
}

static eqat_status measure(work *w)
{
    int first = 0;
    EQI_RETURN_IF(prepare(w));
    for (int64_t b = 0; b < w->model->config.blocks; b++)
        EQI_RETURN_IF(measure_block(w, b, &first));
    return tell(w, w->model->config.blocks - 1);
}

/* ---- the choice ---- */

static double expected(const set *s, int choice)
{
    double measured = s->error[MEASURED - LEAST];
    return measured > 0 ? s->divergence * s->error[choice] / measured : 0;
}

/* Divergence that the next bits take away for each bit they cost. */
static double worth(const set *s, int more)
{
    int next = s->choice + more;
    if (next >= CHOICES) return 0;
    return (expected(s, s->choice) - expected(s, next)) /
        (size_of(s, next) - size_of(s, s->choice));
}

/* The best next step of all that the budget allows, until there is none: two at once where they are
 * worth more than the first alone. */
static void spend(work *w, double budget)
{
    for (int i = 0; i < w->count; i++) budget -= size_of(&w->sets[i], 0);
    for (;;) {
        set *best = NULL;
        int best_more = 0;
        double most = 0;
        for (int i = 0; i < w->count; i++)
            for (int more = 1; more < CHOICES; more++) {
                set *s = &w->sets[i];
                double value = worth(s, more);
                if (!(value > most)) continue;
                if (size_of(s, s->choice + more) - size_of(s, s->choice) > budget) continue;
                best = s;
                best_more = more;
                most = value;
            }
        if (!best) return;
        budget -= size_of(best, best->choice + best_more) - size_of(best, best->choice);
        best->choice += best_more;
    }
}

static eqat_status add_rules_of(const work *w, const set *s)
{
    const eqi_block *b = &w->model->blocks[s->block];
    for (int i = s->first; i < b->n_linears; i++) {
        eqat_quantizer_options o = {.struct_size = sizeof o};
        if (!belongs(w, s, &b->linears[i])) continue;
        eqat_quantizer_lookup(w->quantizer, b->linears[i].name, &o);
        o.bits = LEAST + s->choice;
        EQI_RETURN_IF(eqat_quantizer_add_rule(w->quantizer, b->linears[i].name, &o));
    }
    return EQAT_OK;
}

static eqat_status add_rules(const work *w)
{
    const size_t before = eqi_quantizer_rules(w->quantizer);
    eqat_status st = EQAT_OK;
    for (int i = 0; i < w->count && st == EQAT_OK; i++) st = add_rules_of(w, &w->sets[i]);
    if (st != EQAT_OK) eqi_quantizer_drop_rules(w->quantizer, before);
    return st;
}

static void log_choice(const work *w)
{
    double size = 0, weights = 0, before = 0, after = 0;
    int sets[CHOICES] = {0};
    for (int i = 0; i < w->count; i++) {
        const set *s = &w->sets[i];
        size += size_of(s, s->choice);
        weights += s->weights;
        before += expected(s, 0);
        after += expected(s, s->choice);
        sets[s->choice]++;
    }
    eqi_log(w->ctx, EQI_LOG_INFO,
            "bits by sensitivity: %d inputs at 2 bits, %d at 3, %d at 4, %.3f bits per weight; "
            "expected divergence when rounded %.3g, of 2 bits everywhere %.3g",
            sets[0], sets[1], sets[2], size / weights, after, before);
}

static eqat_status allocate(work *w)
{
    double budget;
    EQI_RETURN_IF(list_sets(w));
    EQI_RETURN_IF(check_budget(w, &budget));
    EQI_RETURN_IF(measure(w));
    spend(w, budget);
    log_choice(w);
    return add_rules(w);
}

static void release(work *w)
{
    for (int i = 0; i < w->count; i++) eqi_tensor_unref(w->sets[i].stream);
    eqi_free(w->ctx, w->sets);
    eqi_hidden_release(&w->hidden);
    eqi_free(w->ctx, w->numbers);
    eqi_tensor_unref(w->x);
    eqi_tensor_unref(w->last);
    eqi_tensor_unref(w->labels);
    eqi_model_unload_ends(w->model); /* Block-AP makes no use of them */
    eqi_storage_trim(w->ctx);
}

eqat_status eqat_quantizer_allocate(eqat_quantizer *quantizer, eqat_model *model, eqat_data *data,
                                    const eqat_allocate_options *options)
{
    if (!quantizer) return EQAT_INVALID_ARGUMENT;
    eqi_ctx *ctx = eqi_quantizer_ctx(quantizer);
    EQI_ENTER(ctx);
    EQI_NEED(ctx, model, data);
    if (model->ctx != ctx)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "allocate: found a model of another context, expected the quantizer's");
    work w = {.ctx = ctx, .model = model, .quantizer = quantizer, .data = data};
    EQI_RETURN_IF(eqi_options_take(w.ctx, &eqi_struct_allocate, &w.options, options));
    EQI_RETURN_IF(eqi_model_check_idle(model));
    EQI_RETURN_IF(eqi_samples_check(model, data, false));
    if (eqi_data_world(data) > 1) /* whose own samples give every rank bits of its own */
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "allocate: found samples of one of %d ranks, expected the same of all",
                        eqi_data_world(data));
    eqat_status st = allocate(&w);
    release(&w);
    return st;
}
