#include <string.h>

#include "cpu/backend.h"
#include "cpu/pieces.h"

#define COLUMNS 256 /* of a piece of scatter_rows */

typedef struct job {
    const eqi_simd *simd;
    const eqi_view *x, *y, *weights;
    const int32_t *row, *slot;
    int64_t rows;
    double *dots;
} job;

static job of(eqi_ctx *ctx, const eqi_view *x, const eqi_view *y, const eqi_view *row,
              const eqi_view *slot, const eqi_view *weights)
{
    return (job){.simd = eqi_cpu_of(ctx)->simd,
                 .x = x,
                 .y = y,
                 .weights = weights,
                 .row = row->data,
                 .slot = slot ? slot->data : NULL,
                 .rows = row->shape[0]};
}

static float weight(const job *j, int64_t i)
{
    return j->weights ? ((const float *)eqi_row(j->weights, j->row[i]))[j->slot[i]] : 1.0f;
}

static void gather(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    int64_t width = j->y->shape[1];
    for (int64_t i = first; i < first + count; i++) {
        const char *from = eqi_row(j->x, j->row[i]);
        if (j->weights)
            j->simd->axpby(eqi_row(j->y, i), j->y->dtype, weight(j, i), from, j->x->dtype, 0.0f,
                           NULL, EQI_F32, width);
        else
            memcpy(eqi_row(j->y, i), from, (size_t)width * eqi_dtype_size(j->y->dtype));
    }
}

eqat_status eqi_cpu_gather_rows(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                const eqi_view *row, const eqi_view *slot, const eqi_view *weights)
{
    job j = of(ctx, x, y, row, slot, weights);
    eqi_pieces(ctx, j.rows, eqi_piece_rows(y->shape[1]), gather, &j);
    return EQAT_OK;
}

/* A piece owns columns, so that rows that come twice are added in order. */
static void scatter(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    eqi_dtype dtype = j->x->dtype;
    for (int64_t i = 0; i < j->rows; i++) {
        char *to = eqi_at(j->x, j->row[i] * j->x->stride[0] + first);
        j->simd->axpby(to, dtype, 1.0f, to, dtype, weight(j, i),
                       eqi_at(j->y, i * j->y->stride[0] + first), j->y->dtype, count);
    }
}

eqat_status eqi_cpu_scatter_rows(eqi_ctx *ctx, const eqi_view *x, const eqi_view *y,
                                 const eqi_view *row, const eqi_view *slot, const eqi_view *weights)
{
    job j = of(ctx, x, y, row, slot, weights);
    eqi_pieces(ctx, y->shape[1], COLUMNS, scatter, &j);
    return EQAT_OK;
}

static void dot(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    for (int64_t i = first; i < first + count; i++)
        j->dots[i] =
            j->simd->dot(eqi_row(j->x, j->row[i]), eqi_row(j->y, i), j->y->dtype, j->y->shape[1]);
}

eqat_status eqi_cpu_dot_rows(eqi_ctx *ctx, const eqi_view *dweights, const eqi_view *x,
                             const eqi_view *y, const eqi_view *row, const eqi_view *slot)
{
    job j = of(ctx, x, y, row, slot, NULL);
    j.dots = eqi_cpu_scratch(ctx, EQI_SCRATCH_OP, (size_t)eqi_max64(1, j.rows) * sizeof *j.dots);
    if (!j.dots) return EQAT_OUT_OF_MEMORY;
    eqi_pieces(ctx, j.rows, eqi_piece_rows(y->shape[1]), dot, &j);
    for (int64_t i = 0; i < j.rows; i++)
        ((float *)eqi_row(dweights, j.row[i]))[j.slot[i]] += (float)j.dots[i];
    return EQAT_OK;
}
