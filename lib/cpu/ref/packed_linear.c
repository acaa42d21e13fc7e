#include "cpu/ref/product.h"

eqat_status eqi_ref_packed_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                  const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                  const eqi_view *bias, const eqi_quant_desc *q)
{
    return eqi_ref_product(ctx, y, x, &(ref_weight){.codes = codes, .s = s, .z = z, .q = q}, bias);
}

eqat_status eqi_ref_packed_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                        const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                        const eqi_quant_desc *q, bool acc)
{
    return eqi_ref_product_bwd_x(ctx, dx, dy, &(ref_weight){.codes = codes, .s = s, .z = z, .q = q},
                                 acc);
}

/* w^ = (q - z') s: d/ds = q - z', d/dz = -s, straight through the rounding and clamp of z. */
eqat_status eqi_ref_packed_linear_bwd_sz(eqi_ctx *ctx, const eqi_view *ds, const eqi_view *dz,
                                         const eqi_view *dy, const eqi_view *x,
                                         const eqi_view *codes, const eqi_view *s,
                                         const eqi_view *z, const eqi_quant_desc *q, bool acc)
{
    int64_t width = ref_width(x);
    double *grad = eqi_alloc(ctx, (size_t)width * sizeof *grad, "a row of a gradient");
    if (!grad) return EQAT_OUT_OF_MEMORY;
    for (int64_t n = 0; n < ref_width(dy); n++) {
        eqi_ref_product_dw(grad, dy, x, n);
        for (int64_t first = 0; first < width; first += q->group) {
            double zero = ref_zero(z, q, n, first), sum_s = 0.0, sum = 0.0;
            for (int64_t k = first; k < first + q->group; k++) {
                sum_s += grad[k] * ((double)ref_code(codes, q->bits, n, k) - zero);
                sum += grad[k];
            }
            ref_add(ds, ref_at(ds, n, first / q->group), sum_s, acc);
            if (dz)
                ref_add(dz, ref_at(dz, n, first / q->group), -ref_scale(s, q, n, first) * sum, acc);
        }
    }
    eqi_free(ctx, grad);
    return EQAT_OK;
}
