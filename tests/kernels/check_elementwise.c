#include "plain.h"

typedef struct params {
    double alpha, beta;
    bool acc;
} params;

/* Every other case is one for kernels that move 16 bytes at a time. */
static bool is_whole(int i) { return i % 2 == 1; }

static int64_t random_shape(suite *s, int64_t *shape, bool whole)
{
    int64_t n = suite_pick(s, 1, whole ? 3 : 4);
    for (int64_t d = 0; d < n; d++) shape[d] = n < 3 ? odd_size(s, 130) : suite_pick(s, 1, 9);
    if (whole && suite_pick(s, 0, 3)) shape[n - 1] = 8 * suite_pick(s, 1, 17);
    if (suite_pick(s, 0, 15) == 0) shape[0] = 0;
    return n;
}

/* ---- fill ---- */
static eqat_status call_fill(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                             const void *p)
{
    return b->fill(ctx, v[0], ((const params *)p)->alpha);
}

static void again_fill(suite *s, const void *p)
{
    double value = ((const params *)p)->alpha;
    for (int64_t i = 0; i < s->arg[0].count; i++)
        s->arg[0].again[i] =
            eqi_dtype_is_float(s->arg[0].v.dtype) ? round_to(s->arg[0].v.dtype, value) : value;
}

static void fill(suite *s)
{
    static const double values[] = {0.0, 1.0, 3.0, 255.0, -0.0, -7.0, 0.1, 1e30, INFINITY, NAN};
    for (int i = 0; i < s->cases; i++) {
        eqi_dtype dtype =
            is_whole(i) ? suite_compute_dtype(s) : (eqi_dtype)suite_pick(s, 0, EQI_DTYPE_COUNT - 1);
        if (dtype == EQI_F64 && !s->b->f64) continue;
        int64_t shape[4], n = random_shape(s, shape, is_whole(i));
        int most = eqi_dtype_is_float(dtype) ? 9 : 3;
        params p = {.alpha = values[suite_pick(s, 0, most)]};
        suite_begin(s, "%s %g", eqi_dtype_name(dtype), p.alpha);
        s->aligned |= is_whole(i);
        arg_layout layout = is_whole(i) ? ROWS : STRIDED;
        suite_arg(s, "y", OUT, layout, dtype, (int)n, shape)->match = EXACT;
        suite_run(s, call_fill, again_fill, &p);
    }
}

static void bench_fill(suite *s)
{
    suite_begin(s, "f32 [4194304]");
    suite_arg(s, "y", OUT, CONTIGUOUS, EQI_F32, DIMS(4194304));
    s->bytes = 4194304 * 4.0;
    suite_run(s, call_fill, NULL, &(params){.alpha = 0.0});
}

/* ---- copy ---- */
static eqat_status call_copy(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                             const void *p)
{
    (void)p;
    return b->copy(ctx, v[0], v[1]);
}

static void again_copy(suite *s, const void *p)
{
    (void)p;
    arg *y = &s->arg[0], *x = &s->arg[1];
    for (int64_t i = 0; i < y->count; i++) {
        double v = x->in[i];
        bool whole = !eqi_dtype_is_float(y->v.dtype);
        if (whole && eqi_dtype_is_float(x->v.dtype)) {
            double lo = y->v.dtype == EQI_U8 ? 0 : -2147483648.0,
                   hi = y->v.dtype == EQI_U8 ? 255 : 2147483647.0;
            v = isnan(v) ? 0.0 : rint(v) + 0.0;
            v = v < lo ? lo : v > hi ? hi : v;
        }
        y->again[i] = whole ? v : round_to(y->v.dtype, v);
    }
}

static void copy(suite *s)
{
    static const eqi_dtype pairs[][2] = {
        {EQI_F32, EQI_F32},   {EQI_F32, EQI_BF16}, {EQI_F32, EQI_F16}, {EQI_BF16, EQI_F32},
        {EQI_BF16, EQI_BF16}, {EQI_BF16, EQI_F16}, {EQI_F16, EQI_F32}, {EQI_F16, EQI_BF16},
        {EQI_F16, EQI_F16},   {EQI_I32, EQI_I32},  {EQI_U8, EQI_U8},   {EQI_U32, EQI_U32},
        {EQI_F32, EQI_U8},    {EQI_U8, EQI_F32},   {EQI_F32, EQI_I32}, {EQI_I32, EQI_F32},
        {EQI_F64, EQI_F64},   {EQI_F64, EQI_F32},  {EQI_F32, EQI_F64},
    };
    static const double odd[] = {0.5,    1.5,          2.5,       -0.5, -0.0,       254.5,
                                 255.5,  300.0,        -3.0,      1e30, -1e30,      INFINITY,
                                 NAN,    65519.0,      65520.0,   1e-8, 1.00390625, 1.01171875,
                                 3.4e38, 2147483647.0, 16777217.0};
    size_t kinds = EQI_COUNT(pairs) - (s->b->f64 ? 0 : 3);
    for (int i = 0; i < s->cases * 2; i++) {
        const eqi_dtype *pair = pairs[(size_t)i % kinds];
        bool whole = is_whole(i + i / (int)kinds);
        int64_t shape[4], n = random_shape(s, shape, whole);
        suite_begin(s, "%s from %s", eqi_dtype_name(pair[0]), eqi_dtype_name(pair[1]));
        s->aligned |= whole;
        arg_layout layout = whole ? ROWS : STRIDED;
        suite_arg(s, "y", OUT, layout, pair[0], (int)n, shape)->match = EXACT;
        arg *x = suite_arg(s, "x", IN, layout, pair[1], (int)n, shape);
        for (int64_t e = 0; e < x->count; e++) {
            double v = suite_coin(s) ? odd[suite_pick(s, 0, (int64_t)EQI_COUNT(odd) - 1)]
                                     : 100.0 * suite_normal(s);
            bool is_unsigned = pair[1] == EQI_U8 || pair[1] == EQI_U32;
            arg_set(x, e,
                    !eqi_dtype_is_float(pair[1]) && isfinite(v)
                        ? fmod(fabs(v), 256.0) * (is_unsigned || v > 0 ? 1 : -1)
                        : eqi_dtype_is_float(pair[1]) ? v
                                                      : 0.0);
        }
        suite_run(s, call_copy, again_copy, NULL);
    }
}

static void bench_copy(suite *s)
{
    suite_begin(s, "bf16 from f32 [4194304]");
    suite_arg(s, "y", OUT, CONTIGUOUS, EQI_BF16, DIMS(4194304));
    arg_normal(s, suite_arg(s, "x", IN, CONTIGUOUS, EQI_F32, DIMS(4194304)), 1.0);
    s->bytes = 4194304 * 6.0;
    suite_run(s, call_copy, NULL, NULL);
}

/* ---- axpby ---- */
enum { Y, A, B };

static eqat_status call_axpby(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                              const void *p)
{
    const params *q = p;
    return b->axpby(ctx, v[Y], q->alpha, v[A], q->beta, v[B]);
}

static void again_axpby(suite *s, const void *p)
{
    const params *q = p;
    plain_start(&s->arg[Y]);
    for (int64_t i = 0; i < s->arg[Y].count; i++) {
        plain_term(&s->arg[Y], i, q->alpha * s->arg[A].in[i]);
        if (!s->arg[B].absent) plain_term(&s->arg[Y], i, q->beta * s->arg[B].in[i]);
    }
}

static eqi_dtype either(suite *s, bool wide)
{
    return wide ? EQI_F64 : suite_coin(s) ? EQI_F32 : EQI_BF16;
}

static void axpby(suite *s)
{
    static const double factors[] = {1.0, 1.0, 0.0, -1.0, 0.1, 1e-3, 3.0};
    for (int i = 0; i < s->cases; i++) {
        int64_t shape[4], n = random_shape(s, shape, is_whole(i));
        bool wide = s->b->f64 && i % 4 == 0;
        params p = {.alpha = factors[suite_pick(s, 0, 6)], .beta = factors[suite_pick(s, 0, 6)]};
        int alias = (int)suite_pick(s, 0, 2);
        eqi_dtype y = either(s, wide), a = alias == A ? y : either(s, wide),
                  b = alias == B ? y : either(s, wide);
        arg_layout layout = is_whole(i) ? ROWS : STRIDED;
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        suite_begin(s, "%s = %g %s + %g %s, alias %d, %s", eqi_dtype_name(y), p.alpha,
                    eqi_dtype_name(a), p.beta, eqi_dtype_name(b), alias, flavour_name(f));
        s->aligned |= is_whole(i);
        suite_arg(s, "y", OUT, layout, y, (int)n, shape);
        arg_flavour(s, suite_arg(s, "a", IN, layout, a, (int)n, shape), f);
        if (alias != B && suite_pick(s, 0, 3) == 0)
            suite_absent(s, "b");
        else
            arg_flavour(s, suite_arg(s, "b", IN, layout, b, (int)n, shape), f);
        if (alias) s->arg[Y].alias = alias;
        suite_run(s, call_axpby, again_axpby, &p);
    }
}

static void bench_axpby(suite *s)
{
    for (int i = 0; i < 2; i++) {
        eqi_dtype dtype = i ? EQI_BF16 : EQI_F32;
        suite_begin(s, "%s [4194304]", eqi_dtype_name(dtype));
        suite_arg(s, "y", OUT, CONTIGUOUS, dtype, DIMS(4194304));
        arg_normal(s, suite_arg(s, "a", IN, CONTIGUOUS, dtype, DIMS(4194304)), 1.0);
        arg_normal(s, suite_arg(s, "b", IN, CONTIGUOUS, dtype, DIMS(4194304)), 1.0);
        s->bytes = 4194304 * 3.0 * (double)eqi_dtype_size(dtype);
        suite_run(s, call_axpby, NULL, &(params){.alpha = 1.0, .beta = 1.0});
    }
}

/* ---- mul ---- */
static eqat_status call_mul(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    return b->mul(ctx, v[Y], v[A], v[B], ((const params *)p)->acc);
}

static void again_mul(suite *s, const void *p)
{
    (void)p;
    plain_start(&s->arg[Y]);
    for (int64_t i = 0; i < s->arg[Y].count; i++)
        plain_term(&s->arg[Y], i, s->arg[A].in[i] * s->arg[B].in[i]);
}

static void mul(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t shape[4], n = random_shape(s, shape, is_whole(i));
        eqi_dtype dtype = suite_compute_dtype(s);
        arg_layout layout = is_whole(i) ? ROWS : STRIDED;
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        params p = {.acc = suite_coin(s)};
        suite_begin(s, "%s%s, %s", eqi_dtype_name(dtype), p.acc ? " acc" : "", flavour_name(f));
        s->aligned |= is_whole(i);
        arg *y = suite_arg(s, "y", p.acc ? ACC : OUT, layout, dtype, (int)n, shape);
        if (p.acc) arg_normal(s, y, 1.0);
        arg_flavour(s, suite_arg(s, "a", IN, layout, dtype, (int)n, shape), f);
        arg_flavour(s, suite_arg(s, "b", IN, layout, dtype, (int)n, shape), NORMAL);
        suite_run(s, call_mul, again_mul, &p);
    }
}

/* ---- scale_by, ratio ---- */
enum { X = 1, FACTOR = 2 };

static eqat_status call_scale_by(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                                 const void *p)
{
    return b->scale_by(ctx, v[Y], v[X], v[FACTOR], ((const params *)p)->acc);
}

static void again_scale_by(suite *s, const void *p)
{
    (void)p;
    plain_start(&s->arg[Y]);
    for (int64_t i = 0; i < s->arg[Y].count; i++)
        plain_term(&s->arg[Y], i, s->arg[FACTOR].in[0] * s->arg[X].in[i]);
}

static void scale_by(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t shape[4], n = random_shape(s, shape, is_whole(i));
        bool wide = s->b->f64 && i % 4 == 0, alias = suite_pick(s, 0, 3) == 0;
        eqi_dtype y = either(s, wide), x = alias ? y : either(s, wide);
        params p = {.acc = !alias && suite_coin(s)};
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        suite_begin(s, "%s from %s%s%s, %s", eqi_dtype_name(y), eqi_dtype_name(x),
                    p.acc ? " acc" : "", alias ? " in place" : "", flavour_name(f));
        s->aligned |= is_whole(i);
        arg *out = suite_arg(s, "y", p.acc ? ACC : OUT, CONTIGUOUS, y, (int)n, shape);
        if (p.acc) arg_normal(s, out, 1.0);
        arg_flavour(s, suite_arg(s, "x", IN, CONTIGUOUS, x, (int)n, shape), f);
        arg_normal(s, suite_arg(s, "factor", IN, CONTIGUOUS, wide ? EQI_F64 : EQI_F32, DIMS(1)),
                   1.0);
        if (alias) s->arg[Y].alias = X;
        suite_run(s, call_scale_by, again_scale_by, &p);
    }
}

static eqat_status call_ratio(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                              const void *p)
{
    (void)p;
    return b->ratio(ctx, v[Y], v[A], v[B]);
}

static void ratio(suite *s)
{
    static const double cases[][3] = {{6, 3, 2},
                                      {5, 0, 5},
                                      {0, 0, 0},
                                      {-1, 8, -0.125},
                                      {1, 0.25, 1},
                                      {NAN, 4, NAN},
                                      {INFINITY, 2, INFINITY}};
    for (size_t i = 0; i < EQI_COUNT(cases); i++)
        for (int wide = 0; wide <= s->b->f64; wide++) {
            suite_begin(s, "%g / %g", cases[i][0], cases[i][1]);
            arg *y = suite_arg(s, "y", OUT, CONTIGUOUS, wide ? EQI_F64 : EQI_F32, DIMS(1));
            y->match = EXACT;
            arg_values(suite_arg(s, "a", IN, CONTIGUOUS, y->v.dtype, DIMS(1)), &cases[i][0]);
            arg_values(suite_arg(s, "b", IN, CONTIGUOUS, y->v.dtype, DIMS(1)), &cases[i][1]);
            known_run(s, call_ratio, NULL, &cases[i][2]);
        }
}

const kernel_check check_elementwise[] = {
    {"fill", fill, NULL, bench_fill},
    {"copy", copy, NULL, bench_copy},
    {"axpby", axpby, NULL, bench_axpby},
    {"mul", mul, NULL, NULL},
    {"scale_by", scale_by, NULL, NULL},
    {"ratio", NULL, ratio, NULL},
    {0},
};
