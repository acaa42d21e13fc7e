#include "cpu/backend.h"
#include "cpu/group_sums.h"

eqat_status eqi_cpu_packed_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                  const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                  const eqi_view *bias, const eqi_quant_desc *q)
{
    eqi_rows m = eqi_rows_packed(codes, s, z, q, x->shape[1]);
    return eqi_cpu_product(ctx, y, x, &m, bias);
}

eqat_status eqi_cpu_packed_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                        const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                        const eqi_quant_desc *q, bool acc)
{
    eqi_rows m = eqi_rows_packed(codes, s, z, q, dx->shape[1]);
    return eqi_cpu_product_bwd_x(ctx, dx, dy, &m, acc);
}

eqat_status eqi_cpu_packed_linear_bwd_sz(eqi_ctx *ctx, const eqi_view *ds, const eqi_view *dz,
                                         const eqi_view *dy, const eqi_view *x,
                                         const eqi_view *codes, const eqi_view *s,
                                         const eqi_view *z, const eqi_quant_desc *q, bool acc)
{
    eqi_rows m = eqi_rows_packed(codes, s, z, q, x->shape[1]);
    return eqi_cpu_weight_grad(ctx, NULL, ds, dz, dy, x, &m, acc);
}
