#include <math.h>

#include "cpu/adamw.h"
#include "cpu/backend.h"
#include "cpu/group_sums.h"

eqat_status eqi_cpu_fq_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *w,
                              const eqi_view *s, const eqi_view *z, const eqi_view *bias,
                              const eqi_quant_desc *q)
{
    eqi_rows m = eqi_rows_fake_quant(w, s, z, q);
    return eqi_cpu_product(ctx, y, x, &m, bias);
}

eqat_status eqi_cpu_fq_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                    const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                    const eqi_quant_desc *q, bool acc)
{
    eqi_rows m = eqi_rows_fake_quant(w, s, z, q);
    return eqi_cpu_product_bwd_x(ctx, dx, dy, &m, acc);
}

eqat_status eqi_cpu_fq_linear_bwd_w(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                    const eqi_view *dz, const eqi_view *dy, const eqi_view *x,
                                    const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                    const eqi_quant_desc *q, bool acc)
{
    eqi_rows m = eqi_rows_fake_quant(w, s, z, q);
    return eqi_cpu_weight_grad(ctx, dw, ds, dz, dy, x, &m, acc);
}

eqat_status eqi_cpu_fq_linear_update(eqi_ctx *ctx, const eqi_update *u, const eqi_view *ds,
                                     const eqi_view *dz, const eqi_view *dy, const eqi_view *x,
                                     const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                     const eqi_quant_desc *q)
{
    double *squares = u->squares.data;
    if (!isfinite(*squares) || !eqi_cpu_is_finite(ctx, dy) || !eqi_cpu_is_finite(ctx, x)) {
        *squares = (double)NAN;
        if (ds) EQI_RETURN_IF(eqi_cpu_fill(ctx, ds, (double)NAN));
        return dz ? eqi_cpu_fill(ctx, dz, (double)NAN) : EQAT_OK;
    }
    eqi_rows m = eqi_rows_fake_quant(w, s, z, q);
    return eqi_cpu_weight_update(ctx, u, ds, dz, dy, x, w, &m);
}
