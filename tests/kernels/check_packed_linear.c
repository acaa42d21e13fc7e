#include <stdlib.h>

#include "checks.h"

typedef struct params {
    int64_t rows, out, in;
    eqi_quant_desc q;
    bool acc;
    eqi_dtype zeros;
} params;

static params random_params(suite *s, eqi_dtype dtype)
{
    params p = { .rows = odd_rows(s), .out = odd_size(s, 130), .in = 32 * suite_pick(s, 1, 7), .acc = suite_coin(s) };
    p.q = (eqi_quant_desc){ .bits = (int)suite_pick(s, 2, 8), .group = random_group(s, p.in), .clamp = suite_coin(s) };
    p.zeros = suite_coin(s) ? EQI_U8 : suite_master_dtype(dtype);
    return p;
}

static void begin(suite *s, const params *p, eqi_dtype dtype, const char *more)
{
    suite_begin(s, "R=%lld N=%lld K=%lld bits %d group %lld %s z %s %s", (long long)p->rows, (long long)p->out, (long long)p->in,
                p->q.bits, (long long)p->q.group, eqi_dtype_name(dtype), eqi_dtype_name(p->zeros), more);
}

static void weight(suite *s, const params *p, eqi_dtype dtype)
{
    double top = (double)((1 << p->q.bits) - 1);
    arg_whole(s, suite_arg(s, "codes", IN, CONTIGUOUS, EQI_U32, DIMS(p->out, p->in / 32 * p->q.bits)), 0, UINT32_MAX);
    arg_normal(s, suite_arg(s, "s", IN, CONTIGUOUS, suite_master_dtype(dtype), DIMS(p->out, p->in / p->q.group)), 1.0 / top);
    arg *zero = suite_arg(s, "z", IN, CONTIGUOUS, p->zeros, DIMS(p->out, p->in / p->q.group));
    for (int64_t g = 0; g < zero->count; g++)
        arg_set(zero, g, p->zeros == EQI_U8 ? (double)suite_pick(s, 0, (int64_t)top) : top * (1.4 * suite_uniform(s) - 0.2));
}

/* q - z' of weight i, from the arguments that begin at `codes` */
static double offset_of(const suite *s, int codes, const params *p, int64_t i)
{
    int64_t words = p->in / 32 * p->q.bits, g = i / p->in * (p->in / p->q.group) + i % p->in / p->q.group;
    double top = (double)((1 << p->q.bits) - 1);
    uint32_t row[7 * 8];
    for (int64_t j = 0; j < words; j++) row[j] = (uint32_t)s->arg[codes].in[i / p->in * words + j];
    return (double)plain_unpack(row, i % p->in, p->q.bits) - fmin(fmax(rint(s->arg[codes + 2].in[g]), 0.0), top);
}

static double *seen(const suite *s, int codes, const params *p, eqi_dtype dtype)
{
    double *m = malloc((size_t)(p->out * p->in) * sizeof *m);
    for (int64_t i = 0; m && i < p->out * p->in; i++) {
        double step = s->arg[codes + 1].in[i / p->in * (p->in / p->q.group) + i % p->in / p->q.group];
        double offset = offset_of(s, codes, p, i);
        m[i] = dtype == EQI_F64 ? offset * step : round_to(dtype, (double)((float)offset * (float)step));
    }
    return m;
}

static const params benched[] = {
    { 512, 1536, 576, { 2, 64, false }, false, EQI_U8 },
    { 1, 2048, 2048, { 2, 64, false }, false, EQI_U8 },
    { 4096, 1536, 576, { 2, 64, false }, false, EQI_U8 },
    { 4096, 2048, 2048, { 3, 64, false }, false, EQI_U8 },
};

/* --- packed_linear ------------------------------------------------------------------------------------------- */
enum { Y, X, CODES, S, Z, BIAS };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->packed_linear(ctx, v[Y], v[X], v[CODES], v[S], v[Z], v[BIAS], &((const params *)p)->q);
}

static void again(suite *s, const void *p)
{
    const params *q = p;
    double *w = seen(s, CODES, q, s->arg[X].v.dtype);
    plain_start(&s->arg[Y]);
    for (int64_t i = 0; !s->arg[BIAS].absent && i < s->arg[Y].count; i++) plain_term(&s->arg[Y], i, s->arg[BIAS].in[i % q->out]);
    plain_product(&s->arg[Y], s->arg[X].in, w, q->rows, q->out, q->in);
    free(w);
}

static void forward_case(suite *s, const params *p, eqi_dtype dtype, flavour f, bool bias)
{
    suite_arg(s, "y", OUT, ROWS, dtype, DIMS(p->rows, p->out));
    arg_flavour(s, suite_arg(s, "x", IN, ROWS, dtype, DIMS(p->rows, p->in)), f);
    weight(s, p, dtype);
    if (bias) arg_normal(s, suite_arg(s, "bias", IN, CONTIGUOUS, suite_master_dtype(dtype), DIMS(p->out)), 1.0);
    else suite_absent(s, "bias");
}

static void packed_linear(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        eqi_dtype dtype = suite_compute_dtype(s);
        params p = random_params(s, dtype);
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        bool bias = suite_coin(s);
        begin(s, &p, dtype, flavour_name(f));
        forward_case(s, &p, dtype, f, bias);
        suite_run(s, call, again, &p);
    }
}

static void bench(suite *s)
{
    for (size_t i = 0; i < EQI_COUNT(benched) * 2; i++) {
        const params *p = &benched[i / 2];
        begin(s, p, i % 2 ? EQI_BF16 : EQI_F32, "");
        forward_case(s, p, i % 2 ? EQI_BF16 : EQI_F32, NORMAL, false);
        s->flops = 2.0 * (double)(p->rows * p->out * p->in);
        suite_run(s, call, NULL, p);
    }
}

/* --- packed_linear_bwd_x ------------------------------------------------------------------------------------- */
enum { DX, DY };

static eqat_status call_x(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->packed_linear_bwd_x(ctx, v[DX], v[DY], v[CODES], v[S], v[Z], &((const params *)p)->q, ((const params *)p)->acc);
}

static void again_x(suite *s, const void *p)
{
    const params *q = p;
    double *w = seen(s, CODES, q, s->arg[DY].v.dtype);
    plain_start(&s->arg[DX]);
    plain_product_bwd_x(&s->arg[DX], s->arg[DY].in, w, q->rows, q->out, q->in);
    free(w);
}

static void input_case(suite *s, const params *p, eqi_dtype dtype, flavour f)
{
    arg *dx = suite_arg(s, "dx", p->acc ? ACC : OUT, ROWS, dtype, DIMS(p->rows, p->in));
    if (p->acc) arg_normal(s, dx, 1.0);
    arg_flavour(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(p->rows, p->out)), f);
    weight(s, p, dtype);
}

static void packed_linear_bwd_x(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        eqi_dtype dtype = suite_compute_dtype(s);
        params p = random_params(s, dtype);
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        begin(s, &p, dtype, p.acc ? "acc" : "");
        input_case(s, &p, dtype, f);
        suite_run(s, call_x, again_x, &p);
    }
}

static void bench_x(suite *s)
{
    for (size_t i = 0; i < EQI_COUNT(benched) * 2; i++) {
        const params *p = &benched[i / 2];
        begin(s, p, i % 2 ? EQI_BF16 : EQI_F32, "");
        input_case(s, p, i % 2 ? EQI_BF16 : EQI_F32, NORMAL);
        s->flops = 2.0 * (double)(p->rows * p->out * p->in);
        suite_run(s, call_x, NULL, p);
    }
}

/* --- packed_linear_bwd_sz ------------------------------------------------------------------------------------ */
enum { DS, DZ, SDY, SX, SCODES };

static eqat_status call_sz(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    const params *q = p;
    return b->packed_linear_bwd_sz(ctx, v[DS], v[DZ], v[SDY], v[SX], v[SCODES], v[SCODES + 1], v[SCODES + 2], &q->q, q->acc);
}

static void again_sz(suite *s, const void *p)
{
    const params *q = p;
    plain_start(&s->arg[DS]);
    if (!s->arg[DZ].absent) plain_start(&s->arg[DZ]);
    for (int64_t i = 0; i < q->out * q->in; i++) {
        double offset = offset_of(s, SCODES, q, i);
        int64_t g = i / q->in * (q->in / q->q.group) + i % q->in / q->q.group;
        for (int64_t r = 0; r < q->rows; r++) {
            double term = s->arg[SDY].in[r * q->out + i / q->in] * s->arg[SX].in[r * q->in + i % q->in];
            plain_term(&s->arg[DS], g, term * offset);
            if (!s->arg[DZ].absent) plain_term(&s->arg[DZ], g, -term * s->arg[SCODES + 1].in[g]);
        }
    }
}

static void step_case(suite *s, const params *p, eqi_dtype dtype, flavour f, bool with_z)
{
    eqi_dtype master = suite_master_dtype(dtype);
    for (int i = 0; i < 2; i++) {
        if (i && !with_z) {
            suite_absent(s, "dz");
            continue;
        }
        arg *d = suite_arg(s, i ? "dz" : "ds", p->acc ? ACC : OUT, CONTIGUOUS, master, DIMS(p->out, p->in / p->q.group));
        if (p->acc) arg_normal(s, d, 1.0);
    }
    arg_flavour(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(p->rows, p->out)), f);
    arg_normal(s, suite_arg(s, "x", IN, ROWS, dtype, DIMS(p->rows, p->in)), 1.0);
    weight(s, p, dtype);
}

static void packed_linear_bwd_sz(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        eqi_dtype dtype = suite_compute_dtype(s);
        params p = random_params(s, dtype);
        /* Where a gradient is infinite or not a number, what the sums make of it is not worth agreeing on. */
        flavour f = (flavour)suite_pick(s, NORMAL, ZERO);
        begin(s, &p, dtype, p.acc ? "acc" : "");
        step_case(s, &p, dtype, f, suite_coin(s));
        suite_run(s, call_sz, again_sz, &p);
    }
}

static void bench_sz(suite *s)
{
    for (size_t i = 0; i < EQI_COUNT(benched) * 2; i++) {
        const params *p = &benched[i / 2];
        begin(s, p, i % 2 ? EQI_BF16 : EQI_F32, "");
        step_case(s, p, i % 2 ? EQI_BF16 : EQI_F32, NORMAL, false);
        s->flops = 2.0 * (double)(p->rows * p->out * p->in);
        suite_run(s, call_sz, NULL, p);
    }
}

const kernel_check check_packed_linear[] = {
    { "packed_linear", packed_linear, NULL, bench },
    { "packed_linear_bwd_x", packed_linear_bwd_x, NULL, bench_x },
    { "packed_linear_bwd_sz", packed_linear_bwd_sz, NULL, bench_sz },
    { 0 },
};
