#include "cpu/ref/ref.h"

eqat_status eqi_ref_sum_squares(eqi_ctx *ctx, const eqi_view *sum, const eqi_view *g)
{
    (void)ctx;
    double total = 0.0;
    for (int64_t i = 0; i < eqi_view_count(g); i++)
        total += ref_get(g, ref_elem(g, i)) * ref_get(g, ref_elem(g, i));
    ref_add(sum, 0, total, true);
    return EQAT_OK;
}

eqat_status eqi_ref_clip_factor(eqi_ctx *ctx, const eqi_view *norm, const eqi_view *factor,
                                const eqi_view *sum, double max_norm, double scale)
{
    (void)ctx;
    double n = ref_as(norm->dtype, scale * sqrt(ref_get(sum, 0))), f = scale;
    if (max_norm > 0.0 && max_norm / (n + 1e-6) < 1.0) f = scale * (max_norm / (n + 1e-6));
    ref_put(norm, 0, n);
    ref_put(factor, 0, isfinite(n) ? f : (double)NAN);
    return EQAT_OK;
}
