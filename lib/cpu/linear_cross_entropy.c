#include <math.h>
#include <string.h>

#include "base/half.h"
#include "cpu/backend.h"
#include "cpu/linear.h"
#include "cpu/pieces.h"

/* What is kept of the logits at once: so much, or an eighth of the weight, which is packed anew for
 * every chunk of rows. */
#define CHUNK_BYTES ((int64_t)12 << 20)
#define CHUNK_WEIGHT 8
#define CHUNK_UNIT 16 /* a product takes as long for fewer rows */
#define CHUNK_MAX 512
/* Rows of which nothing but sums over tiles is kept. */
#define CHUNK_LOSS 2048
/* Entries of the vocabulary whose part of dx is added at a time: operands of a size that stays in
 * the cache. */
#define PANEL 2304

/* Every tile of logits shrinks, while it is in the cache, to its ln sum exp and, when a gradient is
 * wanted, to the softmax within the tile. The softmax of a row is that times exp(tile's ln sum exp
 * - row's). */
typedef struct chunk {
    const eqi_simd *simd;
    const int32_t *labels;
    int64_t vocab, tile, tiles;
    double *lse;           /* [R, tiles] */
    double *losses;        /* [R] */
    float *own;            /* [R] the label's logit */
    char *grad;            /* [R, V] of the logits, or NULL; before, the softmax of tiles */
    eqi_dtype dtype, soft; /* of grad; of the softmax of tiles */
    double up;             /* ln of what that is multiplied with */
} chunk;

static char *grad_at(const chunk *c, int64_t row, int64_t col)
{
    return c->grad + (size_t)(row * c->vocab + col) * eqi_dtype_size(c->dtype);
}

static void shrink(void *arg, const eqi_tile *t, int worker)
{
    (void)worker;
    const chunk *c = arg;
    for (int64_t i = 0; i < t->m; i++) {
        int64_t row = t->m0 + i, own = c->labels[row] - t->n0;
        const float *logits = t->c + i * t->ld;
        double lse = c->simd->log_sum_exp(logits, t->n);
        c->lse[row * c->tiles + t->n0 / c->tile] = lse;
        if (own >= 0 && own < t->n) c->own[row] = logits[own];
        if (c->grad)
            c->simd->softmax(grad_at(c, row, t->n0), c->soft, logits, (float)(lse - c->up), t->n);
    }
}

static double row_lse(const chunk *c, int64_t row)
{
    const double *lse = c->lse + row * c->tiles;
    double max = lse[0], sum = 0.0;
    for (int64_t i = 1; i < c->tiles; i++) max = fmax(max, lse[i]);
    if (isinf(max)) return max;
    for (int64_t i = 0; i < c->tiles; i++) sum += exp(lse[i] - max);
    return max + log(sum);
}

/* Softmax minus one-hot. */
static void row_grad(const chunk *c, int64_t row, double lse)
{
    for (int64_t i = 0; i < c->tiles; i++) {
        /* The rounded value is what the tile's softmax was taken with. */
        float factor = (float)exp((double)(float)(c->lse[row * c->tiles + i] - c->up) - lse);
        char *p = grad_at(c, row, i * c->tile);
        c->simd->axpby(p, c->dtype, factor, p, c->soft, 0.0f, NULL, EQI_F32,
                       eqi_min64(c->tile, c->vocab - i * c->tile));
    }
    float g = (float)exp((double)c->own[row] - lse) - 1.0f;
    char *own = grad_at(c, row, c->labels[row]);
    if (c->dtype == EQI_F32)
        *(float *)(void *)own = g;
    else
        *(uint16_t *)(void *)own = eqi_f32_to_bf16(g);
}

static void finish_rows(void *arg, int64_t first, int64_t count)
{
    const chunk *c = arg;
    for (int64_t r = first; r < first + count; r++) {
        if (c->labels[r] < 0) {
            c->losses[r] = 0.0;
            if (c->grad) memset(grad_at(c, r, 0), 0, (size_t)c->vocab * eqi_dtype_size(c->dtype));
            continue;
        }
        double lse = row_lse(c, r);
        c->losses[r] = lse - (double)c->own[r];
        if (c->grad) row_grad(c, r, lse);
    }
}

static eqi_view rows_view(const eqi_view *v, int64_t first, int64_t count)
{
    eqi_view part = *v;
    part.data = eqi_row(v, first);
    part.shape[0] = count;
    return part;
}

/* From the gradient of the logits to those of x and w. */
static eqat_status backward(eqi_ctx *ctx, const chunk *c, const eqi_view *dx, float *sum,
                            const eqi_view *dw, const eqi_view *x, const eqi_view *w)
{
    int64_t rows = x->shape[0], width = x->shape[1];
    eqi_view to = {
        .data = sum, .dtype = EQI_F32, .ndim = 2, .shape = {rows, width}, .stride = {width, 1}};
    for (int64_t first = 0; first < c->vocab; first += PANEL) {
        int64_t n = eqi_min64(PANEL, c->vocab - first);
        eqi_view part = rows_view(w, first, n);
        eqi_view g = {.data = grad_at(c, 0, first),
                      .dtype = c->dtype,
                      .ndim = 2,
                      .shape = {rows, n},
                      .stride = {c->vocab, 1}};
        if (dx) EQI_RETURN_IF(eqi_cpu_linear_bwd_x(ctx, &to, &g, &part, first > 0));
        if (!dw) continue;
        part = rows_view(dw, first, n);
        EQI_RETURN_IF(eqi_cpu_linear_bwd_w(ctx, &part, &g, x, true));
    }
    return dx ? eqi_cpu_copy(ctx, dx, &to) : EQAT_OK;
}

/* As even as whole units allow. */
static int64_t chunk_rows(int64_t rows, int64_t vocab, int64_t width, size_t size)
{
    int64_t bytes = eqi_max64(CHUNK_BYTES, vocab * width / CHUNK_WEIGHT * (int64_t)size);
    int64_t most = bytes / eqi_max64(1, vocab * (int64_t)size) / CHUNK_UNIT * CHUNK_UNIT;
    most = eqi_min64(eqi_max64(most, CHUNK_UNIT), CHUNK_MAX);
    int64_t chunks = eqi_max64(1, eqi_ceil_div(rows, most));
    return eqi_max64(1, eqi_min64(rows, eqi_round_up(eqi_ceil_div(rows, chunks), CHUNK_UNIT)));
}

static size_t aligned(int64_t count, size_t size)
{
    return (size_t)eqi_round_up(count * (int64_t)size, EQI_ALIGN);
}

eqat_status eqi_cpu_linear_cross_entropy(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *dx,
                                         const eqi_view *dw, const eqi_view *x, const eqi_view *w,
                                         const eqi_view *labels)
{
    eqi_rows a, b = eqi_rows_of(w);
    eqi_gemm g = {.m = 1,
                  .n = w->shape[0],
                  .k = w->shape[1],
                  .dtype = x->dtype,
                  .a = &a,
                  .b = &b,
                  .store = shrink};
    chunk c = {.simd = eqi_cpu_of(ctx)->simd, .vocab = g.n, .dtype = x->dtype};
    /* In BF16 it would be rounded twice as coarsely; 2^15 keeps small shares out of the subnormal
     * numbers of F16. */
    c.soft = x->dtype == EQI_F32 ? EQI_F32 : EQI_F16;
    c.up = c.soft == EQI_F16 ? 15 * log(2.0) : 0.0;
    const bool grad = dx || dw;
    const size_t size = eqi_dtype_size(x->dtype);
    int64_t rows = x->shape[0],
            most =
                grad ? chunk_rows(rows, g.n, g.k, size) : eqi_max64(1, eqi_min64(CHUNK_LOSS, rows));
    int64_t tiles =
        eqi_ceil_div(g.n, eqi_gemm_tile_n(&g)); /* of a single row: nothing is cut narrower */
    const size_t lse = aligned(most * tiles, sizeof *c.lse),
                 losses = aligned(most, sizeof *c.losses), own = aligned(most, sizeof *c.own),
                 kept = grad ? aligned(most * g.n, size) : 0,
                 sum = dx ? aligned(most * g.k, sizeof(float)) : 0;
    char *scratch = eqi_cpu_scratch(ctx, EQI_SCRATCH_OP, lse + losses + own + kept + sum);
    if (!scratch) return EQAT_OUT_OF_MEMORY;
    c.lse = (double *)(void *)scratch;
    c.losses = (double *)(void *)(scratch + lse);
    c.own = (float *)(void *)(scratch + lse + losses);
    if (grad) c.grad = scratch + lse + losses + own;
    g.arg = &c;
    double loss = 0.0, used = 0.0;
    for (int64_t first = 0; first < rows; first += most) {
        eqi_view part = rows_view(x, first, eqi_min64(most, rows - first)),
                 to = dx ? rows_view(dx, first, part.shape[0]) : part;
        a = eqi_rows_of(&part);
        g.m = part.shape[0];
        c.labels = (const int32_t *)labels->data + first;
        c.tile = eqi_gemm_tile_n(&g);
        c.tiles = eqi_ceil_div(g.n, c.tile);
        EQI_RETURN_IF(eqi_gemm_run(ctx, &g));
        eqi_pieces(ctx, g.m, grad ? eqi_piece_rows(g.n) : g.m, finish_rows, &c);
        for (int64_t r = 0; r < g.m; r++) {
            loss += c.losses[r];
            used += c.labels[r] >= 0;
        }
        if (grad)
            EQI_RETURN_IF(backward(ctx, &c, dx ? &to : NULL,
                                   (float *)(void *)(scratch + lse + losses + own + kept), dw,
                                   &part, w));
    }
    ((float *)stats->data)[0] = (float)loss;
    ((float *)stats->data)[1] = (float)used;
    return EQAT_OK;
}
