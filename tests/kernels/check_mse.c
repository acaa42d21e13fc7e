#include "plain.h"

/* ---- mse ---- */
enum { LOSS, X, TARGET };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    (void)p;
    return b->mse(ctx, v[LOSS], v[X], v[TARGET]);
}

static void again(suite *s, const void *p)
{
    (void)p;
    plain_start(&s->arg[LOSS]);
    int64_t n = s->arg[X].count;
    for (int64_t i = 0; i < n; i++)
        plain_term(&s->arg[LOSS], 0, pow(s->arg[X].in[i] - s->arg[TARGET].in[i], 2) / (double)n);
}

static void arguments(suite *s, eqi_dtype dtype, int64_t rows, int64_t width, flavour f)
{
    arg_flavour(s, suite_arg(s, "x", IN, CONTIGUOUS, dtype, DIMS(rows, width)), f);
    arg *target = suite_arg(s, "target", IN, CONTIGUOUS, dtype, DIMS(rows, width));
    for (int64_t i = 0; i < target->count; i++) {
        double x = arg_value(&s->arg[s->args - 2], i);
        arg_set(target, i, (isfinite(x) ? x : 1.0) * (1.0 + 0.1 * suite_normal(s)));
    }
}

static void mse(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t rows = odd_rows(s) + (i % 8 == 0 ? 1500 : 0), width = odd_size(s, 257);
        eqi_dtype dtype = suite_compute_dtype(s);
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        if (rows == 0) rows = 1;
        suite_begin(s, "[%lld, %lld] %s, %s", (long long)rows, (long long)width,
                    eqi_dtype_name(dtype), flavour_name(f));
        suite_arg(s, "loss", OUT, CONTIGUOUS, suite_master_dtype(dtype), DIMS(1));
        arguments(s, dtype, rows, width, f);
        suite_run(s, call, again, NULL);
    }
}

static void mse_known(suite *s)
{
    suite_begin(s, "by hand");
    suite_arg(s, "loss", OUT, CONTIGUOUS, EQI_F32, DIMS(1));
    arg_values(suite_arg(s, "x", IN, CONTIGUOUS, EQI_F32, DIMS(2, 2)), (double[]){1, 2, 3, 4});
    arg_values(suite_arg(s, "target", IN, CONTIGUOUS, EQI_F32, DIMS(2, 2)), (double[]){1, 0, 6, 3});
    known_run(s, call, NULL, (double[]){3.5});
}

static void bench(suite *s)
{
    for (int i = 0; i < 2; i++) {
        eqi_dtype dtype = i ? EQI_BF16 : EQI_F32;
        suite_begin(s, "%s [4096, 576]", eqi_dtype_name(dtype));
        suite_arg(s, "loss", OUT, CONTIGUOUS, EQI_F32, DIMS(1));
        arguments(s, dtype, 4096, 576, NORMAL);
        s->bytes = 4096.0 * 576 * 2 * (double)eqi_dtype_size(dtype);
        suite_run(s, call, NULL, NULL);
    }
}

/* ---- mse_bwd ---- */
enum { DX, DLOSS, BX, BTARGET };

static eqat_status call_bwd(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    return b->mse_bwd(ctx, v[DX], v[DLOSS], v[BX], v[BTARGET], *(const bool *)p);
}

static void again_bwd(suite *s, const void *p)
{
    (void)p;
    plain_start(&s->arg[DX]);
    for (int64_t i = 0; i < s->arg[DX].count; i++)
        plain_term(&s->arg[DX], i,
                   2.0 / (double)s->arg[DX].count * s->arg[DLOSS].in[0] *
                       (s->arg[BX].in[i] - s->arg[BTARGET].in[i]));
}

static void mse_bwd(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t rows = odd_rows(s), width = odd_size(s, 257);
        eqi_dtype dtype = suite_compute_dtype(s);
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        bool acc = suite_coin(s);
        suite_begin(s, "[%lld, %lld] %s%s, %s", (long long)rows, (long long)width,
                    eqi_dtype_name(dtype), acc ? " acc" : "", flavour_name(f));
        arg *dx = suite_arg(s, "dx", acc ? ACC : OUT, CONTIGUOUS, dtype, DIMS(rows, width));
        if (acc) arg_normal(s, dx, 1.0);
        arg_normal(s, suite_arg(s, "dloss", IN, CONTIGUOUS, suite_master_dtype(dtype), DIMS(1)),
                   1.0);
        arguments(s, dtype, rows, width, f);
        suite_run(s, call_bwd, again_bwd, &acc);
    }
}

static void bench_bwd(suite *s)
{
    for (int i = 0; i < 2; i++) {
        eqi_dtype dtype = i ? EQI_BF16 : EQI_F32;
        bool acc = false;
        suite_begin(s, "%s [4096, 576]", eqi_dtype_name(dtype));
        suite_arg(s, "dx", OUT, CONTIGUOUS, dtype, DIMS(4096, 576));
        arg_normal(s, suite_arg(s, "dloss", IN, CONTIGUOUS, EQI_F32, DIMS(1)), 1.0);
        arguments(s, dtype, 4096, 576, NORMAL);
        s->bytes = 4096.0 * 576 * 3 * (double)eqi_dtype_size(dtype);
        suite_run(s, call_bwd, NULL, &acc);
    }
}

const kernel_check check_mse[] = {
    {"mse", mse, mse_known, bench}, {"mse_bwd", mse_bwd, NULL, bench_bwd}, {0}};
