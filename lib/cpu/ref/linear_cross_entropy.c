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

/* A row of x against w: what its softmax is taken of. */
typedef struct row {
    const eqi_view *x, *w;
    int64_t r;
    double lse;
} row;

static double log_softmax(const row *of, int64_t v)
{
    return logit(of->x, of->w, of->r, v) - of->lse;
}

static row row_of(const eqi_view *x, const eqi_view *w, int64_t r)
{
    return (row){.x = x, .w = w, .r = r, .lse = log_sum_exp(x, w, r)};
}

/* One row of the call; p only with a teacher. */
typedef struct pair {
    row q, p;
    double share;
    int64_t label;
} pair;

static pair pair_of(const eqi_view *x, const eqi_view *w, const eqi_teacher *t, int64_t r,
                    int64_t label)
{
    pair both = {.q = row_of(x, w, r), .share = t ? t->share : 0.0, .label = label};
    if (t) both.p = row_of(&t->x, &t->w, r);
    return both;
}

static double loss_of(const pair *both)
{
    double loss = -(1.0 - both->share) * log_softmax(&both->q, both->label);
    for (int64_t v = 0; both->p.x && v < eqi_view_rows(both->q.w); v++) {
        double ln_p = log_softmax(&both->p, v);
        loss += both->share * exp(ln_p) * (ln_p - log_softmax(&both->q, v));
    }
    return loss;
}

static double gradient(const pair *both, int64_t v)
{
    double p = both->p.x ? exp(log_softmax(&both->p, v)) : 0.0;
    return exp(log_softmax(&both->q, v)) - (v == both->label ? 1.0 - both->share : 0.0) -
        both->share * p;
}

/* Row r of dx. */
static void put_dx(const eqi_view *dx, const pair *both, int64_t r, double *sum)
{
    int64_t width = ref_width(dx);
    const eqi_view *w = both->q.w;
    for (int64_t j = 0; j < width; j++) sum[j] = 0.0;
    for (int64_t v = 0; both->label >= 0 && v < eqi_view_rows(w); v++) {
        double g = gradient(both, v);
        for (int64_t j = 0; j < width; j++)
            sum[j] += g * eqi_ref_weight_at(&(ref_weight){.w = w}, v, j, both->q.x->dtype);
    }
    for (int64_t j = 0; j < width; j++) ref_put(dx, ref_at(dx, r, j), sum[j]);
}

/* To row v of dw. */
static void add_dw(const eqi_view *dw, const eqi_view *x, const pair *pairs, int64_t v, double *sum)
{
    int64_t width = ref_width(dw);
    for (int64_t j = 0; j < width; j++) sum[j] = 0.0;
    for (int64_t r = 0; r < eqi_view_rows(x); r++) {
        if (pairs[r].label < 0) continue;
        double g = gradient(&pairs[r], v);
        for (int64_t j = 0; j < width; j++) sum[j] += g * ref_get(x, ref_at(x, r, j));
    }
    for (int64_t j = 0; j < width; j++) ref_add(dw, ref_at(dw, v, j), sum[j], true);
}

/* The logits are computed anew for each of loss, dx and dw: nothing larger than a row is ever kept.
 */
eqat_status eqi_ref_linear_cross_entropy(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *dx,
                                         const eqi_view *dw, const eqi_view *x, const eqi_view *w,
                                         const eqi_view *labels, const eqi_teacher *t)
{
    int64_t rows = eqi_view_rows(x), width = ref_width(x);
    double loss = 0.0, count = 0.0, *sum = eqi_alloc(ctx, (size_t)width * sizeof *sum, "a row");
    pair *pairs = eqi_alloc(ctx, (size_t)rows * sizeof *pairs, "the rows of a cross-entropy");
    eqat_status st = sum && pairs ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    for (int64_t r = 0; r < rows && st == EQAT_OK; r++) {
        pairs[r] = pair_of(x, w, t, r, (int64_t)ref_get(labels, ref_elem(labels, r)));
        if (pairs[r].label >= 0) loss += loss_of(&pairs[r]), count += 1.0;
        if (dx) put_dx(dx, &pairs[r], r, sum);
    }
    for (int64_t v = 0; dw && v < eqi_view_rows(w) && st == EQAT_OK; v++)
        add_dw(dw, x, pairs, v, sum);
    eqi_free(ctx, sum);
    eqi_free(ctx, pairs);
    EQI_RETURN_IF(st);
    ref_put(stats, ref_elem(stats, 0), loss);
    ref_put(stats, ref_elem(stats, 1), count);
    return EQAT_OK;
}
