#include "cpu/ref/ref.h"

eqat_status eqi_ref_mse(eqi_ctx *ctx, const eqi_view *loss, const eqi_view *x,
                        const eqi_view *target)
{
    (void)ctx;
    int64_t count = eqi_view_count(x);
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double e = ref_get(x, ref_elem(x, i)) - ref_get(target, ref_elem(target, i));
        sum += e * e;
    }
    ref_put(loss, 0, count > 0 ? sum / (double)count : 0.0);
    return EQAT_OK;
}

eqat_status eqi_ref_mse_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dloss,
                            const eqi_view *x, const eqi_view *target, bool acc)
{
    (void)ctx;
    int64_t count = eqi_view_count(x);
    for (int64_t i = 0; i < count; i++) {
        double e = ref_get(x, ref_elem(x, i)) - ref_get(target, ref_elem(target, i));
        ref_add(dx, ref_elem(dx, i), ref_get(dloss, 0) * 2.0 * e / (double)count, acc);
    }
    return EQAT_OK;
}
