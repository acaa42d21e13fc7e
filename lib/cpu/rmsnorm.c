#include <string.h>

#include "cpu/backend.h"
#include "cpu/pieces.h"

/* Rows whose contributions to dgain are added up by one task. */
#define GAIN_ROWS 128

typedef struct job {
    const eqi_simd *simd;
    const eqi_view *y, *rstd, *x, *dy;
    const float *gain;
    float *parts; /* [tasks, width] */
    float eps, offset;
    bool acc;
} job;

static void forward(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    for (int64_t r = first; r < first + count; r++) {
        float rstd = j->simd->rmsnorm(eqi_row(j->y, r), eqi_row(j->x, r), j->gain, j->x->dtype,
                                      j->x->shape[1], j->eps, j->offset);
        if (j->rstd) ((float *)j->rstd->data)[r] = rstd;
    }
}

eqat_status eqi_cpu_rmsnorm(eqi_ctx *ctx, const eqi_view *y, const eqi_view *rstd,
                            const eqi_view *x, const eqi_view *gain, double eps, double offset)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd,
             .y = y,
             .rstd = rstd,
             .x = x,
             .gain = gain->data,
             .eps = (float)eps,
             .offset = (float)offset};
    eqi_pieces(ctx, x->shape[0], eqi_piece_rows(x->shape[1]), forward, &j);
    return EQAT_OK;
}

static void backward(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    int64_t width = j->x->shape[1];
    float *part = j->parts ? j->parts + first / GAIN_ROWS * width : NULL;
    for (int64_t r = first; r < first + count; r++)
        j->simd->rmsnorm_bwd(j->y ? eqi_row(j->y, r) : NULL, part, eqi_row(j->dy, r),
                             eqi_row(j->x, r), j->gain, ((const float *)j->rstd->data)[r],
                             j->offset, j->x->dtype, width, j->acc, r > first);
}

eqat_status eqi_cpu_rmsnorm_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dgain,
                                const eqi_view *dy, const eqi_view *x, const eqi_view *gain,
                                const eqi_view *rstd, double offset, bool acc_dx, bool acc_dgain)
{
    int64_t rows = x->shape[0], width = x->shape[1], tasks = eqi_ceil_div(rows, GAIN_ROWS);
    job j = {.simd = eqi_cpu_of(ctx)->simd,
             .y = dx,
             .rstd = rstd,
             .x = x,
             .dy = dy,
             .gain = gain->data,
             .offset = (float)offset,
             .acc = acc_dx};
    if (dgain) {
        j.parts = eqi_cpu_scratch(ctx, EQI_SCRATCH_OP,
                                  (size_t)(eqi_max64(1, tasks) * width) * sizeof(float));
        if (!j.parts) return EQAT_OUT_OF_MEMORY;
    }
    eqi_pieces(ctx, rows, GAIN_ROWS, backward, &j);
    if (!dgain) return EQAT_OK;
    if (!acc_dgain) memset(dgain->data, 0, (size_t)width * sizeof(float));
    for (int64_t t = 0; t < tasks; t++)
        j.simd->sum_rows(dgain->data, j.parts + t * width, EQI_F32, width, true);
    return EQAT_OK;
}
