#include "cpu/ref/product.h"

eqat_status eqi_ref_fq_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *w, const eqi_view *s,
                              const eqi_view *z, const eqi_view *bias, const eqi_quant_desc *q)
{
    return eqi_ref_product(ctx, y, x, &(ref_weight){ .w = w, .s = s, .z = z, .q = q }, bias);
}

eqat_status eqi_ref_fq_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy, const eqi_view *w, const eqi_view *s,
                                    const eqi_view *z, const eqi_quant_desc *q, bool acc)
{
    return eqi_ref_product_bwd_x(ctx, dx, dy, &(ref_weight){ .w = w, .s = s, .z = z, .q = q }, acc);
}

eqat_status eqi_ref_fq_linear_bwd_w(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds, const eqi_view *dz, const eqi_view *dy,
                                    const eqi_view *x, const eqi_view *w, const eqi_view *s, const eqi_view *z,
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
