#include "plain.h"

/* ---- sum_squares ---- */
static eqat_status call_sum(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    (void)p;
    return b->sum_squares(ctx, v[0], v[1]);
}

static void again_sum(suite *s, const void *p)
{
    (void)p;
    plain_start(&s->arg[0]);
    for (int64_t i = 0; i < s->arg[1].count; i++)
        plain_term(&s->arg[0], 0, s->arg[1].in[i] * s->arg[1].in[i]);
}

static void sum_squares(suite *s)
{
    for (int i = 0; i < s->cases; i++) {
        int64_t rows = odd_rows(s), width = i % 6 ? odd_size(s, 257) : 5000;
        eqi_dtype dtype = s->b->f64 && i % 4 == 0 ? EQI_F64 : EQI_F32;
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        suite_begin(s, "[%lld, %lld] %s, %s", (long long)rows, (long long)width,
                    eqi_dtype_name(dtype), flavour_name(f));
        arg *sum = suite_arg(s, "sum", ACC, CONTIGUOUS, EQI_F64, DIMS(1));
        sum->eps = dtype == EQI_F64 ? 0x1p-40 : 0x1p-21;
        arg_set(sum, 0, suite_coin(s) ? 0.0 : 2.5);
        arg_flavour(s, suite_arg(s, "g", IN, CONTIGUOUS, dtype, DIMS(rows, width)), f);
        suite_run(s, call_sum, again_sum, NULL);
    }
}

static void bench_sum(suite *s)
{
    suite_begin(s, "[4194304]");
    suite_arg(s, "sum", ACC, CONTIGUOUS, EQI_F64, DIMS(1));
    arg_normal(s, suite_arg(s, "g", IN, CONTIGUOUS, EQI_F32, DIMS(4194304)), 1.0);
    s->bytes = 4194304 * 4.0;
    suite_run(s, call_sum, NULL, NULL);
}

/* ---- clip_factor ---- */
typedef struct params {
    double max_norm, scale;
} params;

static eqat_status call_clip(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                             const void *p)
{
    const params *q = p;
    return b->clip_factor(ctx, v[0], v[1], v[2], q->max_norm, q->scale);
}

static void clip(suite *s, double sum, params p, double norm, double factor)
{
    suite_begin(s, "sum %g max %g scale %g", sum, p.max_norm, p.scale);
    suite_arg(s, "norm", OUT, CONTIGUOUS, EQI_F32, DIMS(1))->match = SAME;
    suite_arg(s, "factor", OUT, CONTIGUOUS, EQI_F32, DIMS(1))->match = SAME;
    arg_set(suite_arg(s, "sum", IN, CONTIGUOUS, EQI_F64, DIMS(1)), 0, sum);
    known_run(s, call_clip, &p, (double[]){norm, factor});
}

static void clip_factor(suite *s)
{
    clip(s, 4.0, (params){0.3, 1.0}, 2.0, 0.3 / 2.000001);
    clip(s, 4.0, (params){8.0, 1.0}, 2.0, 1.0);
    clip(s, 4.0, (params){0.3, 0.25}, 0.5, 0.25 * 0.3 / 0.500001);
    clip(s, 4.0, (params){0.0, 0.25}, 0.5, 0.25);
    clip(s, 4.0, (params){-1.0, 2.0}, 4.0, 2.0);
    clip(s, 0.0, (params){0.3, 1.0}, 0.0, 1.0);
    clip(s, INFINITY, (params){0.3, 1.0}, INFINITY, NAN);
    clip(s, NAN, (params){0.3, 1.0}, NAN, NAN);
    clip(s, INFINITY, (params){0.0, 1.0}, INFINITY, NAN);
    clip(s, 1e80, (params){1.0, 1.0}, INFINITY, NAN); /* the norm does not fit f32 */
    clip(s, 1e60, (params){1.0, 1.0}, (double)(float)1e30, 1.0 / (double)(float)1e30);
}

const kernel_check check_clip[] = {
    {"sum_squares", sum_squares, NULL, bench_sum},
    {"clip_factor", NULL, clip_factor, NULL},
    {0},
};
