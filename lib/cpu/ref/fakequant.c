#include "cpu/ref/quant.h"

eqat_status eqi_ref_fakequant(eqi_ctx *ctx, const eqi_view *what, const eqi_view *w,
                              const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    (void)ctx;
    for (int64_t n = 0; n < eqi_view_rows(w); n++)
        for (int64_t k = 0; k < ref_width(w); k++) {
            ref_fq f = ref_fake(ref_is_wide(w), ref_get(w, ref_at(w, n, k)),
                                ref_scale_clamped(s, q, n, k), ref_zero(z, q, n, k), ref_top(q));
            ref_put(what, ref_at(what, n, k), f.value);
        }
    return EQAT_OK;
}

void eqi_ref_fakequant_bwd_row(const double *grad, const eqi_view *dw, const eqi_view *ds,
                               const eqi_view *dz, const eqi_view *w, const eqi_view *s,
                               const eqi_view *z, const eqi_quant_desc *q, bool acc, int64_t n)
{
    for (int64_t first = 0; first < ref_width(w); first += q->group) {
        double step = ref_scale_clamped(s, q, n, first), zero = ref_zero(z, q, n, first),
               sum_s = 0.0, sum_z = 0.0;
        for (int64_t k = first; k < first + q->group; k++) {
            ref_fq f =
                ref_fake(ref_is_wide(w), ref_get(w, ref_at(w, n, k)), step, zero, ref_top(q));
            sum_s += grad[k] * (f.inside ? f.r - f.t : f.q - zero);
            if (!f.inside) sum_z -= grad[k] * step;
            if (dw) ref_add(dw, ref_at(dw, n, k), f.inside ? grad[k] : 0.0, acc);
        }
        if (ds) ref_add(ds, ref_at(ds, n, first / q->group), sum_s, acc);
        if (dz) ref_add(dz, ref_at(dz, n, first / q->group), sum_z, acc);
    }
}

eqat_status eqi_ref_fakequant_bwd(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                  const eqi_view *dz, const eqi_view *dwhat, const eqi_view *w,
                                  const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q,
                                  bool acc)
{
    int64_t width = ref_width(w);
    double *grad = eqi_alloc(ctx, (size_t)width * sizeof *grad, "a row of a gradient");
    if (!grad) return EQAT_OUT_OF_MEMORY;
    for (int64_t n = 0; n < eqi_view_rows(w); n++) {
        for (int64_t k = 0; k < width; k++) grad[k] = ref_get(dwhat, ref_at(dwhat, n, k));
        eqi_ref_fakequant_bwd_row(grad, dw, ds, dz, w, s, z, q, acc, n);
    }
    eqi_free(ctx, grad);
    return EQAT_OK;
}
