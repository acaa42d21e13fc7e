#include "plain.h"

enum { WIDEST = 1200 }; /* 37 rows of it are several pieces */

static double log_sum_exp(const double *x, int64_t n)
{
    double top = -INFINITY, sum = 0.0;
    for (int64_t i = 0; i < n; i++) top = fmax(top, x[i]);
    for (int64_t i = 0; i < n; i++) sum += exp(x[i] - top);
    return top + log(sum);
}

/* x, target and labels of R rows; some rows are masked, or labels are absent. */
static void arguments(suite *s, eqi_dtype dtype, int64_t rows, int64_t width, double spread)
{
    arg_normal(s, suite_arg(s, "x", IN, CONTIGUOUS, dtype, DIMS(rows, width)), spread);
    arg_normal(s, suite_arg(s, "target", IN, CONTIGUOUS, dtype, DIMS(rows, width)), spread);
    int masked = s->bench ? 0 : (int)suite_pick(s, 0, 3);
    if (!masked) {
        suite_absent(s, "labels");
        return;
    }
    arg *labels = suite_arg(s, "labels", IN, CONTIGUOUS, EQI_I32, DIMS(rows));
    arg_whole(s, labels, 0, 9);
    arg_sprinkle(s, labels, masked == 1 ? -1 : -100, masked == 3 ? 1 : 3);
}

static bool counts(const arg *labels, int64_t row)
{
    return labels->absent || labels->in[row] >= 0;
}

static eqi_dtype logits_dtype(suite *s) { return suite_master_dtype(suite_compute_dtype(s)); }

/* ---- kl_divergence ---- */
enum { STATS, LSE, X, TARGET, LABELS };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    (void)p;
    return b->kl_divergence(ctx, v[STATS], v[LSE], v[X], v[TARGET], v[LABELS]);
}

static void put_lse(arg *lse, int64_t at, double value, double count)
{
    lse->again[at] = value;
    lse->mag[at] = 1.0 + fabs(value) + log(count);
}

static void again(suite *s, const void *params)
{
    (void)params;
    arg *stats = &s->arg[STATS], *lse = &s->arg[LSE];
    int64_t rows = s->arg[X].v.shape[0], n = s->arg[X].v.shape[1];
    plain_start(stats);
    for (int64_t r = 0; r < rows; r++) {
        const double *x = s->arg[X].in + r * n, *target = s->arg[TARGET].in + r * n;
        double of_p = log_sum_exp(target, n), of_q = log_sum_exp(x, n);
        put_lse(lse, 2 * r, of_p, (double)n);
        put_lse(lse, 2 * r + 1, of_q, (double)n);
        if (!counts(&s->arg[LABELS], r)) continue;
        plain_term(stats, 1, 1.0);
        for (int64_t i = 0; i < n; i++) {
            double p = exp(target[i] - of_p);
            plain_term(stats, 0, p * (target[i] - of_p));
            plain_term(stats, 0, p * (of_q - x[i]));
            stats->mag[0] += p * (1.0 + fabs(of_p) + fabs(of_q) + fabs(target[i]) + fabs(x[i])) *
                (1.0 + fabs(target[i] - of_p - x[i] + of_q));
        }
    }
}

static void kl_divergence(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t rows = odd_rows(s), width = odd_size(s, 257);
        if (i % 5 == 4) rows = 37, width = WIDEST;
        eqi_dtype dtype = logits_dtype(s);
        double spread = i % 3 ? 2.0 : 30.0;
        suite_begin(s, "[%lld, %lld] %s logits %g", (long long)rows, (long long)width,
                    eqi_dtype_name(dtype), spread);
        suite_arg(s, "stats", OUT, CONTIGUOUS, dtype, DIMS(2));
        suite_arg(s, "lse", OUT, CONTIGUOUS, dtype, DIMS(rows, 2));
        arguments(s, dtype, rows, width, spread);
        suite_run(s, call, again, NULL);
    }
}

/* p = 1/4, 3/4 against q = 1/2, 1/2; and a masked row. */
static void kl_divergence_known(suite *s)
{
    double ln3 = (double)(float)1.0986122886681098, e = exp(ln3), p = e / (1 + e);
    suite_begin(s, "by hand");
    suite_arg(s, "stats", OUT, CONTIGUOUS, EQI_F32, DIMS(2));
    suite_arg(s, "lse", OUT, CONTIGUOUS, EQI_F32, DIMS(2, 2));
    arg_values(suite_arg(s, "x", IN, CONTIGUOUS, EQI_F32, DIMS(2, 2)), (double[]){5, 5, 0, 1});
    arg_values(suite_arg(s, "target", IN, CONTIGUOUS, EQI_F32, DIMS(2, 2)),
               (double[]){0, ln3, 7, 7});
    arg_values(suite_arg(s, "labels", IN, CONTIGUOUS, EQI_I32, DIMS(2)), (double[]){0, -100});
    known_run(s, call, NULL,
              (double[]){log(2) + p * log(p) + (1 - p) * log(1 - p), 1, log(1 + e), 5 + log(2),
                         7 + log(2), log(1 + exp(1))});
}

static void bench(suite *s)
{
    suite_begin(s, "f32 [512, 49152]");
    suite_arg(s, "stats", OUT, CONTIGUOUS, EQI_F32, DIMS(2));
    suite_arg(s, "lse", OUT, CONTIGUOUS, EQI_F32, DIMS(512, 2));
    arguments(s, EQI_F32, 512, 49152, 2.0);
    s->bytes = 512.0 * 49152 * 2 * 4;
    suite_run(s, call, NULL, NULL);
}

/* ---- kl_divergence_bwd ---- */
enum { DX, FACTOR, BLSE, BX, BTARGET, BLABELS };

static eqat_status call_bwd(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    return b->kl_divergence_bwd(ctx, v[DX], v[FACTOR], v[BLSE], v[BX], v[BTARGET], v[BLABELS],
                                *(const bool *)p);
}

static void again_bwd(suite *s, const void *params)
{
    (void)params;
    arg *dx = &s->arg[DX];
    int64_t rows = dx->v.shape[0], n = dx->v.shape[1];
    double f = s->arg[FACTOR].in[0];
    plain_start(dx);
    for (int64_t r = 0; r < rows; r++) {
        double of_p = s->arg[BLSE].in[2 * r], of_q = s->arg[BLSE].in[2 * r + 1];
        for (int64_t i = r * n; i < r * n + n; i++) {
            double target = s->arg[BTARGET].in[i], x = s->arg[BX].in[i], p = exp(target - of_p),
                   q = exp(x - of_q);
            if (!counts(&s->arg[BLABELS], r)) continue;
            plain_term(dx, i, f * (q - p));
            dx->mag[i] += fabs(f) *
                (p * (1.0 + fabs(target) + fabs(of_p)) + q * (1.0 + fabs(x) + fabs(of_q)));
        }
    }
}

static void arguments_bwd(suite *s, eqi_dtype dtype, int64_t rows, int64_t width, double spread,
                          bool acc)
{
    arg *dx = suite_arg(s, "dx", acc ? ACC : OUT, CONTIGUOUS, dtype, DIMS(rows, width));
    if (acc) arg_normal(s, dx, 1.0);
    arg_normal(s, suite_arg(s, "factor", IN, CONTIGUOUS, dtype, DIMS(1)), 1.0);
    suite_arg(s, "lse", IN, CONTIGUOUS, dtype, DIMS(rows, 2));
    arguments(s, dtype, rows, width, spread);
    double row[WIDEST];
    for (int64_t r = 0; r < rows; r++)
        for (int i = 0; i < 2; i++) {
            for (int64_t j = 0; j < width; j++)
                row[j] = arg_value(&s->arg[i ? BX : BTARGET], r * width + j);
            arg_set(&s->arg[BLSE], 2 * r + i, log_sum_exp(row, width));
        }
}

static void kl_divergence_bwd(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t rows = odd_rows(s), width = odd_size(s, 257);
        if (i % 5 == 4) rows = 37, width = WIDEST;
        eqi_dtype dtype = logits_dtype(s);
        double spread = i % 3 ? 2.0 : 30.0;
        bool acc = suite_coin(s);
        suite_begin(s, "[%lld, %lld] %s%s logits %g", (long long)rows, (long long)width,
                    eqi_dtype_name(dtype), acc ? " acc" : "", spread);
        arguments_bwd(s, dtype, rows, width, spread, acc);
        suite_run(s, call_bwd, again_bwd, &acc);
    }
}

static void bench_bwd(suite *s)
{
    bool acc = false;
    suite_begin(s, "f32 [8192, 1200]");
    arguments_bwd(s, EQI_F32, 8192, WIDEST, 2.0, acc);
    s->bytes = 8192.0 * WIDEST * 3 * 4;
    suite_run(s, call_bwd, NULL, &acc);
}

const kernel_check check_kl_divergence[] = {
    {"kl_divergence", kl_divergence, kl_divergence_known, bench},
    {"kl_divergence_bwd", kl_divergence_bwd, NULL, bench_bwd},
    {0}};
