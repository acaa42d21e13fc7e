#include "cpu/ref/ref.h"

static bool counts(const eqi_view *labels, int64_t r)
{
    return !labels || ref_get(labels, ref_elem(labels, r)) >= 0;
}

static double log_sum_exp(const eqi_view *x, int64_t r)
{
    double max = -(double)INFINITY, sum = 0.0;
    for (int64_t v = 0; v < ref_width(x); v++) max = fmax(max, ref_get(x, ref_at(x, r, v)));
    for (int64_t v = 0; v < ref_width(x); v++) sum += exp(ref_get(x, ref_at(x, r, v)) - max);
    return max + log(sum);
}

eqat_status eqi_ref_kl_divergence(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *lse,
                                  const eqi_view *x, const eqi_view *target, const eqi_view *labels)
{
    (void)ctx;
    double sum = 0.0, rows = 0.0;
    for (int64_t r = 0; r < eqi_view_rows(x); r++) {
        double of_p = log_sum_exp(target, r), of_q = log_sum_exp(x, r);
        ref_put(lse, ref_at(lse, r, 0), of_p);
        ref_put(lse, ref_at(lse, r, 1), of_q);
        if (!counts(labels, r)) continue;
        rows += 1.0;
        for (int64_t v = 0; v < ref_width(x); v++) {
            double ln_p = ref_get(target, ref_at(target, r, v)) - of_p;
            sum += exp(ln_p) * (ln_p - (ref_get(x, ref_at(x, r, v)) - of_q));
        }
    }
    ref_put(stats, ref_elem(stats, 0), sum);
    ref_put(stats, ref_elem(stats, 1), rows);
    return EQAT_OK;
}

eqat_status eqi_ref_kl_divergence_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *factor,
                                      const eqi_view *lse, const eqi_view *x,
                                      const eqi_view *target, const eqi_view *labels, bool acc)
{
    (void)ctx;
    double f = ref_get(factor, 0);
    for (int64_t r = 0; r < eqi_view_rows(x); r++) {
        double of_p = ref_get(lse, ref_at(lse, r, 0)), of_q = ref_get(lse, ref_at(lse, r, 1));
        for (int64_t v = 0; v < ref_width(x); v++) {
            double p = exp(ref_get(target, ref_at(target, r, v)) - of_p),
                   q = exp(ref_get(x, ref_at(x, r, v)) - of_q);
            ref_add(dx, ref_at(dx, r, v), counts(labels, r) ? f * (q - p) : 0.0, acc);
        }
    }
    return EQAT_OK;
}
