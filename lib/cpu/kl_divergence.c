#include <string.h>

#include "cpu/backend.h"
#include "cpu/pieces.h"

typedef struct job {
    const eqi_simd *simd;
    const eqi_view *x, *target, *dx;
    const int32_t *labels; /* or NULL */
    float *lse;            /* [R, 2] */
    double *sums;          /* [R] */
    float factor;
    bool acc;
} job;

static bool counts(const job *j, int64_t r) { return !j->labels || j->labels[r] >= 0; }

static void forward(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    int64_t n = j->x->shape[1];
    for (int64_t r = first; r < first + count; r++) {
        const float *x = (const float *)(void *)eqi_row(j->x, r),
                    *target = (const float *)(void *)eqi_row(j->target, r);
        float *lse = j->lse + 2 * r;
        lse[0] = (float)j->simd->log_sum_exp(target, n);
        lse[1] = (float)j->simd->log_sum_exp(x, n);
        j->sums[r] = counts(j, r) ? j->simd->divergence(x, target, lse, n) : 0.0;
    }
}

eqat_status eqi_cpu_kl_divergence(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *lse,
                                  const eqi_view *x, const eqi_view *target, const eqi_view *labels)
{
    int64_t rows = x->shape[0];
    job j = {.simd = eqi_cpu_of(ctx)->simd,
             .x = x,
             .target = target,
             .labels = labels ? labels->data : NULL,
             .lse = lse->data};
    j.sums = eqi_cpu_scratch(ctx, EQI_SCRATCH_OP, (size_t)eqi_max64(1, rows) * sizeof *j.sums);
    if (!j.sums) return EQAT_OUT_OF_MEMORY;
    eqi_pieces(ctx, rows, eqi_piece_rows(x->shape[1]), forward, &j);
    double sum = 0.0, used = 0.0;
    for (int64_t r = 0; r < rows; r++) {
        sum += j.sums[r];
        used += counts(&j, r);
    }
    ((float *)stats->data)[0] = (float)sum;
    ((float *)stats->data)[1] = (float)used;
    return EQAT_OK;
}

static void backward(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    int64_t n = j->x->shape[1];
    for (int64_t r = first; r < first + count; r++) {
        float *dx = (float *)(void *)eqi_row(j->dx, r);
        if (counts(j, r))
            j->simd->divergence_bwd(dx, (const float *)(void *)eqi_row(j->x, r),
                                    (const float *)(void *)eqi_row(j->target, r), j->lse + 2 * r,
                                    j->factor, n, j->acc);
        else if (!j->acc)
            memset(dx, 0, (size_t)n * sizeof *dx);
    }
}

eqat_status eqi_cpu_kl_divergence_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *factor,
                                      const eqi_view *lse, const eqi_view *x,
                                      const eqi_view *target, const eqi_view *labels, bool acc)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd,
             .x = x,
             .target = target,
             .dx = dx,
             .labels = labels ? labels->data : NULL,
             .lse = lse->data,
             .factor = *(const float *)factor->data,
             .acc = acc};
    eqi_pieces(ctx, x->shape[0], eqi_piece_rows(x->shape[1]), backward, &j);
    return EQAT_OK;
}
