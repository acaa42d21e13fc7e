#include "plain.h"

enum { S, Z, W, H };

static eqat_status call_minmax(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                               const void *p)
{
    return b->init_minmax(ctx, v[S], v[Z], v[W], p);
}

static eqat_status call_mse(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    return b->init_mse(ctx, v[S], v[Z], v[W], v[H], p);
}

static const double *group_of(const suite *s, const eqi_quant_desc *q, int64_t g)
{
    return s->arg[W].in + g * q->group;
}

/* The zero points to choose from. */
static double least_zero(const eqi_quant_desc *q)
{
    return q->middle ? (double)((1 << (q->bits - 1)) - 1) : 0.0;
}

static double most_zero(const eqi_quant_desc *q)
{
    return q->middle ? (double)(1 << (q->bits - 1)) : (double)((1 << q->bits) - 1);
}

static void start_of(const suite *s, const eqi_quant_desc *q, int64_t g, double *step, double *zero)
{
    plain_minmax(group_of(s, q, g), q->group, q->bits, s->arg[W].v.dtype == EQI_F64, step, zero);
    if (q->middle) *zero = fmin(fmax(*zero, least_zero(q)), most_zero(q));
}

static void again_minmax(suite *s, const void *p)
{
    const eqi_quant_desc *q = p;
    for (int64_t g = 0; g < s->arg[S].count; g++)
        start_of(s, q, g, &s->arg[S].again[g], &s->arg[Z].again[g]);
}

static void weights(suite *s, arg *w, int64_t group, bool finite)
{
    for (int64_t g = 0; g < w->count / group; g++) {
        int kind = (int)suite_pick(s, 0, finite ? 6 : 7);
        double scale = exp(suite_normal(s)) * 0.02,
               shift = kind == 1 ? 4.0
            : kind == 2          ? -4.0
                                 : 0.0;
        for (int64_t i = 0; i < group; i++) {
            double v = scale * (suite_normal(s) + shift);
            if (kind == 3) v = 0.0;
            if (kind == 4 && i == group / 2) v *= 50.0;
            if (kind == 5) v = 0.3;
            arg_set(w, g * group + i, v);
        }
        if (kind == 7)
            arg_set(w, g * group + suite_pick(s, 0, group - 1),
                    suite_coin(s) ? (double)NAN : (double)INFINITY);
    }
}

static void arguments(suite *s, const eqi_quant_desc *q, eqi_dtype dtype, int64_t out, int64_t in)
{
    suite_arg(s, "s", OUT, CONTIGUOUS, dtype, DIMS(out, in / q->group));
    suite_arg(s, "z", OUT, CONTIGUOUS, dtype, DIMS(out, in / q->group));
    suite_arg(s, "w", IN, CONTIGUOUS, dtype, DIMS(out, in));
}

/* What squares count: from next to nothing to most of it, and in some groups nothing at all. */
static void counts(suite *s, const eqi_quant_desc *q, eqi_dtype dtype, int64_t in, bool absent)
{
    arg *h = suite_arg(s, "h", IN, CONTIGUOUS, dtype, DIMS(in));
    for (int64_t i = 0; i < in; i++) arg_set(h, i, exp(3.0 * suite_normal(s)));
    int64_t g = suite_pick(s, 0, 2 * in / q->group);
    for (int64_t i = g * q->group; i < (g + 1) * q->group && i < in; i++) arg_set(h, i, 0.0);
    if (absent) suite_absent(s, "h");
}

static void minmax(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        int64_t out = suite_pick(s, 1, 9), in = odd_size(s, 257);
        eqi_quant_desc q = {.bits = (int)suite_pick(s, 2, 8), .group = random_group(s, in)};
        eqi_dtype dtype = s->b->f64 && i % 4 == 0 ? EQI_F64 : EQI_F32;
        suite_begin(s, "N=%lld K=%lld bits %d group %lld %s", (long long)out, (long long)in, q.bits,
                    (long long)q.group, eqi_dtype_name(dtype));
        arguments(s, &q, dtype, out, in);
        s->arg[S].match = s->arg[Z].match = EXACT;
        weights(s, &s->arg[W], q.group, false);
        suite_run(s, call_minmax, again_minmax, &q);
    }
}

/* -1..2 at 2 bits: s = 1, z = 1. 1..4: the range is made to include 0, s = 4/3, z = 0. All zero: s
 * = 1e-4, z = 0. -1, -1: s = 1/3, z = 3. The largest range: s = FLT_MAX/3. Too small to divide: as
 * zero. */
static void minmax_known(suite *s)
{
    const double w[] = {-1,    2,     1, 4, 0, 0, -1, -1, -(double)FLT_MAX, (double)FLT_MAX,
                        1e-44, -1e-44};
    const double third = (double)(1.0f / 3.0f);
    suite_begin(s, "by hand");
    eqi_quant_desc q = {.bits = 2, .group = 2};
    arguments(s, &q, EQI_F32, 1, 12);
    s->arg[S].match = s->arg[Z].match = EXACT;
    arg_values(&s->arg[W], w);
    known_run(s, call_minmax, &q,
              (double[]){1, (double)(4.0f / 3.0f), (double)1e-4f, third, (double)(FLT_MAX / 3.0f),
                         (double)1e-4f, 1, 0, 0, 3, 3, 0});
}

/* ---- mse ---- */
static eqi_quant_desc judged;

/* What the square of the error of weight i of a group counts. */
static double count_of(const suite *s, int64_t g, int64_t i)
{
    const int64_t per_row = s->arg[S].v.shape[1];
    return s->arg[H].absent ? 1.0 : s->arg[H].in[g % per_row * judged.group + i];
}

static double squares(const suite *s, int64_t g, double step, double zero)
{
    double sum = 0.0;
    for (int64_t i = 0; i < judged.group; i++) {
        double w = group_of(s, &judged, g)[i];
        double e = w -
            plain_quantize(s->arg[W].v.dtype == EQI_F64, w, step, zero, judged.bits, false).value;
        sum += count_of(s, g, i) * e * e;
    }
    return sum;
}

/* The least error of any step that gives the codes of this one. */
static double squares_of_codes(const suite *s, int64_t g, double step, double zero)
{
    double wc = 0.0, cc = 0.0;
    for (int64_t i = 0; i < judged.group; i++) {
        double w = group_of(s, &judged, g)[i],
               c = plain_quantize(true, w, step, zero, judged.bits, false).code - zero;
        wc += count_of(s, g, i) * w * c;
        cc += count_of(s, g, i) * c * c;
    }
    return cc > 0.0 ? squares(s, g, round_to(s->arg[S].v.dtype, wc / cc), zero) : (double)INFINITY;
}

/* The optimum: codes change where a weight is half-way between two, so of all zero points and just
 * below all such steps the best. */
static double brute(const suite *s, int64_t g)
{
    double best = (double)INFINITY;
    for (double z = least_zero(&judged); z <= most_zero(&judged); z++)
        for (int64_t i = 0; i < judged.group; i++)
            for (int k = 0; k < 1 << judged.bits; k++) {
                double step = fabs(group_of(s, &judged, g)[i]) / (k + 0.5) * (1.0 - 1e-7);
                best = fmin(best, squares_of_codes(s, g, step, z));
            }
    return best;
}

/* The search itself is never worse than minmax. */
static void again_mse(suite *s, const void *p)
{
    judged = *(const eqi_quant_desc *)p;
    for (int64_t g = 0; g < s->arg[S].count; g++) {
        double step, zero, found = squares(s, g, s->arg[S].ref[g], s->arg[Z].ref[g]);
        start_of(s, &judged, g, &step, &zero);
        if (found > squares(s, g, step, zero))
            suite_fail(s, "group %lld: the reference is worse than minmax", (long long)g);
    }
}

/* Over groups of an ordinary size the search comes close to the optimum, but where outliers divide
 * what is left among few codes, or no weight is near 0, it may miss a narrow one: the bounds are
 * those of the draws of --seed 1, and hold a search to what it reached; others miss more
 * (numerics.md). */
static void again_optimum(suite *s, const void *p)
{
    double sum = 0.0, sum_best = 0.0;
    again_mse(s, p);
    for (int64_t g = 0; g < s->arg[S].count; g++) {
        sum += squares(s, g, s->arg[S].ref[g], s->arg[Z].ref[g]);
        sum_best += brute(s, g);
    }
    if (sum > (strstr(s->label, "outlier") ? 1.03 : 1.005) * sum_best)
        suite_fail(s, "the reference leaves an error of %g, the optimum is %g", sum, sum_best);
}

/* Ties between candidates may fall otherwise: what counts is the error, never the step. */
static void judge(suite *s)
{
    for (int64_t g = 0; g < s->arg[S].count; g++) {
        double step = s->arg[S].got[g], zero = s->arg[Z].got[g];
        double want = squares(s, g, s->arg[S].ref[g], s->arg[Z].ref[g]),
               found = squares(s, g, step, zero);
        if (!(step > 0.0 && step <= (double)FLT_MAX && zero == rint(zero) &&
              zero >= least_zero(&judged) && zero <= most_zero(&judged)))
            suite_fail(s, "group %lld: s = %g, z = %g", (long long)g, step, zero);
        else if (!(found <= want * (1.0 + 1e-3) + 1e-30))
            suite_fail(s, "group %lld: error %g, the reference has %g", (long long)g, found, want);
    }
}

static void mse(suite *s)
{
    for (int i = 0; i < s->cases / 2; i++) {
        int64_t out = suite_pick(s, 1, 5), in = odd_size(s, 130);
        eqi_quant_desc q = {.bits = 2 + i % 7, .group = random_group(s, in), .middle = i % 3 == 2};
        eqi_dtype dtype = s->b->f64 && i % 4 == 0 ? EQI_F64 : EQI_F32;
        suite_begin(s, "N=%lld K=%lld bits %d group %lld %s%s", (long long)out, (long long)in,
                    q.bits, (long long)q.group, eqi_dtype_name(dtype), q.middle ? " middle" : "");
        arguments(s, &q, dtype, out, in);
        counts(s, &q, dtype, in, i % 2);
        s->arg[S].match = s->arg[Z].match = JUDGED;
        s->judge = judge;
        weights(s, &s->arg[W], q.group, true);
        suite_run(s, call_mse, again_mse, &q);
    }
}

static double drawn(suite *s, int kind, int64_t at)
{
    double x = suite_normal(s);
    if (kind == 0) return x * x * x;
    if (kind == 2) return x + 1.0;
    if (kind == 3 && at == 5) return x - 20.0;
    if (kind == 3 && at == 40) return x + 20.0;
    return kind == 4 ? 1.0 + 0.02 * x : x;
}

static void mse_optimum(suite *s, bool middle, bool weighted)
{
    static const char *const kinds[] = {"long tails", "normal", "shifted", "an outlier at each end",
                                        "on one side"};
    for (int bits = 2; bits <= 4; bits++)
        for (int kind = 0; kind < 5; kind++) {
            eqi_quant_desc q = {.bits = bits, .group = 64, .middle = middle};
            suite_begin(s, "the optimum, %d bits, %s%s%s", q.bits, kinds[kind],
                        q.middle ? ", middle" : "", weighted ? ", weighted" : "");
            arguments(s, &q, EQI_F32, 2, 256);
            counts(s, &q, EQI_F32, 256, !weighted);
            s->arg[S].match = s->arg[Z].match = JUDGED;
            s->judge = judge;
            for (int64_t e = 0; e < s->arg[W].count; e++)
                arg_set(&s->arg[W], e, 0.02 * drawn(s, kind, e % 64));
            suite_run(s, call_mse, again_optimum, &q);
        }
}

/* An outlier that counts next to nothing: from the s of minmax down to an eighth of it all other
 * codes are 0, and no s is better than the one before. */
static void mse_plateau(suite *s)
{
    const double w = (double)0.02f, h = (double)1e-6f;
    eqi_quant_desc q = {.bits = 2, .group = 4};
    suite_begin(s, "a plateau");
    arguments(s, &q, EQI_F32, 1, 4);
    counts(s, &q, EQI_F32, 4, false);
    s->arg[S].match = s->arg[Z].match = EXACT;
    arg_values(&s->arg[W], (double[]){1, w, -w, w});
    arg_values(&s->arg[H], (double[]){h, 1, 1, 1});
    known_run(s, call_mse, &q, (double[]){(double)(float)((2 * h + 3 * w) / (4 * h + 3)), 1});
}

/* What is not finite, and what is zero, is treated as minmax does. */
static void mse_known(suite *s)
{
    eqi_quant_desc q = {.bits = 2, .group = 2};
    suite_begin(s, "by hand");
    arguments(s, &q, EQI_F32, 1, 8);
    counts(s, &q, EQI_F32, 8, true);
    s->arg[S].match = s->arg[Z].match = EXACT;
    arg_values(&s->arg[W], (double[]){0, 0, NAN, 1, -INFINITY, 1, -1, 2});
    known_run(s, call_mse, &q, (double[]){(double)1e-4f, NAN, NAN, 1, 0, NAN, NAN, 1});
    q.middle = true; /* -1, 2: codes 0 and 3 around 1; 1, -2: 3 and 0 around 2 */
    suite_begin(s, "by hand, middle");
    arguments(s, &q, EQI_F32, 1, 10);
    counts(s, &q, EQI_F32, 10, true);
    s->arg[S].match = s->arg[Z].match = EXACT;
    arg_values(&s->arg[W], (double[]){0, 0, NAN, 1, -INFINITY, 1, -1, 2, 1, -2});
    known_run(s, call_mse, &q, (double[]){(double)1e-4f, NAN, NAN, 1, 1, 1, NAN, NAN, 1, 2});
    for (int i = 0; i < 4; i++) mse_optimum(s, i & 1, i & 2);
    mse_plateau(s);
}

static void bench_of(suite *s, suite_call call, int64_t out)
{
    eqi_quant_desc q = {.bits = 2, .group = 64};
    suite_begin(s, "N=%lld K=576 bits 2 group 64", (long long)out);
    arguments(s, &q, EQI_F32, out, 576);
    if (call == call_mse) counts(s, &q, EQI_F32, 576, true);
    arg_normal(s, &s->arg[W], 0.02);
    s->bytes = (double)out * 576 * 4;
    suite_run(s, call, NULL, &q);
}

static void bench_minmax(suite *s) { bench_of(s, call_minmax, 1536); }
static void bench_mse(suite *s) { bench_of(s, call_mse, 192); }

const kernel_check check_init[] = {
    {"init_minmax", minmax, minmax_known, bench_minmax},
    {"init_mse", mse, mse_known, bench_mse},
    {0},
};
