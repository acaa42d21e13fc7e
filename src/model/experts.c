#include <string.h>

#include "model/attention.h"
#include "model/config.h"

/* R tokens of B * T, H hidden, E experts, k of them for a token. */

/* Who gets which tokens: for every expert, in order, the rows of x and the place among a token's k
 * weights. */
typedef struct plan {
    eqi_tensor *rows, *slots; /* I32 [R * k], expert after expert */
    int64_t *first;           /* [E + 1] where the tokens of an expert begin */
} plan;

static void plan_drop(eqi_ctx *ctx, plan *p)
{
    eqi_drop(&p->rows);
    eqi_drop(&p->slots);
    eqi_free(ctx, p->first);
}

/* Counting sort by expert; within one, in order of tokens. */
static void sort(const int32_t *index, int64_t rows, int64_t k, int64_t experts, int64_t *first,
                 int32_t *row, int32_t *slot)
{
    for (int64_t i = 0; i < rows * k; i++) first[index[i] + 1]++;
    for (int64_t e = 0; e < experts; e++) first[e + 1] += first[e];
    for (int64_t i = 0; i < rows * k; i++) {
        int64_t at = first[index[i]]++;
        row[at] = (int32_t)(i / k);
        slot[at] = (int32_t)(i % k);
    }
    memmove(first + 1, first, (size_t)experts * sizeof *first);
    first[0] = 0;
}

static eqat_status to_device(eqi_ctx *ctx, const int32_t *values, int64_t n, eqi_tensor **out)
{
    EQI_RETURN_IF(eqi_tensor_create(ctx, out, EQI_I32, 1, &n));
    return eqi_tensor_upload(*out, values, (size_t)n * sizeof *values);
}

static eqat_status make_plan(const eqi_tensor *index, int64_t experts, plan *p)
{
    eqi_ctx *ctx = eqi_tensor_ctx(index);
    int64_t rows = index->v.shape[0], k = index->v.shape[1], n = rows * k;
    *p = (plan){.rows = NULL};
    p->first = eqi_calloc(ctx, (size_t)experts + 1, sizeof *p->first, "the tokens of experts");
    int32_t *lists =
        p->first ? eqi_alloc(ctx, (size_t)(3 * n) * sizeof *lists, "the tokens of experts") : NULL;
    if (!lists) return EQAT_OUT_OF_MEMORY;
    eqat_status st;
    EQI_GOTO(done, eqi_tensor_download(index, lists, (size_t)n * sizeof *lists));
    sort(lists, rows, k, experts, p->first, lists + n, lists + 2 * n);
    EQI_GOTO(done, to_device(ctx, lists + n, n, &p->rows));
    st = to_device(ctx, lists + 2 * n, n, &p->slots);
done:
    eqi_free(ctx, lists);
    return st;
}

/* x [n, H] -> [n, H], F32 for the sum. */
static eqat_status run_expert(eqi_tape *tape, const eqi_block *b, int expert, eqi_tensor *x,
                              eqi_tensor **out)
{
    eqi_tensor *gate = NULL, *up = NULL, *gated = NULL, *y = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_linear_forward(tape, eqi_block_linear(b, EQI_GATE, expert), x, &gate));
    EQI_GOTO(done, eqi_linear_forward(tape, eqi_block_linear(b, EQI_UP, expert), x, &up));
    EQI_GOTO(done, eqi_op_gated(tape, gate, up, b->config->activation, &gated));
    EQI_GOTO(done, eqi_linear_forward(tape, eqi_block_linear(b, EQI_DOWN, expert), gated, &y));
    if (y->v.dtype == EQI_BF16)
        st = eqi_op_cast(tape, y, EQI_F32, out);
    else
        *out = eqi_tensor_ref(y);
done:
    eqi_drop(&gate);
    eqi_drop(&up);
    eqi_drop(&gated);
    eqi_drop(&y);
    return st;
}

static eqat_status add_expert(eqi_tape *tape, const eqi_block *b, int expert, const plan *p,
                              eqi_tensor *x, eqi_tensor *weights, eqi_tensor **sum)
{
    eqi_tensor *rows = NULL, *slots = NULL, *mine = NULL, *y = NULL;
    int64_t first = p->first[expert], n = p->first[expert + 1] - first;
    eqat_status st = EQAT_OK;
    if (!n) return EQAT_OK;
    EQI_GOTO(done, eqi_tensor_slice(p->rows, &rows, 0, first, n));
    EQI_GOTO(done, eqi_tensor_slice(p->slots, &slots, 0, first, n));
    EQI_GOTO(done, eqi_op_gather_rows(tape, x, rows, &mine));
    EQI_GOTO(done, run_expert(tape, b, expert, mine, &y));
    st = eqi_op_scatter_rows(tape, sum, y, weights, rows, slots);
done:
    eqi_drop(&rows);
    eqi_drop(&slots);
    eqi_drop(&mine);
    eqi_drop(&y);
    return st;
}

static eqat_status route(eqi_tape *tape, const eqi_block *b, eqi_tensor *x, eqi_tensor **weights,
                         plan *p)
{
    const eqi_config *c = b->config;
    eqi_tensor *logits, *index = NULL;
    EQI_RETURN_IF(eqi_block_apply(tape, b, EQI_ROUTER, x, &logits));
    eqat_status st =
        eqi_op_route(tape, logits, c->experts_per_token, c->normalise_experts, weights, &index);
    if (st == EQAT_OK) st = make_plan(index, c->experts, p);
    eqi_drop(&logits);
    eqi_drop(&index);
    return st;
}

/* The sum is F32, so that its last bits do not depend on how many experts a token has. */
static eqat_status finish(eqi_tape *tape, eqi_tensor *sum, const eqi_tensor *x, eqi_tensor **out)
{
    eqi_tensor *narrow = NULL;
    eqat_status st = EQAT_OK;
    if (x->v.dtype != sum->v.dtype) EQI_RETURN_IF(eqi_op_cast(tape, sum, x->v.dtype, &narrow));
    st = eqi_op_reshape(tape, narrow ? narrow : sum, x->v.ndim, x->v.shape, out);
    eqi_drop(&narrow);
    return st;
}

eqat_status eqi_experts_branch(eqi_tape *tape, const eqi_block *b, eqi_tensor *x, eqi_tensor **out)
{
    const int64_t flat[2] = {eqi_view_rows(&x->v), x->v.shape[x->v.ndim - 1]};
    eqi_dtype wide = x->v.dtype == EQI_BF16 ? EQI_F32 : x->v.dtype;
    eqi_tensor *normed = NULL, *tokens = NULL, *weights = NULL, *sum = NULL;
    plan p = {.rows = NULL};
    eqat_status st;
    EQI_GOTO(done, eqi_block_normalise(tape, b, EQI_NORM_MLP, x, &normed));
    EQI_GOTO(done, eqi_op_reshape(tape, normed, 2, flat, &tokens));
    eqi_drop(&normed);
    EQI_GOTO(done, route(tape, b, tokens, &weights, &p));
    EQI_GOTO(done, eqi_tensor_zeros(tape->ctx, &sum, wide, 2, flat));
    for (int e = 0; e < b->config->experts; e++)
        EQI_GOTO(done, add_expert(tape, b, e, &p, tokens, weights, &sum));
    st = finish(tape, sum, x, out);
done:
    plan_drop(tape->ctx, &p);
    eqi_drop(&normed);
    eqi_drop(&tokens);
    eqi_drop(&weights);
    eqi_drop(&sum);
    return st;
}
