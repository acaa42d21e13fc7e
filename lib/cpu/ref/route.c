#include "cpu/ref/ref.h"

static double logit(const eqi_view *logits, int64_t r, int64_t e)
{
    return ref_get(logits, ref_at(logits, r, e));
}

static int64_t expert(const eqi_view *index, int64_t r, int64_t slot)
{
    return (int64_t)ref_get(index, ref_at(index, r, slot));
}

/* The slot of expert e among the first n of a row; n when it has none. */
static int64_t slot_of(const eqi_view *index, int64_t r, int64_t n, int64_t e)
{
    int64_t slot = 0;
    while (slot < n && expert(index, r, slot) != e) slot++;
    return slot;
}

static void choose(const eqi_view *index, const eqi_view *logits, int64_t r)
{
    for (int64_t slot = 0; slot < ref_width(index); slot++) {
        int64_t best = -1;
        for (int64_t e = 0; e < ref_width(logits); e++)
            if (slot_of(index, r, slot, e) == slot &&
                (best < 0 || logit(logits, r, e) > logit(logits, r, best)))
                best = e;
        ref_put(index, ref_at(index, r, slot), (double)best);
    }
}

/* exp(logit - largest), and its sum over those who take part: NaN where any logit is. */
static double share(const eqi_view *logits, const eqi_view *index, int64_t r, int64_t e)
{
    return exp(logit(logits, r, e) - logit(logits, r, expert(index, r, 0)));
}

static double whole(const eqi_view *logits, const eqi_view *index, int64_t r, bool normalised)
{
    double sum = 0.0;
    for (int64_t e = 0; e < ref_width(logits); e++)
        if (!normalised || slot_of(index, r, ref_width(index), e) < ref_width(index))
            sum += share(logits, index, r, e);
        else if (isnan(logit(logits, r, e)))
            sum = (double)NAN;
    return sum;
}

eqat_status eqi_ref_route(eqi_ctx *ctx, const eqi_view *weights, const eqi_view *index,
                          const eqi_view *logits, bool normalised)
{
    (void)ctx;
    for (int64_t r = 0; r < eqi_view_rows(logits); r++) {
        choose(index, logits, r);
        double sum = whole(logits, index, r, normalised);
        for (int64_t slot = 0; slot < ref_width(index); slot++)
            ref_put(weights, ref_at(weights, r, slot),
                    share(logits, index, r, expert(index, r, slot)) / sum);
    }
    return EQAT_OK;
}

/* With p the softmax: dlogit_e = p_e (dweight_e - sum of p dweight), where dweight is 0 for those
 * without a slot. */
eqat_status eqi_ref_route_bwd(eqi_ctx *ctx, const eqi_view *dlogits, const eqi_view *dweights,
                              const eqi_view *logits, const eqi_view *index, bool normalised,
                              bool acc)
{
    (void)ctx;
    int64_t k = ref_width(index);
    for (int64_t r = 0; r < eqi_view_rows(logits); r++) {
        double sum = whole(logits, index, r, normalised), mean = 0.0;
        for (int64_t slot = 0; slot < k; slot++)
            mean += share(logits, index, r, expert(index, r, slot)) / sum *
                ref_get(dweights, ref_at(dweights, r, slot));
        for (int64_t e = 0; e < ref_width(logits); e++) {
            int64_t slot = slot_of(index, r, k, e);
            double p = slot == k && normalised ? 0.0 : share(logits, index, r, e) / sum;
            double d = slot == k ? 0.0 : ref_get(dweights, ref_at(dweights, r, slot));
            ref_add(dlogits, ref_at(dlogits, r, e), p * (d - mean), acc);
        }
    }
    return EQAT_OK;
}
