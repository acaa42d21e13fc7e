#include "cpu/linear.h"

#include <string.h>

#include "cpu/backend.h"
#include "cpu/pieces.h"

typedef struct destination {
    const eqi_simd *simd;
    const eqi_view *y;
    const float *bias;
    bool acc;
} destination;

static char *row_of(const destination *d, const eqi_tile *t, int64_t i)
{
    return eqi_at(d->y, (t->m0 + i) * d->y->stride[0] + t->n0);
}

static void store(void *arg, const eqi_tile *t, int worker)
{
    (void)worker;
    const destination *d = arg;
    size_t size = eqi_dtype_size(d->y->dtype);
    for (int64_t i = 0; i < t->m; i++) {
        char *to = row_of(d, t, i);
        if (i + EQI_ROWS_AHEAD < t->m)
            eqi_fetch(row_of(d, t, i + EQI_ROWS_AHEAD), (size_t)t->n * size);
        d->simd->finish(to, d->y->dtype, t->c + i * t->ld, d->bias ? d->bias + t->n0 : NULL, t->n,
                        d->acc);
    }
}

static eqat_status run(eqi_ctx *ctx, eqi_gemm *g, const eqi_view *y, const eqi_view *bias, bool acc)
{
    destination d = {
        .simd = eqi_cpu_of(ctx)->simd, .y = y, .bias = bias ? bias->data : NULL, .acc = acc};
    g->store = store;
    g->arg = &d;
    return eqi_gemm_run(ctx, g);
}

eqat_status eqi_cpu_product(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_rows *w,
                            const eqi_view *bias)
{
    if (x->shape[0] <= EQI_FEW_ROWS) return eqi_cpu_few_rows(ctx, y, x, w, bias);
    eqi_rows a = eqi_rows_of(x);
    eqi_gemm g = {.m = x->shape[0], .n = w->rows, .k = w->cols, .dtype = x->dtype, .a = &a, .b = w};
    return run(ctx, &g, y, bias, false);
}

eqat_status eqi_cpu_product_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                  const eqi_rows *w, bool acc)
{
    eqi_rows a = eqi_rows_of(dy);
    eqi_gemm g = {.m = dy->shape[0],
                  .n = w->cols,
                  .k = w->rows,
                  .dtype = dy->dtype,
                  .a = &a,
                  .b = w,
                  .b_across = true};
    return run(ctx, &g, dx, NULL, acc);
}

eqi_gemm eqi_cpu_product_bwd_w(const eqi_view *dy, const eqi_view *x, eqi_rows *a, eqi_rows *b)
{
    *a = eqi_rows_of(dy);
    *b = eqi_rows_of(x);
    return (eqi_gemm){.m = dy->shape[1],
                      .n = x->shape[1],
                      .k = x->shape[0],
                      .dtype = x->dtype,
                      .a = a,
                      .b = b,
                      .a_across = true,
                      .b_across = true};
}

eqat_status eqi_cpu_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *w,
                           const eqi_view *bias)
{
    eqi_rows m = eqi_rows_of(w);
    return eqi_cpu_product(ctx, y, x, &m, bias);
}

eqat_status eqi_cpu_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                 const eqi_view *w, bool acc)
{
    eqi_rows m = eqi_rows_of(w);
    return eqi_cpu_product_bwd_x(ctx, dx, dy, &m, acc);
}

eqat_status eqi_cpu_linear_bwd_w(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *dy,
                                 const eqi_view *x, bool acc)
{
    eqi_rows a, b;
    eqi_gemm g = eqi_cpu_product_bwd_w(dy, x, &a, &b);
    return run(ctx, &g, dw, NULL, acc);
}

typedef struct column_sums {
    const eqi_simd *simd;
    const eqi_view *dy;
    float *sum;
    bool acc;
} column_sums;

/* A piece owns columns: every sum runs over the rows in order. */
static void add_rows(void *arg, int64_t first, int64_t count)
{
    const column_sums *c = arg;
    if (!c->acc) memset(c->sum + first, 0, (size_t)count * sizeof(float));
    for (int64_t r = 0; r < c->dy->shape[0]; r++)
        c->simd->sum_rows(c->sum + first, eqi_at(c->dy, r * c->dy->stride[0] + first), c->dy->dtype,
                          count, true);
}

eqat_status eqi_cpu_bias_bwd(eqi_ctx *ctx, const eqi_view *dbias, const eqi_view *dy, bool acc)
{
    column_sums c = {.simd = eqi_cpu_of(ctx)->simd, .dy = dy, .sum = dbias->data, .acc = acc};
    eqi_pieces(ctx, dy->shape[1], 256, add_rows, &c);
    return EQAT_OK;
}
