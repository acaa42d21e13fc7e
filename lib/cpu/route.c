#include <math.h>

#include "cpu/backend.h"
#include "cpu/pieces.h"
#include "cpu/ref/ref.h"

typedef struct job {
    const eqi_view *weights, *index, *logits, *dlogits, *dweights;
    bool normalised, acc;
} job;

static float logit(const job *j, int64_t r, int64_t e)
{
    return (float)ref_get(j->logits, r * j->logits->stride[0] + e);
}

/* The k largest of a row in order, kept sorted while the row goes by. */
static void choose(const job *j, int64_t r, float *top, int32_t *index)
{
    int64_t k = j->index->shape[1], held = 0;
    for (int64_t e = 0; e < j->logits->shape[1]; e++) {
        float x = logit(j, r, e);
        if (held == k && !(x > top[k - 1])) continue;
        int64_t at = held < k ? held++ : k - 1;
        for (; at > 0 && x > top[at - 1]; at--) {
            top[at] = top[at - 1];
            index[at] = index[at - 1];
        }
        top[at] = x;
        index[at] = (int32_t)e;
    }
}

static double share(const job *j, int64_t r, const int32_t *index, int64_t e)
{
    return exp((double)logit(j, r, e) - (double)logit(j, r, index[0]));
}

/* What the shares are divided by: NaN where any logit is. */
static double whole(const job *j, int64_t r, const int32_t *index)
{
    int64_t experts = j->logits->shape[1], n = j->normalised ? j->index->shape[1] : experts;
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) sum += share(j, r, index, j->normalised ? index[i] : i);
    for (int64_t e = 0; j->normalised && e < experts; e++)
        if (isnan(logit(j, r, e))) sum = (double)NAN;
    return sum;
}

static void forward(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    for (int64_t r = first; r < first + count; r++) {
        float *weights = (float *)eqi_row(j->weights, r);
        int32_t *index = (int32_t *)eqi_row(j->index, r);
        choose(j, r, weights, index);
        double sum = whole(j, r, index);
        for (int64_t i = 0; i < j->index->shape[1]; i++)
            weights[i] = (float)(share(j, r, index, index[i]) / sum);
    }
}

eqat_status eqi_cpu_route(eqi_ctx *ctx, const eqi_view *weights, const eqi_view *index,
                          const eqi_view *logits, bool normalised)
{
    job j = {.weights = weights, .index = index, .logits = logits, .normalised = normalised};
    eqi_pieces(ctx, logits->shape[0], eqi_piece_rows(logits->shape[1]), forward, &j);
    return EQAT_OK;
}

static int64_t slot_of(const int32_t *index, int64_t k, int64_t e)
{
    int64_t i = 0;
    while (i < k && index[i] != e) i++;
    return i;
}

static void backward(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    int64_t k = j->index->shape[1];
    for (int64_t r = first; r < first + count; r++) {
        const int32_t *index = (const int32_t *)eqi_row(j->index, r);
        const float *dweights = (const float *)eqi_row(j->dweights, r);
        double sum = whole(j, r, index), mean = 0.0;
        for (int64_t i = 0; i < k; i++)
            mean += share(j, r, index, index[i]) / sum * (double)dweights[i];
        for (int64_t e = 0; e < j->logits->shape[1]; e++) {
            int64_t i = slot_of(index, k, e);
            double p = i == k && j->normalised ? 0.0 : share(j, r, index, e) / sum;
            double d = (i == k ? 0.0 : (double)dweights[i]) - mean;
            ref_add(j->dlogits, r * j->dlogits->stride[0] + e, p * d, j->acc);
        }
    }
}

eqat_status eqi_cpu_route_bwd(eqi_ctx *ctx, const eqi_view *dlogits, const eqi_view *dweights,
                              const eqi_view *logits, const eqi_view *index, bool normalised,
                              bool acc)
{
    job j = {.index = index,
             .logits = logits,
             .dlogits = dlogits,
             .dweights = dweights,
             .normalised = normalised,
             .acc = acc};
    eqi_pieces(ctx, logits->shape[0], eqi_piece_rows(logits->shape[1]), backward, &j);
    return EQAT_OK;
}
