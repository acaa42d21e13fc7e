#include "checks.h"

static void gates(suite *s, arg *a)
{
    static const double odd[] = {0.0,    -0.0, 20.0, -20.0, 88.0,   -88.0, 104.0,
                                 -104.0, 1e4,  -1e4, 1e-20, -1e-20, NAN};
    for (int64_t i = 0; i < a->count; i++)
        arg_set(a, i,
                suite_pick(s, 0, 5) ? 2.0 * suite_normal(s)
                                    : odd[suite_pick(s, 0, (int64_t)EQI_COUNT(odd) - 1)]);
}

/* ---- silu_mul ---- */
enum { Y, GATE, UP };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    (void)p;
    return b->silu_mul(ctx, v[Y], v[GATE], v[UP]);
}

static double logistic(double g)
{
    return g < 0.0 ? exp(g) / (1.0 + exp(g)) : 1.0 / (1.0 + exp(-g));
}

static void again(suite *s, const void *p)
{
    (void)p;
    for (int64_t i = 0; i < s->arg[Y].count; i++) {
        double g = s->arg[GATE].in[i], u = s->arg[UP].in[i];
        s->arg[Y].again[i] = g * logistic(g) * u;
    }
}

static void silu_mul(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t rows = odd_rows(s), width = odd_size(s, 257);
        eqi_dtype dtype = suite_compute_dtype(s);
        suite_begin(s, "R=%lld H=%lld %s", (long long)rows, (long long)width,
                    eqi_dtype_name(dtype));
        suite_arg(s, "y", OUT, ROWS, dtype, DIMS(rows, width));
        gates(s, suite_arg(s, "gate", IN, ROWS, dtype, DIMS(rows, width)));
        arg_normal(s, suite_arg(s, "up", IN, ROWS, dtype, DIMS(rows, width)), 1.0);
        suite_run(s, call, again, NULL);
    }
}

/* logistic(ln 3) = 3/4 */
static void silu_mul_known(suite *s)
{
    suite_begin(s, "by hand");
    suite_arg(s, "y", OUT, CONTIGUOUS, EQI_F32, DIMS(1, 3));
    arg_values(suite_arg(s, "gate", IN, CONTIGUOUS, EQI_F32, DIMS(1, 3)), (double[]){0, 1, -1});
    arg_values(suite_arg(s, "up", IN, CONTIGUOUS, EQI_F32, DIMS(1, 3)), (double[]){7, 2, 2});
    known_run(s, call, NULL, (double[]){0, 1.4621171572600098, -0.53788284273999024});
}

static void bench(suite *s)
{
    for (int i = 0; i < 2; i++) {
        eqi_dtype dtype = i ? EQI_BF16 : EQI_F32;
        suite_begin(s, "%s R=2048 H=1536", eqi_dtype_name(dtype));
        suite_arg(s, "y", OUT, ROWS, dtype, DIMS(2048, 1536));
        arg_normal(s, suite_arg(s, "gate", IN, ROWS, dtype, DIMS(2048, 1536)), 2.0);
        arg_normal(s, suite_arg(s, "up", IN, ROWS, dtype, DIMS(2048, 1536)), 1.0);
        s->bytes = 2048.0 * 1536 * 3 * (double)eqi_dtype_size(dtype);
        suite_run(s, call, NULL, NULL);
    }
}

/* ---- silu_mul_bwd ---- */
enum { DGATE, DUP, DY, BGATE, BUP };

static eqat_status call_bwd(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    (void)p;
    return b->silu_mul_bwd(ctx, v[DGATE], v[DUP], v[DY], v[BGATE], v[BUP]);
}

static void again_bwd(suite *s, const void *p)
{
    (void)p;
    for (int64_t i = 0; i < s->arg[DY].count; i++) {
        double g = s->arg[BGATE].in[i], u = s->arg[BUP].in[i], d = s->arg[DY].in[i],
               l = logistic(g), rest = logistic(-g);
        s->arg[DGATE].again[i] = d * u * (l + g * l * rest);
        s->arg[DGATE].mag[i] = fabs(d * u) * (l + fabs(g) * l * rest);
        s->arg[DUP].again[i] = d * g * l;
    }
}

static void silu_mul_bwd(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        int64_t rows = odd_rows(s), width = odd_size(s, 257);
        eqi_dtype dtype = suite_compute_dtype(s);
        int first = (int)suite_pick(s, -1, 2), second = (int)suite_pick(s, -1, 2);
        if (first == second) second = -1;
        suite_begin(s, "R=%lld H=%lld %s alias %d %d", (long long)rows, (long long)width,
                    eqi_dtype_name(dtype), first, second);
        suite_arg(s, "dgate", OUT, ROWS, dtype, DIMS(rows, width));
        suite_arg(s, "dup", OUT, ROWS, dtype, DIMS(rows, width));
        arg_normal(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(rows, width)), 1.0);
        gates(s, suite_arg(s, "gate", IN, ROWS, dtype, DIMS(rows, width)));
        arg_normal(s, suite_arg(s, "up", IN, ROWS, dtype, DIMS(rows, width)), 1.0);
        if (first >= 0) s->arg[DGATE].alias = DY + first;
        if (second >= 0) s->arg[DUP].alias = DY + second;
        suite_run(s, call_bwd, again_bwd, NULL);
    }
}

static void bench_bwd(suite *s)
{
    for (int i = 0; i < 2; i++) {
        eqi_dtype dtype = i ? EQI_BF16 : EQI_F32;
        suite_begin(s, "%s R=2048 H=1536", eqi_dtype_name(dtype));
        suite_arg(s, "dgate", OUT, ROWS, dtype, DIMS(2048, 1536));
        suite_arg(s, "dup", OUT, ROWS, dtype, DIMS(2048, 1536));
        arg_normal(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(2048, 1536)), 1.0);
        arg_normal(s, suite_arg(s, "gate", IN, ROWS, dtype, DIMS(2048, 1536)), 2.0);
        arg_normal(s, suite_arg(s, "up", IN, ROWS, dtype, DIMS(2048, 1536)), 1.0);
        s->bytes = 2048.0 * 1536 * 5 * (double)eqi_dtype_size(dtype);
        suite_run(s, call_bwd, NULL, NULL);
    }
}

const kernel_check check_silu_mul[] = {
    {"silu_mul", silu_mul, silu_mul_known, bench},
    {"silu_mul_bwd", silu_mul_bwd, NULL, bench_bwd},
    {0},
};
