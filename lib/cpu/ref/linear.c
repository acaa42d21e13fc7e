#include "cpu/ref/product.h"

eqat_status eqi_ref_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *w,
                           const eqi_view *bias)
{
    return eqi_ref_product(ctx, y, x, &(ref_weight){.w = w}, bias);
}

eqat_status eqi_ref_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                 const eqi_view *w, bool acc)
{
    return eqi_ref_product_bwd_x(ctx, dx, dy, &(ref_weight){.w = w}, acc);
}

eqat_status eqi_ref_linear_bwd_w(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *dy,
                                 const eqi_view *x, bool acc)
{
    int64_t width = ref_width(x);
    double *row = eqi_alloc(ctx, (size_t)width * sizeof *row, "a row of a gradient");
    if (!row) return EQAT_OUT_OF_MEMORY;
    for (int64_t n = 0; n < ref_width(dy); n++) {
        eqi_ref_product_dw(row, dy, x, n);
        for (int64_t k = 0; k < width; k++) ref_add(dw, ref_at(dw, n, k), row[k], acc);
    }
    eqi_free(ctx, row);
    return EQAT_OK;
}

eqat_status eqi_ref_bias_bwd(eqi_ctx *ctx, const eqi_view *dbias, const eqi_view *dy, bool acc)
{
    (void)ctx;
    for (int64_t n = 0; n < ref_width(dy); n++) {
        double sum = 0.0;
        for (int64_t r = 0; r < eqi_view_rows(dy); r++) sum += ref_get(dy, ref_at(dy, r, n));
        ref_add(dbias, ref_elem(dbias, n), sum, acc);
    }
    return EQAT_OK;
}
