#include "plain.h"

typedef struct params {
    bool normalised, acc;
} params;

enum { MOST = 257 };

/* Larger, or equal and before. */
static bool ahead(const double *x, int64_t a, int64_t b)
{
    return x[a] > x[b] || (x[a] == x[b] && a < b);
}

/* Numbers by rank: the k first. */
static void rank(const double *x, int64_t experts, int64_t k, int64_t *chosen)
{
    for (int64_t e = 0; e < experts; e++) {
        int64_t before = 0;
        for (int64_t f = 0; f < experts; f++) before += ahead(x, f, e);
        if (before < k) chosen[before] = e;
    }
}

/* p[experts]: the softmax over all, or over the chosen with 0 for the others. */
static void shares(const double *x, int64_t experts, const int64_t *chosen, int64_t k,
                   bool normalised, double *p)
{
    double sum = 0.0;
    for (int64_t e = 0; e < experts; e++) p[e] = normalised ? 0.0 : exp(x[e] - x[chosen[0]]);
    for (int64_t i = 0; i < k; i++) p[chosen[i]] = exp(x[chosen[i]] - x[chosen[0]]);
    for (int64_t e = 0; e < experts; e++) sum += p[e];
    for (int64_t e = 0; e < experts; e++) p[e] /= sum;
}

static void logits(suite *s, arg *a)
{
    if (suite_coin(s))
        arg_whole(s, a, -3, 3); /* many that are equal */
    else
        arg_flavour(s, a, (flavour)suite_pick(s, 0, ZERO));
}

/* ---- route ---- */
enum { WEIGHTS, INDEX, LOGITS };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->route(ctx, v[WEIGHTS], v[INDEX], v[LOGITS], ((const params *)p)->normalised);
}

static void again(suite *s, const void *p)
{
    int64_t experts = s->arg[LOGITS].v.shape[1], k = s->arg[INDEX].v.shape[1], chosen[MOST];
    double share[MOST];
    for (int64_t r = 0; r < s->arg[LOGITS].v.shape[0]; r++) {
        const double *x = s->arg[LOGITS].in + r * experts;
        rank(x, experts, k, chosen);
        shares(x, experts, chosen, k, ((const params *)p)->normalised, share);
        for (int64_t i = 0; i < k; i++) {
            s->arg[INDEX].again[r * k + i] = (double)chosen[i];
            s->arg[WEIGHTS].again[r * k + i] = share[chosen[i]];
        }
    }
}

static void arguments(suite *s, eqi_dtype dtype, int64_t rows, int64_t experts, int64_t k)
{
    suite_arg(s, "weights", OUT, CONTIGUOUS, suite_master_dtype(dtype), DIMS(rows, k));
    suite_arg(s, "index", OUT, CONTIGUOUS, EQI_I32, DIMS(rows, k));
    logits(s, suite_arg(s, "logits", IN, ROWS, dtype, DIMS(rows, experts)));
}

static void route(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        int64_t rows = odd_rows(s), experts = odd_size(s, MOST), k = suite_pick(s, 1, experts);
        if (k > 8 && suite_coin(s)) k = 8;
        eqi_dtype dtype = suite_compute_dtype(s);
        params p = {.normalised = suite_coin(s)};
        suite_begin(s, "R=%lld E=%lld k=%lld %s normalised %d", (long long)rows, (long long)experts,
                    (long long)k, eqi_dtype_name(dtype), p.normalised);
        arguments(s, dtype, rows, experts, k);
        suite_run(s, call, again, &p);
    }
}

/* k numbers that differ, in a row with a NaN. */
static void judge_numbers(suite *s)
{
    const arg *index = &s->arg[INDEX];
    int64_t experts = s->arg[LOGITS].v.shape[1], k = index->v.shape[1];
    for (int64_t i = 0; i < index->count; i++) {
        if (!(index->got[i] >= 0 && index->got[i] < (double)experts))
            suite_fail(s, "found number %g of %lld experts", index->got[i], (long long)experts);
        for (int64_t j = i - i % k; j < i; j++)
            if (index->got[i] == index->got[j]) suite_fail(s, "found %g twice", index->got[i]);
    }
}

static void again_nan(suite *s, const void *p)
{
    (void)p;
    for (int64_t i = 0; i < s->arg[WEIGHTS].count; i++) s->arg[WEIGHTS].again[i] = (double)NAN;
}

static void route_nan(suite *s)
{
    enum { EXPERTS = 5 };
    for (int i = 0; i < 2; i++) {
        suite_begin(s, "a NaN at each place, normalised %d", i);
        arguments(s, EQI_F32, EXPERTS, EXPERTS, 2);
        for (int64_t r = 0; r < EXPERTS; r++)
            for (int64_t e = 0; e < EXPERTS; e++)
                arg_set(&s->arg[LOGITS], r * EXPERTS + e, r == e ? (double)NAN : (double)(e % 3));
        s->arg[INDEX].match = JUDGED;
        s->judge = judge_numbers;
        suite_run(s, call, again_nan, &(params){.normalised = i});
    }
}

/* Shares 1, e, e^2, e of 1 + 2e + e^2. */
static void route_known(suite *s)
{
    double e = exp(1), all = 1 + 2 * e + e * e, both = e + e * e;
    double expected[][4] = {{e * e / all, e / all, 2, 1}, {e * e / both, e / both, 2, 1}};
    for (int i = 0; i < 2; i++) {
        params p = {.normalised = i};
        suite_begin(s, "by hand, normalised %d", i);
        arguments(s, EQI_F32, 1, 4, 2);
        arg_values(&s->arg[LOGITS], (double[]){0, 1, 2, 1});
        known_run(s, call, &p, expected[i]);
    }
    route_nan(s);
}

static void bench(suite *s)
{
    suite_begin(s, "bf16 R=4096 E=128 k=8 normalised");
    arguments(s, EQI_BF16, 4096, 128, 8);
    s->bytes = 4096.0 * 128 * 2;
    suite_run(s, call, NULL, &(params){.normalised = true});
}

/* ---- route_bwd ---- */
enum { DLOGITS, DWEIGHTS, BLOGITS, BINDEX };

static eqat_status call_bwd(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    const params *q = p;
    return b->route_bwd(ctx, v[DLOGITS], v[DWEIGHTS], v[BLOGITS], v[BINDEX], q->normalised, q->acc);
}

/* d p_c / d x_e = p_c ([c = e] - p_e) */
static void again_bwd(suite *s, const void *p)
{
    int64_t experts = s->arg[BLOGITS].v.shape[1], k = s->arg[BINDEX].v.shape[1], chosen[MOST];
    double share[MOST];
    plain_start(&s->arg[DLOGITS]);
    for (int64_t r = 0; r < s->arg[BLOGITS].v.shape[0]; r++) {
        const double *x = s->arg[BLOGITS].in + r * experts;
        rank(x, experts, k, chosen);
        shares(x, experts, chosen, k, ((const params *)p)->normalised, share);
        for (int64_t i = 0; i < k; i++) {
            double d = s->arg[DWEIGHTS].in[r * k + i] * share[chosen[i]];
            plain_term(&s->arg[DLOGITS], r * experts + chosen[i], d);
            for (int64_t e = 0; e < experts; e++)
                plain_term(&s->arg[DLOGITS], r * experts + e, -d * share[e]);
        }
    }
}

static void arguments_bwd(suite *s, const params *p, eqi_dtype dtype, int64_t rows, int64_t experts,
                          int64_t k)
{
    arg *d = suite_arg(s, "dlogits", p->acc ? ACC : OUT, ROWS, dtype, DIMS(rows, experts));
    if (p->acc) arg_normal(s, d, 1.0);
    arg_normal(
        s, suite_arg(s, "dweights", IN, CONTIGUOUS, suite_master_dtype(dtype), DIMS(rows, k)), 1.0);
    arg *x = suite_arg(s, "logits", IN, ROWS, dtype, DIMS(rows, experts));
    logits(s, x);
    arg *index = suite_arg(s, "index", IN, CONTIGUOUS, EQI_I32, DIMS(rows, k));
    for (int64_t r = 0; r < rows; r++) {
        int64_t chosen[MOST];
        double row[MOST];
        for (int64_t e = 0; e < experts; e++) row[e] = arg_value(x, r * experts + e);
        rank(row, experts, k, chosen);
        for (int64_t i = 0; i < k; i++) arg_set(index, r * k + i, (double)chosen[i]);
    }
}

static void route_bwd(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t rows = odd_rows(s), experts = odd_size(s, MOST), k = suite_pick(s, 1, experts);
        if (k > 8 && suite_coin(s)) k = 8;
        eqi_dtype dtype = suite_compute_dtype(s);
        params p = {.normalised = suite_coin(s), .acc = suite_coin(s)};
        suite_begin(s, "R=%lld E=%lld k=%lld %s normalised %d acc %d", (long long)rows,
                    (long long)experts, (long long)k, eqi_dtype_name(dtype), p.normalised, p.acc);
        arguments_bwd(s, &p, dtype, rows, experts, k);
        suite_run(s, call_bwd, again_bwd, &p);
    }
}

static void bench_bwd(suite *s)
{
    params p = {.normalised = true};
    suite_begin(s, "bf16 R=4096 E=128 k=8 normalised");
    arguments_bwd(s, &p, EQI_BF16, 4096, 128, 8);
    s->bytes = 4096.0 * 128 * 4;
    suite_run(s, call_bwd, NULL, &p);
}

const kernel_check check_route[] = {
    {"route", route, route_known, bench},
    {"route_bwd", route_bwd, NULL, bench_bwd},
    {0},
};
