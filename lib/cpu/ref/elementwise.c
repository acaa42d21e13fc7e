#include "cpu/ref/ref.h"

eqat_status eqi_ref_fill(eqi_ctx *ctx, const eqi_view *y, double value)
{
    (void)ctx;
    for (int64_t i = 0; i < eqi_view_count(y); i++) ref_put(y, ref_elem(y, i), value);
    return EQAT_OK;
}

eqat_status eqi_ref_copy(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x)
{
    (void)ctx;
    for (int64_t i = 0; i < eqi_view_count(y); i++)
        ref_put(y, ref_elem(y, i), ref_get(x, ref_elem(x, i)));
    return EQAT_OK;
}

eqat_status eqi_ref_axpby(eqi_ctx *ctx, const eqi_view *y, double alpha, const eqi_view *a,
                          double beta, const eqi_view *b)
{
    (void)ctx;
    for (int64_t i = 0; i < eqi_view_count(y); i++) {
        double sum = alpha * ref_get(a, ref_elem(a, i));
        if (b) sum += beta * ref_get(b, ref_elem(b, i));
        ref_put(y, ref_elem(y, i), sum);
    }
    return EQAT_OK;
}

eqat_status eqi_ref_mul(eqi_ctx *ctx, const eqi_view *y, const eqi_view *a, const eqi_view *b,
                        bool acc)
{
    (void)ctx;
    for (int64_t i = 0; i < eqi_view_count(y); i++)
        ref_add(y, ref_elem(y, i), ref_get(a, ref_elem(a, i)) * ref_get(b, ref_elem(b, i)), acc);
    return EQAT_OK;
}

eqat_status eqi_ref_scale_by(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                             const eqi_view *factor, bool acc)
{
    (void)ctx;
    for (int64_t i = 0; i < eqi_view_count(y); i++)
        ref_add(y, ref_elem(y, i), ref_get(factor, 0) * ref_get(x, ref_elem(x, i)), acc);
    return EQAT_OK;
}

eqat_status eqi_ref_ratio(eqi_ctx *ctx, const eqi_view *y, const eqi_view *a, const eqi_view *b)
{
    (void)ctx;
    double below = ref_get(b, 0);
    ref_put(y, 0, ref_get(a, 0) / (below < 1.0 ? 1.0 : below));
    return EQAT_OK;
}
