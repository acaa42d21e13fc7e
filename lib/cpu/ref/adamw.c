#include "cpu/ref/quant.h"

/* In the order of torch.optim.AdamW, each operation rounded to the dtype; what does not depend on
 * the element is computed in f64. */
eqat_status eqi_ref_adamw(eqi_ctx *ctx, const eqi_view *p, const eqi_view *g, const eqi_view *m,
                          const eqi_view *v, const eqi_view *factor, const eqi_adamw_desc *d)
{
    (void)ctx;
    double f = factor ? ref_get(factor, 0) : 1.0;
    if (isnan(f)) return EQAT_OK;
    bool wide = ref_is_wide(p);
    double beta1 = (double)d->beta1, beta2 = (double)d->beta2, eps = (double)d->eps;
    double gain1 = ref_f(wide, 1.0 - beta1), gain2 = ref_f(wide, 1.0 - beta2);
    double step_size = ref_f(wide, (double)d->lr / (1.0 - pow(beta1, (double)d->step)));
    double root = ref_f(wide, sqrt(1.0 - pow(beta2, (double)d->step)));
    double keep = ref_f(wide, 1.0 - (double)d->lr * (double)d->weight_decay);
    for (int64_t i = 0; i < eqi_view_count(p); i++) {
        double gi = ref_f(wide, f * ref_get(g, ref_elem(g, i)));
        double mi =
            ref_f(wide, ref_f(wide, beta1 * ref_get(m, ref_elem(m, i))) + ref_f(wide, gain1 * gi));
        double vi = ref_f(wide,
                          ref_f(wide, beta2 * ref_get(v, ref_elem(v, i))) +
                              ref_f(wide, ref_f(wide, gain2 * gi) * gi));
        double denom = ref_f(wide, ref_f(wide, ref_f(wide, sqrt(vi)) / root) + eps);
        double pi = ref_f(wide, ref_get(p, ref_elem(p, i)) * keep);
        pi = ref_f(wide, pi - ref_f(wide, ref_f(wide, step_size * mi) / denom));
        ref_put(m, ref_elem(m, i), mi);
        ref_put(v, ref_elem(v, i), vi);
        ref_put(p, ref_elem(p, i), pi);
    }
    return EQAT_OK;
}
