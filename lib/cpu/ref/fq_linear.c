#include "cpu/ref/product.h"

eqat_status eqi_ref_fq_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *w,
                              const eqi_view *s, const eqi_view *z, const eqi_view *bias,
                              const eqi_quant_desc *q)
{
    return eqi_ref_product(ctx, y, x, &(ref_weight){.w = w, .s = s, .z = z, .q = q}, bias);
}

eqat_status eqi_ref_fq_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                    const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                    const eqi_quant_desc *q, bool acc)
{
    return eqi_ref_product_bwd_x(ctx, dx, dy, &(ref_weight){.w = w, .s = s, .z = z, .q = q}, acc);
}

eqat_status eqi_ref_fq_linear_bwd_w(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                    const eqi_view *dz, const eqi_view *dy, const eqi_view *x,
                                    const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                    const eqi_quant_desc *q, bool acc)
{
    int64_t width = ref_width(w);
    double *grad = eqi_alloc(ctx, (size_t)width * sizeof *grad, "a row of a gradient");
    if (!grad) return EQAT_OUT_OF_MEMORY;
    for (int64_t n = 0; n < eqi_view_rows(w); n++) {
        eqi_ref_product_dw(grad, dy, x, n);
        eqi_ref_fakequant_bwd_row(grad, dw, ds, dz, w, s, z, q, acc, n);
    }
    eqi_free(ctx, grad);
    return EQAT_OK;
}

static bool all_finite(const eqi_view *v)
{
    for (int64_t i = 0; i < eqi_view_count(v); i++)
        if (!isfinite(ref_get(v, ref_elem(v, i)))) return false;
    return true;
}

eqat_status eqi_ref_fq_linear_update(eqi_ctx *ctx, const eqi_update *u, const eqi_view *ds,
                                     const eqi_view *dz, const eqi_view *dy, const eqi_view *x,
                                     const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                     const eqi_quant_desc *q)
{
    if (!all_finite(&u->squares) || !all_finite(dy) || !all_finite(x)) {
        const eqi_view *const lost[] = {&u->squares, ds, dz};
        for (size_t i = 0; i < EQI_COUNT(lost); i++)
            if (lost[i]) EQI_RETURN_IF(eqi_ref_fill(ctx, lost[i], (double)NAN));
        return EQAT_OK;
    }
    eqi_view dw = *w;
    dw.data = eqi_alloc(ctx, (size_t)eqi_view_count(w) * eqi_dtype_size(w->dtype),
                        "the gradient of a weight");
    if (!dw.data) return EQAT_OUT_OF_MEMORY;
    eqat_status st = eqi_ref_fq_linear_bwd_w(ctx, &dw, ds, dz, dy, x, w, s, z, q, false);
    if (st == EQAT_OK) st = eqi_ref_sum_squares(ctx, &u->squares, &dw);
    if (st == EQAT_OK) st = eqi_ref_adamw(ctx, w, &dw, &u->m, &u->v, NULL, &u->d);
    eqi_free(ctx, dw.data);
    return st;
}
