#include "cpu/ref/product.h"

static double logit(const eqi_view *x, const eqi_view *w, int64_t r, int64_t v)
{
    int64_t at = ref_row(x, r);
    double sum = 0.0;
    for (int64_t j = 0; j < ref_width(x); j++)
        sum += ref_get(x, at + j) * eqi_ref_weight_at(&(ref_weight){.w = w}, v, j, x->dtype);
    return sum;
}

static double log_sum_exp(const eqi_view *x, const eqi_view *w, int64_t r)
{
    double max = -(double)INFINITY, sum = 0.0;
    for (int64_t v = 0; v < eqi_view_rows(w); v++) {
        /* sum is kept relative to the largest logit so far */
        double l = logit(x, w, r, v);
        if (l > max) {
            sum *= exp(max - l);
            max = l;
        }
        sum += exp(l - max);
    }
    return max + log(sum);
}

/* The logits are computed anew for each of loss, dx and dw: nothing larger than a row is ever kept.
 */
eqat_status eqi_ref_linear_cross_entropy(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *dx,
                                         const eqi_view *dw, const eqi_view *x, const eqi_view *w,
                                         const eqi_view *labels)
{
    int64_t rows = eqi_view_rows(x), width = ref_width(x), vocab = eqi_view_rows(w);
    double *lse =
        eqi_alloc(ctx, (size_t)(rows + width) * sizeof *lse, "the rows of a cross-entropy");
    if (!lse) return EQAT_OUT_OF_MEMORY;
    double *sum = lse + rows, loss = 0.0, count = 0.0;
    for (int64_t r = 0; r < rows; r++) {
        int64_t label = (int64_t)ref_get(labels, ref_elem(labels, r));
        for (int64_t j = 0; j < width; j++) sum[j] = 0.0;
        if (label >= 0) {
            lse[r] = log_sum_exp(x, w, r);
            loss += lse[r] - logit(x, w, r, label);
            count += 1.0;
            for (int64_t v = 0; dx && v < vocab; v++) {
                double g = exp(logit(x, w, r, v) - lse[r]) - (v == label ? 1.0 : 0.0);
                for (int64_t j = 0; j < width; j++)
                    sum[j] += g * eqi_ref_weight_at(&(ref_weight){.w = w}, v, j, x->dtype);
            }
        }
        for (int64_t j = 0; dx && j < width; j++) ref_put(dx, ref_at(dx, r, j), sum[j]);
    }
    for (int64_t v = 0; dw && v < vocab; v++) {
        for (int64_t j = 0; j < width; j++) sum[j] = 0.0;
        for (int64_t r = 0; r < rows; r++) {
            int64_t label = (int64_t)ref_get(labels, ref_elem(labels, r));
            if (label < 0) continue;
            double g = exp(logit(x, w, r, v) - lse[r]) - (v == label ? 1.0 : 0.0);
            for (int64_t j = 0; j < width; j++) sum[j] += g * ref_get(x, ref_at(x, r, j));
        }
        for (int64_t j = 0; j < width; j++) ref_add(dw, ref_at(dw, v, j), sum[j], true);
    }
    ref_put(stats, ref_elem(stats, 0), loss);
    ref_put(stats, ref_elem(stats, 1), count);
    eqi_free(ctx, lse);
    return EQAT_OK;
}
