#include <math.h>

#include "api/options.h"
#include "base/rng.h"
#include "eqat/generate.h"
#include "model/generate.h"

static const eqat_field fields[] = {
    EQI_FIELD_F64(eqat_choose_options, temperature, 0, 0, 1e6,
                  "divides logits before a token is drawn; 0: the likeliest token, the first of "
                  "equals"),
    EQI_FIELD_I64(eqat_choose_options, top_k, 0, 0, INT32_MAX,
                  "draws among so many likeliest tokens; 0: among all"),
    EQI_FIELD_F64(eqat_choose_options, top_p, 1, 0, 1,
                  "draws among the fewest likeliest tokens whose probabilities add up to at least "
                  "so much, and at least one"),
};

const eqi_struct eqi_struct_choose = EQI_STRUCT(eqat_choose_options, "choose", fields);

void eqat_choose_options_init(eqat_choose_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_choose, options, struct_size);
}

/* The tokens of one sequence. */
typedef struct tokens {
    const float *logits; /* [count] */
    double *weights;     /* [count], of 1 for the likeliest */
    int32_t *order; /* [count]; a heap of `left`, behind it the likeliest, the first one last */
    int64_t count, left;
} tokens;

/* ---- the likeliest first: a heap ---- */

static bool likelier(const tokens *t, int32_t a, int32_t b)
{
    return t->logits[a] > t->logits[b] || (t->logits[a] == t->logits[b] && a < b);
}

static void sift(const tokens *t, int64_t at)
{
    int32_t moved = t->order[at];
    for (int64_t child; (child = 2 * at + 1) < t->left; at = child) {
        if (child + 1 < t->left && likelier(t, t->order[child + 1], t->order[child])) child++;
        if (!likelier(t, t->order[child], moved)) break;
        t->order[at] = t->order[child];
    }
    t->order[at] = moved;
}

static void make_heap(tokens *t)
{
    t->left = t->count;
    for (int64_t i = 0; i < t->count; i++) t->order[i] = (int32_t)i;
    for (int64_t i = t->count / 2; i-- > 0;) sift(t, i);
}

/* Number i from the likeliest on; 0 <= i < count. */
static int32_t ranked(tokens *t, int64_t i)
{
    while (t->count - t->left <= i) {
        int32_t best = t->order[0];
        t->order[0] = t->order[--t->left];
        t->order[t->left] = best;
        if (t->left) sift(t, 0);
    }
    return t->order[t->count - 1 - i];
}

/* ---- drawing ---- */

static double sum_of_all(const tokens *t)
{
    double sum = 0;
    for (int64_t i = 0; i < t->count; i++) sum += t->weights[i];
    return sum;
}

static double sum_of_likeliest(tokens *t, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += t->weights[ranked(t, i)];
    return sum;
}

/* The token at `wanted` of the sum; the last possible one where rounding leaves none. */
static int32_t among_all(const tokens *t, double wanted)
{
    double sum = 0;
    int32_t last = 0;
    for (int32_t i = 0; i < t->count; i++) {
        if (t->weights[i] > 0) last = i;
        if ((sum += t->weights[i]) > wanted) return i;
    }
    return last;
}

static int32_t among_likeliest(tokens *t, int64_t n, double wanted)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        if ((sum += t->weights[ranked(t, i)]) > wanted) return ranked(t, i);
    return ranked(t, n - 1);
}

/* At `part`, 0 to less than 1, of the sum of the weights of the tokens that remain. */
static int32_t draw(const eqat_choose_options *o, tokens *t, double part)
{
    const bool few = o->top_k && o->top_k < t->count;
    const int64_t n = few ? o->top_k : t->count;
    if (!few && o->top_p >= 1) return among_all(t, part * sum_of_all(t));
    make_heap(t);
    const double enough = o->top_p * (few ? sum_of_likeliest(t, n) : sum_of_all(t));
    int64_t kept = 0;
    double sum = 0;
    do sum += t->weights[ranked(t, kept++)];
    while (kept < n && sum < enough);
    return among_likeliest(t, kept, part * sum);
}

static eqat_status find_likeliest(eqi_ctx *ctx, const tokens *t, int32_t *best)
{
    *best = 0;
    for (int64_t i = 0; i < t->count; i++) {
        if (isnan(t->logits[i]) || t->logits[i] == INFINITY)
            return eqi_fail(ctx, EQAT_NUMERIC,
                            "logits: found %s for token %lld, expected finite numbers",
                            isnan(t->logits[i]) ? "nan" : "infinity", (long long)i);
        if (t->logits[i] > t->logits[*best]) *best = (int32_t)i;
    }
    if (t->logits[*best] > -INFINITY) return EQAT_OK;
    return eqi_fail(ctx, EQAT_NUMERIC, "logits: found -infinity for all tokens, expected a number");
}

static eqat_status choose(const eqat_generation *g, const eqat_choose_options *o, tokens *t,
                          int64_t sequence, int32_t *id)
{
    EQI_RETURN_IF(find_likeliest(g->ctx, t, id));
    if (o->temperature == 0) return EQAT_OK;
    const double most = (double)t->logits[*id];
    for (int64_t i = 0; i < t->count; i++)
        t->weights[i] = exp(((double)t->logits[i] - most) / o->temperature);
    const uint64_t index = (uint64_t)sequence << 32 | (uint64_t)g->length,
                   bits = eqi_rng_bits(g->ctx->seed, EQI_RNG_TOKEN, index);
    *id = draw(o, t, (double)(bits >> 11) * 0x1p-53);
    return EQAT_OK;
}

static eqat_status check_logits(const eqat_generation *g, const eqi_tensor *t)
{
    const int64_t vocab = g->model->config.vocab;
    char shape[EQI_SHAPE_TEXT];
    if (t->ctx != g->ctx)
        return eqi_fail(g->ctx, EQAT_INVALID_ARGUMENT,
                        "logits: found a tensor of another context, expected the generation's");
    if (t->v.dtype == EQI_F32 && t->v.ndim == 3 && t->v.shape[0] == g->batch && t->v.shape[1] > 0 &&
        t->v.shape[2] == vocab)
        return EQAT_OK;
    return eqi_fail(g->ctx, EQAT_INVALID_ARGUMENT,
                    "logits: found %s of dtype %s, expected [%lld, n, %lld] of dtype f32",
                    eqi_view_shape_text(&t->v, shape, sizeof shape), eqi_dtype_name(t->v.dtype),
                    (long long)g->batch, (long long)vocab);
}

eqat_status eqat_generation_choose(const eqat_generation *g, const eqat_tensor *logits,
                                   const eqat_choose_options *options, int32_t *ids)
{
    eqat_choose_options o;
    float *values = NULL;
    eqat_status st;
    EQI_ENTER_OF(g);
    EQI_NEED(g->ctx, logits, ids);
    EQI_RETURN_IF(eqi_options_take(g->ctx, &eqi_struct_choose, &o, options));
    EQI_RETURN_IF(check_logits(g, logits));
    const int64_t n = logits->v.shape[1], vocab = logits->v.shape[2];
    tokens t = {.count = vocab};
    t.weights = eqi_calloc(g->ctx, (size_t)vocab, sizeof *t.weights, "probabilities");
    t.order = t.weights ? eqi_calloc(g->ctx, (size_t)vocab, sizeof *t.order, "tokens") : NULL;
    st = t.order ? eqi_tensor_floats(logits, &values) : EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < g->batch && st == EQAT_OK; i++) {
        t.logits = values + (i * n + n - 1) * vocab;
        st = choose(g, &o, &t, i, &ids[i]);
    }
    eqi_free(g->ctx, values);
    eqi_free(g->ctx, t.order);
    eqi_free(g->ctx, t.weights);
    return st;
}
