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
    struct teacher *of;    /* or NULL */
} chunk;

/* Its logits shrink to the softmax of tiles, p, and what the divergence takes of them. */
typedef struct teacher {
    chunk p;
    double share;
    double *mass, *self,
        *cross; /* [R, tiles] sums of p, of p times its own logits and the others' */
} teacher;

static char *grad_at(const chunk *c, int64_t row, int64_t col)
{
    return c->grad + (size_t)(row * c->vocab + col) * eqi_dtype_size(c->dtype);
}

static int64_t tile_at(const chunk *c, int64_t row, int64_t col)
{
    return row * c->tiles + col / c->tile;
}

/* A tile of the student's logits, with what is kept of the teacher's. */
static void meet(const teacher *of, int64_t row, const eqi_tile *t, const float *logits)
{
    double mass;
    of->cross[tile_at(&of->p, row, t->n0)] =
        of->p.simd->expectation(grad_at(&of->p, row, t->n0), of->p.soft, logits, t->n, &mass);
}

static void shrink(void *arg, const eqi_tile *t, int worker)
{
    (void)worker;
    const chunk *c = arg;
    for (int64_t i = 0; i < t->m; i++) {
        int64_t row = t->m0 + i, own = c->labels[row] - t->n0;
        const float *logits = t->c + i * t->ld;
        double lse = c->simd->log_sum_exp(logits, t->n);
        c->lse[tile_at(c, row, t->n0)] = lse;
        if (c->of) meet(c->of, row, t, logits);
        if (own >= 0 && own < t->n) c->own[row] = logits[own];
        if (c->grad)
            c->simd->softmax(grad_at(c, row, t->n0), c->soft, logits, (float)(lse - c->up), t->n);
    }
}

static void shrink_teacher(void *arg, const eqi_tile *t, int worker)
{
    (void)worker;
    const teacher *of = arg;
    const chunk *p = &of->p;
    for (int64_t i = 0; i < t->m; i++) {
        int64_t row = t->m0 + i, at = tile_at(p, row, t->n0);
        const float *logits = t->c + i * t->ld;
        p->lse[at] = p->simd->log_sum_exp(logits, t->n);
        char *soft = grad_at(p, row, t->n0);
        p->simd->softmax(soft, p->soft, logits, (float)(p->lse[at] - p->up), t->n);
        of->self[at] = p->simd->expectation(soft, p->soft, logits, t->n, &of->mass[at]);
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

/* What the softmax of tile i of a row is multiplied with to be that of the row. The rounded value
 * is what the tile's softmax was taken with. */
static double tile_share(const chunk *c, int64_t row, int64_t i, double lse)
{
    return exp((double)(float)(c->lse[row * c->tiles + i] - c->up) - lse);
}

/* Sum of p (ln p - ln q), with the p that the gradient sees: their sum is 1 but for rounding. */
static double row_divergence(const teacher *of, int64_t row, double lse_p, double lse_q)
{
    double sum = 0.0;
    for (int64_t i = 0; i < of->p.tiles; i++) {
        int64_t at = row * of->p.tiles + i;
        sum += tile_share(&of->p, row, i, lse_p) *
            (of->self[at] - of->cross[at] - of->mass[at] * (lse_p - lse_q));
    }
    return sum;
}

static double element(const char *p, eqi_dtype dtype)
{
    return dtype == EQI_F32 ? (double)*(const float *)(const void *)p
                            : (double)eqi_f16_to_f32(*(const uint16_t *)(const void *)p);
}

/* Softmax minus what it should be: one-hot and, by its share, the teacher's p. */
static void row_grad(const chunk *c, int64_t row, double lse, double lse_p)
{
    const teacher *of = c->of;
    double share = of ? of->share : 0.0;
    int64_t label = c->labels[row];
    double own_p = of ? tile_share(&of->p, row, label / c->tile, lse_p) *
            element(grad_at(&of->p, row, label), of->p.soft)
                      : 0.0;
    for (int64_t i = 0; i < c->tiles; i++) {
        char *q = grad_at(c, row, i * c->tile), *p = of ? grad_at(&of->p, row, i * c->tile) : NULL;
        float beta = of ? (float)(-share * tile_share(&of->p, row, i, lse_p)) : 0.0f;
        c->simd->axpby(q, c->dtype, (float)tile_share(c, row, i, lse), q, c->soft, beta, p, c->soft,
                       eqi_min64(c->tile, c->vocab - i * c->tile));
    }
    float g = (float)(exp((double)c->own[row] - lse) - share * own_p) - (float)(1.0 - share);
    char *own = grad_at(c, row, label);
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
        double lse = row_lse(c, r), lse_p = 0.0;
        c->losses[r] = lse - (double)c->own[r];
        if (c->of) {
            lse_p = row_lse(&c->of->p, r);
            c->losses[r] = (1.0 - c->of->share) * c->losses[r] +
                c->of->share * row_divergence(c->of, r, lse_p, lse);
        }
        if (c->grad) row_grad(c, r, lse, lse_p);
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

/* ---- scratch ---- */

typedef struct arena {
    char *base; /* NULL: count only */
    size_t used;
} arena;

static void *take(arena *from, int64_t count, size_t size)
{
    char *p = from->base ? from->base + from->used : NULL;
    from->used += aligned(count, size);
    return p;
}

/* What a chunk of at most `most` rows keeps. */
static void lay_out(chunk *c, float **sum, arena *from, int64_t most, int64_t width, bool grad)
{
    const size_t size = eqi_dtype_size(c->dtype);
    const int64_t parts = most * c->tiles;
    teacher *of = c->of;
    c->lse = take(from, parts, sizeof *c->lse);
    c->losses = take(from, most, sizeof *c->losses);
    c->own = take(from, most, sizeof *c->own);
    c->grad = take(from, grad ? most * c->vocab : 0, size);
    *sum = take(from, grad ? most * width : 0, sizeof **sum);
    if (!grad) c->grad = NULL;
    if (!of) return;
    of->p.lse = take(from, parts, sizeof *of->p.lse);
    of->mass = take(from, parts, sizeof *of->mass);
    of->self = take(from, parts, sizeof *of->self);
    of->cross = take(from, parts, sizeof *of->cross);
    of->p.grad = take(from, most * c->vocab, size);
}

/* ---- the call ---- */

/* Logits of `rows` rows of x, tile by tile to `store`. */
static eqat_status logits(eqi_ctx *ctx, const eqi_view *x, const eqi_view *w, eqi_tile_fn store,
                          void *arg)
{
    eqi_rows a = eqi_rows_of(x), b = eqi_rows_of(w);
    return eqi_gemm_run(ctx,
                        &(eqi_gemm){.m = x->shape[0],
                                    .n = w->shape[0],
                                    .k = w->shape[1],
                                    .dtype = x->dtype,
                                    .a = &a,
                                    .b = &b,
                                    .store = store,
                                    .arg = arg});
}

static int64_t tile_n(int64_t rows, int64_t vocab)
{
    return eqi_gemm_tile_n(&(eqi_gemm){.m = rows, .n = vocab});
}

static eqat_status run_chunk(eqi_ctx *ctx, chunk *c, const eqi_view *x, const eqi_view *w,
                             const eqi_view *teacher_x, const eqi_view *teacher_w)
{
    int64_t rows = x->shape[0];
    c->tile = tile_n(rows, c->vocab);
    c->tiles = eqi_ceil_div(c->vocab, c->tile);
    if (c->of) {
        c->of->p.tile = c->tile;
        c->of->p.tiles = c->tiles;
        EQI_RETURN_IF(logits(ctx, teacher_x, teacher_w, shrink_teacher, c->of));
    }
    EQI_RETURN_IF(logits(ctx, x, w, shrink, c));
    eqi_pieces(ctx, rows, c->grad ? eqi_piece_rows(c->vocab) : rows, finish_rows, c);
    return EQAT_OK;
}

static chunk chunk_of(eqi_ctx *ctx, const eqi_view *x, const eqi_view *w)
{
    chunk c = {.simd = eqi_cpu_of(ctx)->simd, .vocab = w->shape[0], .dtype = x->dtype};
    /* In BF16 it would be rounded twice as coarsely; 2^15 keeps small shares out of the subnormal
     * numbers of F16. */
    c.soft = x->dtype == EQI_F32 ? EQI_F32 : EQI_F16;
    c.up = c.soft == EQI_F16 ? 15 * log(2.0) : 0.0;
    c.tiles = eqi_ceil_div(c.vocab, tile_n(1, c.vocab)); /* nothing is cut narrower */
    return c;
}

eqat_status eqi_cpu_linear_cross_entropy(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *dx,
                                         const eqi_view *dw, const eqi_view *x, const eqi_view *w,
                                         const eqi_view *labels, const eqi_teacher *t)
{
    chunk c = chunk_of(ctx, x, w);
    teacher of = {.p = c, .share = t ? t->share : 0.0};
    if (t) c.of = &of;
    const bool grad = dx || dw;
    int64_t rows = x->shape[0], width = x->shape[1], most = eqi_min64(CHUNK_LOSS, rows);
    if (grad || t) most = chunk_rows(rows, c.vocab, width, eqi_dtype_size(x->dtype));
    most = eqi_max64(1, most);
    float *sum;
    arena scratch = {.base = NULL};
    lay_out(&c, &sum, &scratch, most, width, grad);
    scratch = (arena){.base = eqi_cpu_scratch(ctx, EQI_SCRATCH_OP, scratch.used)};
    if (!scratch.base) return EQAT_OUT_OF_MEMORY;
    lay_out(&c, &sum, &scratch, most, width, grad);
    double loss = 0.0, used = 0.0;
    for (int64_t first = 0; first < rows; first += most) {
        int64_t n = eqi_min64(most, rows - first);
        eqi_view part = rows_view(x, first, n), to = dx ? rows_view(dx, first, n) : part,
                 seen = t ? rows_view(&t->x, first, n) : part;
        c.labels = (const int32_t *)labels->data + first;
        EQI_RETURN_IF(run_chunk(ctx, &c, &part, w, &seen, t ? &t->w : NULL));
        for (int64_t r = 0; r < n; r++) {
            loss += c.losses[r];
            used += c.labels[r] >= 0;
        }
        if (grad) EQI_RETURN_IF(backward(ctx, &c, dx ? &to : NULL, sum, dw, &part, w));
    }
    ((float *)stats->data)[0] = (float)loss;
    ((float *)stats->data)[1] = (float)used;
    return EQAT_OK;
}
