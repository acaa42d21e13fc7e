#include "cpu/backend.h"
#include "cpu/gemm.h"
#include "cpu/pieces.h"

typedef struct job {
    const eqi_simd *simd;
    eqi_rows w;
    const eqi_view *codes, *s, *z;
    eqi_quant_desc q;
} job;

/* simd->quantize fetches the row after its own, which should not be another thread's. */
static int64_t piece_rows(const eqi_view *w) { return eqi_max64(16, eqi_piece_rows(w->shape[1])); }

static void pack(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    for (int64_t r = first; r < first + count; r++)
        j->simd->quantize((uint32_t *)eqi_row(j->codes, r), &j->w, r);
}

eqat_status eqi_cpu_quantize(eqi_ctx *ctx, const eqi_view *codes, const eqi_view *w,
                             const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd, .w = eqi_rows_fake_quant(w, s, z, q), .codes = codes};
    j.w.kind = EQI_ROWS_DENSE;
    eqi_pieces(ctx, w->shape[0], piece_rows(w), pack, &j);
    return EQAT_OK;
}

static void minmax(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    for (int64_t r = first; r < first + count; r++)
        j->simd->minmax((float *)eqi_row(j->s, r), (float *)eqi_row(j->z, r),
                        (const float *)j->w.data + r * j->w.ld, j->w.cols / j->q.group, j->q.group,
                        j->q.bits);
}

eqat_status eqi_cpu_init_minmax(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z,
                                const eqi_view *w, const eqi_quant_desc *q)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd, .w = eqi_rows_of(w), .s = s, .z = z, .q = *q};
    eqi_pieces(ctx, w->shape[0], eqi_piece_rows(w->shape[1]), minmax, &j);
    return EQAT_OK;
}

/* The second pass over a row finds it in the cache. */
static void quantize_minmax(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    for (int64_t r = first; r < first + count; r++) {
        j->simd->minmax_stored((float *)eqi_row(j->s, r), (uint8_t *)eqi_row(j->z, r),
                               (const float *)j->w.data + r * j->w.ld, j->w.cols / j->q.group,
                               j->q.group, j->q.bits);
        j->simd->quantize((uint32_t *)eqi_row(j->codes, r), &j->w, r);
    }
}

eqat_status eqi_cpu_quantize_minmax(eqi_ctx *ctx, const eqi_view *codes, const eqi_view *s,
                                    const eqi_view *z, const eqi_view *w, const eqi_quant_desc *q)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd,
             .w = eqi_rows_fake_quant(w, s, z, q),
             .codes = codes,
             .s = s,
             .z = z,
             .q = *q};
    j.w.kind = EQI_ROWS_DENSE;
    eqi_pieces(ctx, w->shape[0], piece_rows(w), quantize_minmax, &j);
    return EQAT_OK;
}

typedef struct mse_job {
    const job *j;
    const float *h; /* or NULL */
    char *workers;
    size_t worker_size;
} mse_job;

/* A task is EQI_MSE_GROUPS groups, counted over the whole weight: one lane each. */
static void mse_task(void *arg, size_t index, int worker)
{
    const mse_job *m = arg;
    const job *j = m->j;
    int64_t per_row = j->w.cols / j->q.group, all = j->w.rows * per_row,
            first = (int64_t)index * EQI_MSE_GROUPS;
    const float *from[EQI_MSE_GROUPS], *counts[EQI_MSE_GROUPS];
    float s[EQI_MSE_GROUPS], z[EQI_MSE_GROUPS];
    int count = (int)eqi_min64(EQI_MSE_GROUPS, all - first);
    for (int i = 0; i < EQI_MSE_GROUPS; i++) {
        int64_t g = first + eqi_min64(i, count - 1);
        from[i] = (const float *)j->w.data + g / per_row * j->w.ld + g % per_row * j->q.group;
        counts[i] = m->h ? m->h + g % per_row * j->q.group : NULL;
    }
    j->simd->mse(s, z, from, m->h ? counts : NULL, j->q.group, j->q.bits, j->q.middle,
                 (double *)(void *)(m->workers + (size_t)worker * m->worker_size));
    for (int i = 0; i < count; i++) {
        ((float *)eqi_row(j->s, (first + i) / per_row))[(first + i) % per_row] = s[i];
        ((float *)eqi_row(j->z, (first + i) / per_row))[(first + i) % per_row] = z[i];
    }
}

eqat_status eqi_cpu_init_mse(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z, const eqi_view *w,
                             const eqi_view *h, const eqi_quant_desc *q)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd, .w = eqi_rows_of(w), .s = s, .z = z, .q = *q};
    mse_job m = {.j = &j,
                 .h = h ? h->data : NULL,
                 .worker_size = 5 * (size_t)(q->group * EQI_MSE_GROUPS) * sizeof(float)};
    m.workers =
        eqi_cpu_scratch(ctx, EQI_SCRATCH_WORKER, m.worker_size * (size_t)eqi_pool_size(ctx->pool));
    if (!m.workers) return EQAT_OUT_OF_MEMORY;
    int64_t groups = w->shape[0] * (w->shape[1] / q->group);
    eqi_parallel(ctx, (size_t)eqi_ceil_div(groups, EQI_MSE_GROUPS), mse_task, &m);
    return EQAT_OK;
}
