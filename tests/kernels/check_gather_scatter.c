#include "plain.h"

/* The arguments of all three. */
enum { X, Y, WEIGHTS, ROW, SLOT };

static double weight(const suite *s, int64_t i)
{
    if (s->arg[WEIGHTS].absent) return 1.0;
    int64_t k = s->arg[WEIGHTS].v.shape[1];
    return s->arg[WEIGHTS].in[(int64_t)s->arg[ROW].in[i] * k + (int64_t)s->arg[SLOT].in[i]];
}

static arg *filled(suite *s, const char *name, arg_role role, eqi_dtype dtype, int64_t rows,
                   int64_t width, bool contiguous)
{
    arg *a = suite_arg(s, name, role, contiguous ? CONTIGUOUS : ROWS, dtype, DIMS(rows, width));
    if (role != OUT) arg_normal(s, a, 1.0);
    return a;
}

/* roles of x, y and weights; the last may be absent where it is only read */
static void arguments(suite *s, arg_role x, arg_role y, arg_role weights)
{
    int64_t rows = suite_pick(s, 1, 40), n = odd_rows(s), width = odd_size(s, 257),
            k = suite_pick(s, 1, 8);
    bool plain = weights == IN && suite_coin(s);
    eqi_dtype dtype = suite_compute_dtype(s);
    suite_begin(s, "R=%lld n=%lld H=%lld k=%lld %s", (long long)rows, (long long)n,
                (long long)width, (long long)(plain ? 0 : k), eqi_dtype_name(dtype));
    filled(s, "x", x, dtype, rows, width, false);
    filled(s, "y", y, dtype, n, width, false);
    if (plain)
        suite_absent(s, "weights");
    else
        filled(s, "weights", weights, suite_master_dtype(dtype), rows, k, true);
    arg_whole(s, suite_arg(s, "row", IN, CONTIGUOUS, EQI_I32, DIMS(n)), 0, rows - 1);
    if (plain)
        suite_absent(s, "slot");
    else
        arg_whole(s, suite_arg(s, "slot", IN, CONTIGUOUS, EQI_I32, DIMS(n)), 0, k - 1);
}

/* ---- gather_rows ---- */
static eqat_status call_gather(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                               const void *p)
{
    (void)p;
    return b->gather_rows(ctx, v[Y], v[X], v[ROW], v[SLOT], v[WEIGHTS]);
}

static void again_gather(suite *s, const void *p)
{
    (void)p;
    int64_t width = s->arg[Y].v.shape[1];
    for (int64_t i = 0; i < s->arg[Y].count; i++)
        s->arg[Y].again[i] = weight(s, i / width) *
            s->arg[X].in[(int64_t)s->arg[ROW].in[i / width] * width + i % width];
}

static void gather_rows(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        arguments(s, IN, OUT, IN);
        if (s->arg[WEIGHTS].absent) s->arg[Y].match = EXACT;
        suite_run(s, call_gather, again_gather, NULL);
    }
}

/* ---- scatter_rows ---- */
static eqat_status call_scatter(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                                const void *p)
{
    (void)p;
    return b->scatter_rows(ctx, v[X], v[Y], v[ROW], v[SLOT], v[WEIGHTS]);
}

/* Every sum is rounded, those of rows that come often, often. */
static void again_scatter(suite *s, const void *p)
{
    (void)p;
    int64_t width = s->arg[Y].v.shape[1], n = s->arg[Y].v.shape[0];
    plain_start(&s->arg[X]);
    for (int64_t i = 0; i < s->arg[Y].count; i++)
        plain_term(&s->arg[X], (int64_t)s->arg[ROW].in[i / width] * width + i % width,
                   weight(s, i / width) * s->arg[Y].in[i]);
    if (s->arg[X].v.dtype == EQI_BF16) s->arg[X].eps = (double)n * 0x1p-8;
}

static void scatter_rows(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        arguments(s, ACC, IN, IN);
        suite_run(s, call_scatter, again_scatter, NULL);
    }
}

/* 256 and 1 is 256 again in bf16, however often: each sum is rounded. */
static void scatter_known(suite *s)
{
    static const eqi_dtype dtypes[] = {EQI_F32, EQI_BF16};
    for (int i = 0; i < 2; i++) {
        suite_begin(s, "256 + 1 + 1 + 1 in %s", eqi_dtype_name(dtypes[i]));
        arg *x = suite_arg(s, "x", ACC, ROWS, dtypes[i], DIMS(2, 1));
        arg_values(x, (double[]){7, 256});
        x->match = EXACT;
        arg_values(suite_arg(s, "y", IN, ROWS, dtypes[i], DIMS(3, 1)), (double[]){1, 1, 1});
        suite_absent(s, "weights");
        arg_values(suite_arg(s, "row", IN, CONTIGUOUS, EQI_I32, DIMS(3)), (double[]){1, 1, 1});
        suite_absent(s, "slot");
        known_run(s, call_scatter, NULL, (double[]){7, i ? 256 : 259});
    }
}

/* ---- dot_rows ---- */
static eqat_status call_dot(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    (void)p;
    return b->dot_rows(ctx, v[WEIGHTS], v[X], v[Y], v[ROW], v[SLOT]);
}

static void again_dot(suite *s, const void *p)
{
    (void)p;
    int64_t width = s->arg[Y].v.shape[1], k = s->arg[WEIGHTS].v.shape[1];
    plain_start(&s->arg[WEIGHTS]);
    for (int64_t i = 0; i < s->arg[Y].count; i++) {
        int64_t r = (int64_t)s->arg[ROW].in[i / width];
        plain_term(&s->arg[WEIGHTS], r * k + (int64_t)s->arg[SLOT].in[i / width],
                   s->arg[X].in[r * width + i % width] * s->arg[Y].in[i]);
    }
}

static void dot_rows(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        arguments(s, IN, IN, ACC);
        suite_run(s, call_dot, again_dot, NULL);
    }
}

static void bench_of(suite *s, suite_call call, arg_role x, arg_role y, arg_role weights)
{
    suite_begin(s, "bf16 R=4096 n=512 H=2048 k=8");
    filled(s, "x", x, EQI_BF16, 4096, 2048, false);
    filled(s, "y", y, EQI_BF16, 512, 2048, false);
    filled(s, "weights", weights, EQI_F32, 4096, 8, true);
    arg_whole(s, suite_arg(s, "row", IN, CONTIGUOUS, EQI_I32, DIMS(512)), 0, 4095);
    arg_whole(s, suite_arg(s, "slot", IN, CONTIGUOUS, EQI_I32, DIMS(512)), 0, 7);
    s->bytes = 512 * 2048 * 4.0;
    suite_run(s, call, NULL, NULL);
}

static void bench_gather(suite *s) { bench_of(s, call_gather, IN, OUT, IN); }
static void bench_scatter(suite *s) { bench_of(s, call_scatter, ACC, IN, IN); }
static void bench_dot(suite *s) { bench_of(s, call_dot, IN, IN, ACC); }

const kernel_check check_gather_scatter[] = {
    {"gather_rows", gather_rows, NULL, bench_gather},
    {"scatter_rows", scatter_rows, scatter_known, bench_scatter},
    {"dot_rows", dot_rows, NULL, bench_dot},
    {0},
};
