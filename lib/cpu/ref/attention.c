#include "cpu/ref/attention.h"

static bool sees(const eqi_view *segments, const eqi_attention_desc *d, int64_t b, int64_t i,
                 int64_t j)
{
    int64_t p = d->q_offset + i;
    if ((d->causal || d->window > 0) && j > p) return false;
    if (d->window > 0 && j <= p - d->window) return false;
    return !segments ||
        ref_get(segments, ref_at(segments, b, j)) == ref_get(segments, ref_at(segments, b, p));
}

double eqi_ref_softmax_row(double *p, double *slope, const eqi_view *q, const eqi_view *k,
                           const eqi_view *segments, const eqi_attention_desc *d, int64_t b,
                           int64_t h, int64_t i)
{
    int64_t keys = k->shape[1], hk = h / (q->shape[2] / k->shape[2]);
    double scale = (double)d->scale, cap = (double)d->softcap, max = -(double)INFINITY, sum = 0.0;
    for (int64_t j = 0; j < keys; j++) {
        p[j] = -(double)INFINITY;
        if (slope) slope[j] = 0.0;
        if (!sees(segments, d, b, i, j)) continue;
        double dot = 0.0;
        for (int64_t c = 0; c < q->shape[3]; c++)
            dot += ref_get(q, ref_at4(q, b, i, h, c)) * ref_get(k, ref_at4(k, b, j, hk, c));
        double t = cap > 0.0 ? tanh(scale * dot / cap) : 0.0;
        p[j] = cap > 0.0 ? cap * t : scale * dot;
        if (slope) slope[j] = scale * (1.0 - t * t);
        if (p[j] > max || isnan(p[j])) max = p[j];
    }
    if (max == -(double)INFINITY) {
        for (int64_t j = 0; j < keys; j++) p[j] = 0.0;
        return max;
    }
    for (int64_t j = 0; j < keys; j++)
        if (p[j] != -(double)INFINITY) sum += exp(p[j] - max);
    for (int64_t j = 0; j < keys; j++)
        p[j] = p[j] == -(double)INFINITY ? 0.0 : exp(p[j] - max) / sum;
    return max + log(sum);
}

eqat_status eqi_ref_attention(eqi_ctx *ctx, const eqi_view *o, const eqi_view *lse,
                              const eqi_view *q, const eqi_view *k, const eqi_view *v,
                              const eqi_view *segments, const eqi_attention_desc *d)
{
    int64_t queries = q->shape[1], heads = q->shape[2], keys = k->shape[1],
            per = heads / k->shape[2];
    double *p = eqi_alloc(ctx, (size_t)keys * sizeof *p, "a row of attention scores");
    if (!p) return EQAT_OUT_OF_MEMORY;
    for (int64_t b = 0; b < q->shape[0]; b++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < queries; i++) {
                double l = eqi_ref_softmax_row(p, NULL, q, k, segments, d, b, h, i);
                ref_put(lse, ref_elem(lse, (b * heads + h) * queries + i), l);
                for (int64_t c = 0; c < q->shape[3]; c++) {
                    double sum = 0.0;
                    for (int64_t j = 0; j < keys; j++)
                        if (p[j] != 0.0) sum += p[j] * ref_get(v, ref_at4(v, b, j, h / per, c));
                    ref_put(o, ref_at4(o, b, i, h, c), sum);
                }
            }
    eqi_free(ctx, p);
    return EQAT_OK;
}
