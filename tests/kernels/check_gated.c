#include "plain.h"

static void gates(suite *s, arg *a)
{
    static const double odd[] = {0.0, -0.0, 20.0, -20.0, 88.0,  -88.0,  104.0, -104.0,
                                 1e4, -1e4, 1e20, -1e20, 1e-20, -1e-20, NAN};
    for (int64_t i = 0; i < a->count; i++)
        arg_set(a, i,
                suite_pick(s, 0, 5) ? 2.0 * suite_normal(s)
                                    : odd[suite_pick(s, 0, (int64_t)EQI_COUNT(odd) - 1)]);
}

/* ---- gated: params is the activation ---- */
enum { Y, GATE, UP };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->gated(ctx, v[Y], v[GATE], v[UP], *(const eqi_activation *)p);
}

static const char *const names[] = {"silu", "gelu_tanh"};

static double logistic(double g)
{
    return g < 0.0 ? exp(g) / (1.0 + exp(g)) : 1.0 / (1.0 + exp(-g));
}

/* activation(g), its slope, and how much they magnify a relative error of g. */
typedef struct point {
    double value, slope, value_mag, slope_mag;
} point;

static point silu(double g)
{
    double l = logistic(g), rest = logistic(-g);
    return (point){g * l, l + g * l * rest, fabs(g * l), l + fabs(g) * l * rest};
}

/* With the hyperbolic tangent as it is written: where 1 + tanh would cancel, by its exponential. */
static point gelu_tanh(double g)
{
    double root = sqrt(2.0 / acos(-1.0)), t = root * (g + 0.044715 * pow(g, 3.0)),
           dt = root * (1.0 + 3.0 * 0.044715 * g * g);
    double low = t < 0.0 ? 2.0 * exp(2.0 * t) / (1.0 + exp(2.0 * t)) : 1.0 + tanh(t), c = cosh(t),
           bend = isinf(c) ? 0.0 : 0.5 * g * dt / (c * c), mag = 1.0 + 2.0 * fmin(fabs(t), 50.0);
    if (isnan(g)) return (point){g, g, 0.0, 0.0};
    return (point){0.5 * g * low, 0.5 * low + bend, 0.5 * fabs(g) * low * mag,
                   (0.5 * low + fabs(bend)) * mag};
}

static point at(const void *p, double g)
{
    return *(const eqi_activation *)p == EQI_SILU ? silu(g) : gelu_tanh(g);
}

static void again(suite *s, const void *p)
{
    for (int64_t i = 0; i < s->arg[Y].count; i++) {
        point a = at(p, s->arg[GATE].in[i]);
        s->arg[Y].again[i] = a.value * s->arg[UP].in[i];
        s->arg[Y].mag[i] = a.value_mag * fabs(s->arg[UP].in[i]);
    }
}

static void gated(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t rows = odd_rows(s), width = odd_size(s, 257);
        eqi_dtype dtype = suite_compute_dtype(s);
        eqi_activation a = i % EQI_ACTIVATION_COUNT;
        suite_begin(s, "%s R=%lld H=%lld %s", names[a], (long long)rows, (long long)width,
                    eqi_dtype_name(dtype));
        suite_arg(s, "y", OUT, ROWS, dtype, DIMS(rows, width));
        gates(s, suite_arg(s, "gate", IN, ROWS, dtype, DIMS(rows, width)));
        arg_normal(s, suite_arg(s, "up", IN, ROWS, dtype, DIMS(rows, width)), 1.0);
        suite_run(s, call, again, &a);
    }
}

/* 0.5 * (1 + tanh(0.79788456 * 1.044715)) = 0.841192 */
static void gated_known(suite *s)
{
    static const double expected[][3] = {
        {0, 1.4621171572600098, -0.53788284273999024},
        {0, 1.6823839812165535, -0.3176160187834465},
    };
    for (int i = 0; i < EQI_ACTIVATION_COUNT; i++) {
        eqi_activation a = (eqi_activation)i;
        suite_begin(s, "%s by hand", names[i]);
        suite_arg(s, "y", OUT, CONTIGUOUS, EQI_F32, DIMS(1, 3));
        arg_values(suite_arg(s, "gate", IN, CONTIGUOUS, EQI_F32, DIMS(1, 3)), (double[]){0, 1, -1});
        arg_values(suite_arg(s, "up", IN, CONTIGUOUS, EQI_F32, DIMS(1, 3)), (double[]){7, 2, 2});
        known_run(s, call, &a, expected[i]);
    }
}

static void bench(suite *s)
{
    for (int i = 0; i < 4; i++) {
        eqi_dtype dtype = i % 2 ? EQI_BF16 : EQI_F32;
        eqi_activation a = (eqi_activation)(i / 2);
        suite_begin(s, "%s %s R=2048 H=1536", names[i / 2], eqi_dtype_name(dtype));
        suite_arg(s, "y", OUT, ROWS, dtype, DIMS(2048, 1536));
        arg_normal(s, suite_arg(s, "gate", IN, ROWS, dtype, DIMS(2048, 1536)), 2.0);
        arg_normal(s, suite_arg(s, "up", IN, ROWS, dtype, DIMS(2048, 1536)), 1.0);
        s->bytes = 2048.0 * 1536 * 3 * (double)eqi_dtype_size(dtype);
        suite_run(s, call, NULL, &a);
    }
}

/* ---- gated_bwd ---- */
enum { DGATE, DUP, DY, BGATE, BUP };

static eqat_status call_bwd(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    return b->gated_bwd(ctx, v[DGATE], v[DUP], v[DY], v[BGATE], v[BUP], *(const eqi_activation *)p);
}

static void again_bwd(suite *s, const void *p)
{
    for (int64_t i = 0; i < s->arg[DY].count; i++) {
        double u = s->arg[BUP].in[i], d = s->arg[DY].in[i];
        point a = at(p, s->arg[BGATE].in[i]);
        s->arg[DGATE].again[i] = d * u * a.slope;
        s->arg[DGATE].mag[i] = fabs(d * u) * a.slope_mag;
        s->arg[DUP].again[i] = d * a.value;
        s->arg[DUP].mag[i] = fabs(d) * a.value_mag;
    }
}

static void gated_bwd(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        int64_t rows = odd_rows(s), width = odd_size(s, 257);
        eqi_dtype dtype = suite_compute_dtype(s);
        eqi_activation a = i % EQI_ACTIVATION_COUNT;
        int first = (int)suite_pick(s, -1, 2), second = (int)suite_pick(s, -1, 2);
        if (first == second) second = -1;
        suite_begin(s, "%s R=%lld H=%lld %s alias %d %d", names[a], (long long)rows,
                    (long long)width, eqi_dtype_name(dtype), first, second);
        suite_arg(s, "dgate", OUT, ROWS, dtype, DIMS(rows, width));
        suite_arg(s, "dup", OUT, ROWS, dtype, DIMS(rows, width));
        arg_normal(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(rows, width)), 1.0);
        gates(s, suite_arg(s, "gate", IN, ROWS, dtype, DIMS(rows, width)));
        arg_normal(s, suite_arg(s, "up", IN, ROWS, dtype, DIMS(rows, width)), 1.0);
        if (first >= 0) s->arg[DGATE].alias = DY + first;
        if (second >= 0) s->arg[DUP].alias = DY + second;
        suite_run(s, call_bwd, again_bwd, &a);
    }
}

static void bench_bwd(suite *s)
{
    for (int i = 0; i < 4; i++) {
        eqi_dtype dtype = i % 2 ? EQI_BF16 : EQI_F32;
        eqi_activation a = (eqi_activation)(i / 2);
        suite_begin(s, "%s %s R=2048 H=1536", names[i / 2], eqi_dtype_name(dtype));
        suite_arg(s, "dgate", OUT, ROWS, dtype, DIMS(2048, 1536));
        suite_arg(s, "dup", OUT, ROWS, dtype, DIMS(2048, 1536));
        arg_normal(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(2048, 1536)), 1.0);
        arg_normal(s, suite_arg(s, "gate", IN, ROWS, dtype, DIMS(2048, 1536)), 2.0);
        arg_normal(s, suite_arg(s, "up", IN, ROWS, dtype, DIMS(2048, 1536)), 1.0);
        s->bytes = 2048.0 * 1536 * 5 * (double)eqi_dtype_size(dtype);
        suite_run(s, call_bwd, NULL, &a);
    }
}

const kernel_check check_gated[] = {
    {"gated", gated, gated_known, bench},
    {"gated_bwd", gated_bwd, NULL, bench_bwd},
    {0},
};
