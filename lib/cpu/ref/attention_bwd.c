#include "cpu/ref/attention.h"

/* With p = softmax(score) and g = do.v: dv += p do, dscore = p (g - sum p g), dq and dk by the
 * chain rule. All of it is computed anew from q, k and v; o and lse only spare faster kernels the
 * first two passes. */
static void backward_row(double *dkv, double *p, double *slope, const eqi_view *dq,
                         const eqi_view *d_o, const eqi_view *q, const eqi_view *k,
                         const eqi_view *v, int64_t b, int64_t h, int64_t i)
{
    int64_t keys = k->shape[1], size = q->shape[3], hk = h / (q->shape[2] / k->shape[2]);
    double *dk = dkv, *dv = dkv + keys * size, mean = 0.0;
    for (int64_t j = 0; j < keys; j++) {
        if (p[j] == 0.0) continue;
        for (int64_t c = 0; c < size; c++) {
            double g = ref_get(d_o, ref_at4(d_o, b, i, h, c));
            dv[j * size + c] += p[j] * g;
            mean += p[j] * g * ref_get(v, ref_at4(v, b, j, hk, c));
        }
    }
    for (int64_t j = 0; j < keys; j++) {
        if (p[j] == 0.0) continue;
        double g = 0.0;
        for (int64_t c = 0; c < size; c++)
            g += ref_get(d_o, ref_at4(d_o, b, i, h, c)) * ref_get(v, ref_at4(v, b, j, hk, c));
        slope[j] *= p[j] * (g - mean);
        for (int64_t c = 0; c < size; c++)
            dk[j * size + c] += slope[j] * ref_get(q, ref_at4(q, b, i, h, c));
    }
    for (int64_t c = 0; c < size; c++) {
        double sum = 0.0;
        for (int64_t j = 0; j < keys; j++)
            if (p[j] != 0.0) sum += slope[j] * ref_get(k, ref_at4(k, b, j, hk, c));
        ref_put(dq, ref_at4(dq, b, i, h, c), sum);
    }
}

eqat_status eqi_ref_attention_bwd(eqi_ctx *ctx, const eqi_view *dq, const eqi_view *dk,
                                  const eqi_view *dv, const eqi_view *d_o, const eqi_view *o,
                                  const eqi_view *lse, const eqi_view *q, const eqi_view *k,
                                  const eqi_view *v, const eqi_view *segments,
                                  const eqi_attention_desc *d)
{
    (void)o;
    (void)lse;
    int64_t keys = k->shape[1], size = q->shape[3], per = q->shape[2] / k->shape[2];
    size_t sums = (size_t)(2 * keys * size);
    double *dkv = eqi_alloc(ctx, (sums + 2 * (size_t)keys) * sizeof *dkv,
                            "the gradients of one attention head");
    if (!dkv) return EQAT_OUT_OF_MEMORY;
    double *p = dkv + sums, *slope = p + keys;
    for (int64_t b = 0; b < k->shape[0]; b++)
        for (int64_t hk = 0; hk < k->shape[2]; hk++) {
            for (size_t n = 0; n < sums; n++) dkv[n] = 0.0;
            for (int64_t h = hk * per; h < (hk + 1) * per; h++)
                for (int64_t i = 0; i < q->shape[1]; i++) {
                    eqi_ref_softmax_row(p, slope, q, k, segments, d, b, h, i);
                    backward_row(dkv, p, slope, dq, d_o, q, k, v, b, h, i);
                }
            for (int64_t j = 0; j < keys; j++)
                for (int64_t c = 0; c < size; c++) {
                    ref_put(dk, ref_at4(dk, b, j, hk, c), dkv[j * size + c]);
                    ref_put(dv, ref_at4(dv, b, j, hk, c), dkv[(keys + j) * size + c]);
                }
        }
    eqi_free(ctx, dkv);
    return EQAT_OK;
}
