#include <string.h>

#include "cpu/backend.h"
#include "cpu/linear.h"
#include "cpu/pieces.h"

/* A row of the weight is made in a cache, as an operand, and multiplied there. */

#define UNIT 64    /* elements that simd->dots takes at once */
#define OUTPUTS 32 /* of a task */

typedef struct few {
    const eqi_simd *simd;
    eqi_elem elem;
    const eqi_rows *w;
    const eqi_view *y;
    const float *bias;
    const char *x; /* [m][padded] operands */
    int64_t m, padded;
    char *workers; /* a row of the weight for each, zeros behind its end */
    size_t row_bytes;
} few;

static void make_row(const few *f, const eqi_rows *from, int64_t row, char *to)
{
    const size_t size = eqi_elem_size(f->elem), used = (size_t)from->cols * size;
    f->simd->rows(to, f->elem, from, row, 0, from->cols);
    memset(to + used, 0, f->row_bytes - used);
}

static void task(void *arg, size_t index, int worker)
{
    const few *f = arg;
    const int64_t first = (int64_t)index * OUTPUTS, n = eqi_min64(OUTPUTS, f->w->rows - first);
    char *row = f->workers + (size_t)worker * f->row_bytes;
    float sums[EQI_FEW_ROWS][OUTPUTS], of_row[EQI_FEW_ROWS];
    for (int64_t r = 0; r < n; r++) {
        make_row(f, f->w, first + r, row);
        f->simd->dots(of_row, f->elem, row, f->x, f->m, f->padded);
        for (int64_t i = 0; i < f->m; i++) sums[i][r] = of_row[i];
    }
    for (int64_t i = 0; i < f->m; i++)
        f->simd->finish(eqi_at(f->y, i * f->y->stride[0] + first), f->y->dtype, sums[i],
                        f->bias ? f->bias + first : NULL, n, false);
}

eqat_status eqi_cpu_few_rows(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_rows *w,
                             const eqi_view *bias)
{
    const eqi_cpu *cpu = eqi_cpu_of(ctx);
    const eqi_rows from = eqi_rows_of(x);
    few f = {.simd = cpu->simd,
             .elem = eqi_gemm_elem(cpu, x->dtype),
             .w = w,
             .y = y,
             .bias = bias ? bias->data : NULL,
             .m = x->shape[0],
             .padded = eqi_round_up(eqi_max64(w->cols, 1), UNIT)};
    f.row_bytes = (size_t)f.padded * eqi_elem_size(f.elem);
    if (!f.m) return EQAT_OK;
    char *operands = eqi_cpu_scratch(ctx, EQI_SCRATCH_A, (size_t)f.m * f.row_bytes);
    f.workers =
        eqi_cpu_scratch(ctx, EQI_SCRATCH_WORKER, (size_t)eqi_pool_size(ctx->pool) * f.row_bytes);
    if (!operands || !f.workers) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < f.m; i++) make_row(&f, &from, i, operands + (size_t)i * f.row_bytes);
    f.x = operands;
    eqi_stop stop;
    eqi_stop_init(&stop, ctx);
    return eqi_parallel_or_stop(ctx, &stop, (size_t)eqi_ceil_div(w->rows, OUTPUTS), task, &f);
}
