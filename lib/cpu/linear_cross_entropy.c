#include <math.h>
#include <string.h>

#include "base/half.h"
#include "cpu/backend.h"
#include "cpu/linear.h"
#include "cpu/pieces.h"

/* Logits that exist at once. The weight is packed anew for every chunk of rows. */
#define CHUNK_BYTES ((int64_t)16 << 20)
#define CHUNK_MIN 16
#define CHUNK_MAX 512
/* Rows of which no logits are kept, only their sums over a tile. */
#define CHUNK_LOSS 2048

typedef struct job {
    const eqi_leaf *leaf;
    float *logits;
    double *losses;
    const int32_t *labels;
    int64_t vocab;
    eqi_dtype dtype;
} job;

static void subtract_one(void *row, eqi_dtype dtype, int64_t at, float p)
{
    if (dtype == EQI_F32) ((float *)row)[at] = p - 1.0f;
    else ((uint16_t *)row)[at] = eqi_f32_to_bf16(p - 1.0f);
}

/* Rows of logits to losses, and in place to softmax minus one-hot in x's dtype. */
static void rows_of_logits(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    for (int64_t r = first; r < first + count; r++) {
        float *row = j->logits + r * j->vocab;
        int32_t label = j->labels[r];
        j->losses[r] = 0.0;
        if (label < 0) {
            memset(row, 0, (size_t)j->vocab * sizeof *row);
            continue;
        }
        double lse = j->leaf->log_sum_exp(row, j->vocab);
        float own = row[label];
        j->losses[r] = lse - (double)own;
        j->leaf->softmax(row, j->dtype, row, (float)lse, j->vocab);
        subtract_one(row, j->dtype, label, (float)exp((double)own - lse));
    }
}

static eqi_view rows_view(const eqi_view *v, int64_t first, int64_t count)
{
    eqi_view part = *v;
    part.data = eqi_row(v, first);
    part.shape[0] = count;
    return part;
}

/* ---- without a gradient: every tile of logits shrinks to one number a row while it is in the cache -------------------------- */

typedef struct tile_sums {
    const eqi_leaf *leaf;
    const int32_t *labels;
    int64_t tile, tiles;
    double *lse; /* [R, tiles] ln sum exp */
    float *own;  /* [R] the label's logit */
} tile_sums;

static void shrink(void *arg, const eqi_tile *t, int worker)
{
    (void)worker;
    const tile_sums *s = arg;
    for (int64_t i = 0; i < t->m; i++) {
        int64_t row = t->m0 + i, own = s->labels[row] - t->n0;
        const float *logits = t->c + i * t->ld;
        s->lse[row * s->tiles + t->n0 / s->tile] = s->leaf->log_sum_exp(logits, t->n);
        if (own >= 0 && own < t->n) s->own[row] = logits[own];
    }
}

static double row_loss(const tile_sums *s, int64_t row)
{
    const double *lse = s->lse + row * s->tiles;
    double max = lse[0], sum = 0.0;
    for (int64_t i = 1; i < s->tiles; i++) max = fmax(max, lse[i]);
    if (isinf(max)) return max - (double)s->own[row];
    for (int64_t i = 0; i < s->tiles; i++) sum += exp(lse[i] - max);
    return max + log(sum) - (double)s->own[row];
}

static eqat_status loss_only(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *x, const eqi_view *w, const eqi_view *labels)
{
    eqi_rows a, b = eqi_rows_of(w);
    eqi_gemm g = { .n = w->shape[0], .k = w->shape[1], .dtype = x->dtype, .a = &a, .b = &b, .store = shrink };
    tile_sums s = { .leaf = eqi_cpu_of(ctx)->leaf, .tile = eqi_gemm_tile_n(&g) };
    s.tiles = eqi_ceil_div(g.n, s.tile);
    g.arg = &s;
    int64_t rows = x->shape[0], chunk = eqi_max64(1, eqi_min64(rows, CHUNK_LOSS));
    size_t lse_size = (size_t)(chunk * s.tiles) * sizeof(double);
    char *scratch = eqi_cpu_scratch(ctx, EQI_SLOT_OP, lse_size + (size_t)chunk * sizeof(float));
    if (!scratch) return EQAT_OUT_OF_MEMORY;
    s.lse = (double *)(void *)scratch;
    s.own = (float *)(void *)(scratch + lse_size);
    double loss = 0.0, used = 0.0;
    for (int64_t first = 0; first < rows; first += chunk) {
        eqi_view part = rows_view(x, first, eqi_min64(chunk, rows - first));
        a = eqi_rows_of(&part);
        g.m = part.shape[0];
        s.labels = (const int32_t *)labels->data + first;
        EQI_TRY(eqi_gemm_run(ctx, &g));
        for (int64_t r = 0; r < g.m; r++) {
            if (s.labels[r] < 0) continue;
            loss += row_loss(&s, r);
            used++;
        }
    }
    ((float *)stats->data)[0] = (float)loss;
    ((float *)stats->data)[1] = (float)used;
    return EQAT_OK;
}

/* ---- with one ------------------------------------------------------------------------------------------------------------ */

eqat_status eqi_cpu_linear_cross_entropy(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *dx, const eqi_view *dw, const eqi_view *x,
                                         const eqi_view *w, const eqi_view *labels)
{
    if (!dx && !dw) return loss_only(ctx, stats, x, w, labels);
    int64_t rows = x->shape[0], vocab = w->shape[0];
    int64_t chunk = eqi_min64(eqi_max64(CHUNK_BYTES / (4 * eqi_max64(1, vocab)), CHUNK_MIN), CHUNK_MAX);
    chunk = eqi_max64(1, eqi_min64(chunk, rows));
    size_t logits_size = (size_t)eqi_round_up(chunk * vocab * (int64_t)sizeof(float), EQI_ALIGN);
    char *scratch = eqi_cpu_scratch(ctx, EQI_SLOT_OP, logits_size + (size_t)chunk * sizeof(double));
    if (!scratch) return EQAT_OUT_OF_MEMORY;
    job j = { .leaf = eqi_cpu_of(ctx)->leaf, .logits = (float *)scratch, .losses = (double *)(scratch + logits_size), .vocab = vocab,
              .dtype = x->dtype };
    double loss = 0.0, used = 0.0;
    for (int64_t first = 0; first < rows; first += chunk) {
        int64_t n = eqi_min64(chunk, rows - first);
        eqi_view part = rows_view(x, first, n);
        eqi_view logits = { .data = scratch, .dtype = EQI_F32, .ndim = 2, .shape = { n, vocab }, .stride = { vocab, 1 } };
        EQI_TRY(eqi_cpu_linear(ctx, &logits, &part, w, NULL));
        j.labels = (const int32_t *)labels->data + first;
        eqi_pieces(ctx, n, eqi_piece_rows(vocab), rows_of_logits, &j);
        for (int64_t r = 0; r < n; r++) {
            loss += j.losses[r];
            used += j.labels[r] >= 0;
        }
        /* The gradient took the place of the logits, row by row at the same addresses. */
        eqi_view g = logits;
        g.dtype = x->dtype;
        g.stride[0] = vocab * (int64_t)(sizeof(float) / eqi_dtype_size(x->dtype));
        if (dx) {
            eqi_view to = rows_view(dx, first, n);
            EQI_TRY(eqi_cpu_linear_bwd_x(ctx, &to, &g, w, false));
        }
        if (dw) EQI_TRY(eqi_cpu_linear_bwd_w(ctx, dw, &g, &part, true));
    }
    ((float *)stats->data)[0] = (float)loss;
    ((float *)stats->data)[1] = (float)used;
    return EQAT_OK;
}
