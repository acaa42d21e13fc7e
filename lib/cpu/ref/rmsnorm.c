#include "cpu/ref/ref.h"

eqat_status eqi_ref_rmsnorm(eqi_ctx *ctx, const eqi_view *y, const eqi_view *rstd,
                            const eqi_view *x, const eqi_view *gain, double eps, double offset)
{
    (void)ctx;
    int64_t width = ref_width(x);
    for (int64_t r = 0; r < eqi_view_rows(x); r++) {
        double sum = 0.0;
        for (int64_t j = 0; j < width; j++)
            sum += ref_get(x, ref_at(x, r, j)) * ref_get(x, ref_at(x, r, j));
        double rs = 1.0 / sqrt(sum / (double)width + eps);
        for (int64_t j = 0; j < width; j++)
            ref_put(y, ref_at(y, r, j),
                    ref_get(x, ref_at(x, r, j)) * rs * (offset + ref_get(gain, ref_elem(gain, j))));
        ref_put(rstd, ref_elem(rstd, r), rs);
    }
    return EQAT_OK;
}

/* With n = x rstd, g = offset + gain: dgain = sum over rows of dy n, dx = rstd (dy g - n mean(dy g
 * n)). */
eqat_status eqi_ref_rmsnorm_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dgain,
                                const eqi_view *dy, const eqi_view *x, const eqi_view *gain,
                                const eqi_view *rstd, double offset, bool acc_dx, bool acc_dgain)
{
    (void)ctx;
    int64_t width = ref_width(x), rows = eqi_view_rows(x);
    for (int64_t j = 0; dgain && j < width; j++) {
        double sum = 0.0;
        for (int64_t r = 0; r < rows; r++)
            sum += ref_get(dy, ref_at(dy, r, j)) * ref_get(x, ref_at(x, r, j)) *
                ref_get(rstd, ref_elem(rstd, r));
        ref_add(dgain, ref_elem(dgain, j), sum, acc_dgain);
    }
    for (int64_t r = 0; dx && r < rows; r++) {
        double rs = ref_get(rstd, ref_elem(rstd, r)), mean = 0.0;
        for (int64_t j = 0; j < width; j++)
            mean += ref_get(dy, ref_at(dy, r, j)) * (offset + ref_get(gain, ref_elem(gain, j))) *
                ref_get(x, ref_at(x, r, j)) * rs;
        mean /= (double)width;
        for (int64_t j = 0; j < width; j++) {
            double g = ref_get(dy, ref_at(dy, r, j)) * (offset + ref_get(gain, ref_elem(gain, j)));
            ref_add(dx, ref_at(dx, r, j), rs * (g - ref_get(x, ref_at(x, r, j)) * rs * mean),
                    acc_dx);
        }
    }
    return EQAT_OK;
}
