#include <stdlib.h>

#include "plain.h"

typedef struct params {
    int64_t rows, out, in;
    bool acc;
} params;

static params random_params(suite *s)
{
    params p = {
        .rows = odd_rows(s), .out = odd_size(s, 257), .in = odd_size(s, 257), .acc = suite_coin(s)};
    /* One in so many is so long that a product is cut along the inner dimension of one of the three
     * products. */
    const int64_t choice = suite_pick(s, 0, 23);
    if (choice < 3) {
        p.rows = choice == 0 ? suite_pick(s, 1500, 3300) : suite_pick(s, 1, 9);
        p.out = choice == 1 ? suite_pick(s, 1500, 3300) : suite_pick(s, 1, 9);
        p.in = choice == 2 ? suite_pick(s, 1500, 3300) : suite_pick(s, 1, 9);
    }
    return p;
}

/* The shapes of SmolLM2-135M's and of Llama-3.2-1B's projections. */
static const int64_t bench_sizes[][3] = {
    {512, 576, 576},   {512, 1536, 576},  {4096, 576, 576},
    {4096, 1536, 576}, {4096, 576, 1536}, {4096, 2048, 2048},
};

/* ---- linear ---- */
enum { Y, X, W, BIAS };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    (void)p;
    return b->linear(ctx, v[Y], v[X], v[W], v[BIAS]);
}

/* The product sees the weight in the dtype of x. */
static double *seen(const arg *w, eqi_dtype dtype)
{
    double *m = malloc((size_t)(w->count + 1) * sizeof *m);
    for (int64_t i = 0; m && i < w->count; i++) m[i] = round_to(dtype, w->in[i]);
    return m;
}

static void again(suite *s, const void *p)
{
    const params *q = p;
    double *w = seen(&s->arg[W], s->arg[X].v.dtype);
    plain_start(&s->arg[Y]);
    for (int64_t i = 0; !s->arg[BIAS].absent && i < s->arg[Y].count; i++)
        plain_term(&s->arg[Y], i, s->arg[BIAS].in[i % q->out]);
    plain_product(&s->arg[Y], s->arg[X].in, w, q->rows, q->out, q->in);
    free(w);
}

static void linear(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        params p = random_params(s);
        eqi_dtype dtype = suite_compute_dtype(s), weight = suite_weight_dtype(s, dtype);
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        bool bias = suite_coin(s);
        suite_begin(s, "R=%lld N=%lld K=%lld %s w %s%s, %s", (long long)p.rows, (long long)p.out,
                    (long long)p.in, eqi_dtype_name(dtype), eqi_dtype_name(weight),
                    bias ? " bias" : "", flavour_name(f));
        suite_arg(s, "y", OUT, ROWS, dtype, DIMS(p.rows, p.out));
        arg_flavour(s, suite_arg(s, "x", IN, ROWS, dtype, DIMS(p.rows, p.in)), f);
        arg_normal(s, suite_arg(s, "w", IN, ROWS, weight, DIMS(p.out, p.in)), 0.3);
        if (bias)
            arg_normal(s,
                       suite_arg(s, "bias", IN, CONTIGUOUS, suite_master_dtype(dtype), DIMS(p.out)),
                       1.0);
        else
            suite_absent(s, "bias");
        suite_run(s, call, again, &p);
    }
}

static void linear_known(suite *s)
{
    const double x[] = {1, 2, 3, -1, 0, 0.5}, w[] = {1, 0, -1, 0.5, 2, 4}, bias[] = {10, 20};
    suite_begin(s, "by hand");
    suite_arg(s, "y", OUT, CONTIGUOUS, EQI_F32, DIMS(2, 2));
    arg_values(suite_arg(s, "x", IN, CONTIGUOUS, EQI_F32, DIMS(2, 3)), x);
    arg_values(suite_arg(s, "w", IN, CONTIGUOUS, EQI_F32, DIMS(2, 3)), w);
    arg_values(suite_arg(s, "bias", IN, CONTIGUOUS, EQI_F32, DIMS(2)), bias);
    known_run(s, call, NULL, (double[]){8, 36.5, 8.5, 21.5});
}

static void bench(suite *s)
{
    for (size_t i = 0; i < EQI_COUNT(bench_sizes) * 2; i++) {
        const int64_t *z = bench_sizes[i / 2];
        eqi_dtype dtype = i % 2 ? EQI_BF16 : EQI_F32;
        suite_begin(s, "%s R=%lld N=%lld K=%lld", eqi_dtype_name(dtype), (long long)z[0],
                    (long long)z[1], (long long)z[2]);
        suite_arg(s, "y", OUT, ROWS, dtype, DIMS(z[0], z[1]));
        arg_normal(s, suite_arg(s, "x", IN, ROWS, dtype, DIMS(z[0], z[2])), 1.0);
        arg_normal(s, suite_arg(s, "w", IN, ROWS, dtype, DIMS(z[1], z[2])), 0.1);
        suite_absent(s, "bias");
        s->flops = 2.0 * (double)(z[0] * z[1] * z[2]);
        suite_run(s, call, NULL, NULL);
    }
}

/* ---- linear_bwd_x ---- */
enum { DX, DY };

static eqat_status call_x(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                          const void *p)
{
    return b->linear_bwd_x(ctx, v[DX], v[DY], v[W], ((const params *)p)->acc);
}

static void again_x(suite *s, const void *p)
{
    const params *q = p;
    double *w = seen(&s->arg[W], s->arg[DY].v.dtype);
    plain_start(&s->arg[DX]);
    plain_product_bwd_x(&s->arg[DX], s->arg[DY].in, w, q->rows, q->out, q->in);
    free(w);
}

static void linear_bwd_x(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        params p = random_params(s);
        eqi_dtype dtype = suite_compute_dtype(s), weight = suite_weight_dtype(s, dtype);
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        suite_begin(s, "R=%lld N=%lld K=%lld %s w %s%s, %s", (long long)p.rows, (long long)p.out,
                    (long long)p.in, eqi_dtype_name(dtype), eqi_dtype_name(weight),
                    p.acc ? " acc" : "", flavour_name(f));
        arg *dx = suite_arg(s, "dx", p.acc ? ACC : OUT, ROWS, dtype, DIMS(p.rows, p.in));
        if (p.acc) arg_normal(s, dx, 1.0);
        arg_flavour(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(p.rows, p.out)), f);
        arg_normal(s, suite_arg(s, "w", IN, ROWS, weight, DIMS(p.out, p.in)), 0.3);
        suite_run(s, call_x, again_x, &p);
    }
}

static void bench_x(suite *s)
{
    for (size_t i = 0; i < EQI_COUNT(bench_sizes) * 2; i++) {
        const int64_t *z = bench_sizes[i / 2];
        eqi_dtype dtype = i % 2 ? EQI_BF16 : EQI_F32;
        suite_begin(s, "%s R=%lld N=%lld K=%lld", eqi_dtype_name(dtype), (long long)z[0],
                    (long long)z[1], (long long)z[2]);
        suite_arg(s, "dx", OUT, ROWS, dtype, DIMS(z[0], z[2]));
        arg_normal(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(z[0], z[1])), 1.0);
        arg_normal(s, suite_arg(s, "w", IN, ROWS, dtype, DIMS(z[1], z[2])), 0.1);
        s->flops = 2.0 * (double)(z[0] * z[1] * z[2]);
        suite_run(s, call_x, NULL, &(params){.acc = false});
    }
}

/* ---- linear_bwd_w ---- */
enum { DW, WX = 2 };

static eqat_status call_w(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                          const void *p)
{
    return b->linear_bwd_w(ctx, v[DW], v[DY], v[WX], ((const params *)p)->acc);
}

static void again_w(suite *s, const void *p)
{
    const params *q = p;
    plain_start(&s->arg[DW]);
    plain_product_bwd_w(&s->arg[DW], s->arg[DY].in, s->arg[WX].in, q->rows, q->out, q->in);
}

static void linear_bwd_w(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        params p = random_params(s);
        eqi_dtype dtype = suite_compute_dtype(s);
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        suite_begin(s, "R=%lld N=%lld K=%lld %s%s, %s", (long long)p.rows, (long long)p.out,
                    (long long)p.in, eqi_dtype_name(dtype), p.acc ? " acc" : "", flavour_name(f));
        arg *dw = suite_arg(s, "dw", p.acc ? ACC : OUT, CONTIGUOUS, suite_master_dtype(dtype),
                            DIMS(p.out, p.in));
        if (p.acc) arg_normal(s, dw, 1.0);
        arg_flavour(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(p.rows, p.out)), f);
        arg_normal(s, suite_arg(s, "x", IN, ROWS, dtype, DIMS(p.rows, p.in)), 1.0);
        suite_run(s, call_w, again_w, &p);
    }
}

static void bench_w(suite *s)
{
    for (size_t i = 0; i < EQI_COUNT(bench_sizes) * 2; i++) {
        const int64_t *z = bench_sizes[i / 2];
        eqi_dtype dtype = i % 2 ? EQI_BF16 : EQI_F32;
        suite_begin(s, "%s R=%lld N=%lld K=%lld", eqi_dtype_name(dtype), (long long)z[0],
                    (long long)z[1], (long long)z[2]);
        suite_arg(s, "dw", OUT, CONTIGUOUS, EQI_F32, DIMS(z[1], z[2]));
        arg_normal(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(z[0], z[1])), 1.0);
        arg_normal(s, suite_arg(s, "x", IN, ROWS, dtype, DIMS(z[0], z[2])), 1.0);
        s->flops = 2.0 * (double)(z[0] * z[1] * z[2]);
        suite_run(s, call_w, NULL, &(params){.acc = false});
    }
}

/* ---- bias_bwd ---- */
static eqat_status call_bias(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                             const void *p)
{
    return b->bias_bwd(ctx, v[0], v[DY], ((const params *)p)->acc);
}

static void again_bias(suite *s, const void *p)
{
    plain_start(&s->arg[0]);
    for (int64_t i = 0; i < s->arg[DY].count; i++)
        plain_term(&s->arg[0], i % ((const params *)p)->out, s->arg[DY].in[i]);
}

static void bias_bwd(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        params p = random_params(s);
        eqi_dtype dtype = suite_compute_dtype(s);
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        suite_begin(s, "R=%lld N=%lld %s%s, %s", (long long)p.rows, (long long)p.out,
                    eqi_dtype_name(dtype), p.acc ? " acc" : "", flavour_name(f));
        arg *db = suite_arg(s, "dbias", p.acc ? ACC : OUT, CONTIGUOUS, suite_master_dtype(dtype),
                            DIMS(p.out));
        if (p.acc) arg_normal(s, db, 1.0);
        arg_flavour(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(p.rows, p.out)), f);
        suite_run(s, call_bias, again_bias, &p);
    }
}

const kernel_check check_linear[] = {
    {"linear", linear, linear_known, bench},
    {"linear_bwd_x", linear_bwd_x, NULL, bench_x},
    {"linear_bwd_w", linear_bwd_w, NULL, bench_w},
    {"bias_bwd", bias_bwd, NULL, NULL},
    {0},
};
