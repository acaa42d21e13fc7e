#include <stdlib.h>

#include "checks.h"

typedef struct params {
    int64_t rows, out, in;
    eqi_quant_desc q;
    bool acc;
} params;

static params random_params(suite *s)
{
    params p = { .rows = odd_rows(s), .out = odd_size(s, 130), .in = odd_size(s, 257), .acc = suite_coin(s) };
    p.q = (eqi_quant_desc){ .bits = (int)suite_pick(s, 2, 8), .group = random_group(s, p.in), .clamp = suite_coin(s) };
    return p;
}

static void begin(suite *s, const params *p, eqi_dtype dtype, const char *more)
{
    suite_begin(s, "R=%lld N=%lld K=%lld bits %d group %lld %s%s%s", (long long)p->rows, (long long)p->out, (long long)p->in,
                p->q.bits, (long long)p->q.group, eqi_dtype_name(dtype), p->q.clamp ? " clamp" : "", more);
}

static void weight(suite *s, const params *p, eqi_dtype dtype, arg_role role)
{
    eqi_dtype master = suite_master_dtype(dtype);
    arg *w = suite_arg(s, "w", role, CONTIGUOUS, master, DIMS(p->out, p->in));
    arg *step = suite_arg(s, "s", IN, CONTIGUOUS, master, DIMS(p->out, p->in / p->q.group));
    arg *zero = suite_arg(s, "z", IN, CONTIGUOUS, master, DIMS(p->out, p->in / p->q.group));
    arg_weight(s, w, step, zero, &p->q, false);
}

static plain_fq weight_of(const suite *s, int w, const params *p, int64_t i)
{
    int64_t g = i / p->in * (p->in / p->q.group) + i % p->in / p->q.group;
    return plain_quantize(s->arg[w].v.dtype == EQI_F64, s->arg[w].in[i], s->arg[w + 1].in[g], s->arg[w + 2].in[g], p->q.bits,
                          p->q.clamp);
}

/* w^ of the weight whose arguments begin at `w`, as a product in this dtype sees it. */
static double *seen(const suite *s, int w, const params *p, eqi_dtype dtype)
{
    double *m = malloc((size_t)(p->out * p->in) * sizeof *m);
    for (int64_t i = 0; m && i < p->out * p->in; i++) m[i] = round_to(dtype, weight_of(s, w, p, i).value);
    return m;
}

static const params benched[] = {
    { 512, 1536, 576, { 2, 64, true }, false },
    { 4096, 1536, 576, { 2, 64, true }, false },
    { 4096, 2048, 2048, { 2, 64, true }, false },
};

/* --- fq_linear ----------------------------------------------------------------------------------------------- */
enum { Y, X, W, S, Z, BIAS };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->fq_linear(ctx, v[Y], v[X], v[W], v[S], v[Z], v[BIAS], &((const params *)p)->q);
}

static void again(suite *s, const void *p)
{
    const params *q = p;
    double *w = seen(s, W, q, s->arg[X].v.dtype);
    plain_start(&s->arg[Y]);
    for (int64_t i = 0; !s->arg[BIAS].absent && i < s->arg[Y].count; i++) plain_term(&s->arg[Y], i, s->arg[BIAS].in[i % q->out]);
    plain_product(&s->arg[Y], s->arg[X].in, w, q->rows, q->out, q->in);
    free(w);
}

static void forward_case(suite *s, const params *p, eqi_dtype dtype, flavour f, bool bias)
{
    suite_arg(s, "y", OUT, ROWS, dtype, DIMS(p->rows, p->out));
    arg_flavour(s, suite_arg(s, "x", IN, ROWS, dtype, DIMS(p->rows, p->in)), f);
    weight(s, p, dtype, IN);
    if (bias) arg_normal(s, suite_arg(s, "bias", IN, CONTIGUOUS, suite_master_dtype(dtype), DIMS(p->out)), 1.0);
    else suite_absent(s, "bias");
}

static void fq_linear(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        params p = random_params(s);
        eqi_dtype dtype = suite_compute_dtype(s);
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

/* --- fq_linear_bwd_x ----------------------------------------------------------------------------------------- */
enum { DX, DY };

static eqat_status call_x(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->fq_linear_bwd_x(ctx, v[DX], v[DY], v[W], v[S], v[Z], &((const params *)p)->q, ((const params *)p)->acc);
}

static void again_x(suite *s, const void *p)
{
    const params *q = p;
    double *w = seen(s, W, q, s->arg[DY].v.dtype);
    plain_start(&s->arg[DX]);
    plain_product_bwd_x(&s->arg[DX], s->arg[DY].in, w, q->rows, q->out, q->in);
    free(w);
}

static void input_case(suite *s, const params *p, eqi_dtype dtype, flavour f)
{
    arg *dx = suite_arg(s, "dx", p->acc ? ACC : OUT, ROWS, dtype, DIMS(p->rows, p->in));
    if (p->acc) arg_normal(s, dx, 1.0);
    arg_flavour(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(p->rows, p->out)), f);
    weight(s, p, dtype, IN);
}

static void fq_linear_bwd_x(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        params p = random_params(s);
        eqi_dtype dtype = suite_compute_dtype(s);
        flavour f = (flavour)suite_pick(s, 0, FLAVOURS - 1);
        begin(s, &p, dtype, p.acc ? " acc" : "");
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

/* --- fq_linear_bwd_w ----------------------------------------------------------------------------------------- */
enum { DW, DS, DZ, WDY, WX, WW };

static eqat_status call_w(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    const params *q = p;
    return b->fq_linear_bwd_w(ctx, v[DW], v[DS], v[DZ], v[WDY], v[WX], v[WW], v[WW + 1], v[WW + 2], &q->q, q->acc);
}

static void again_w(suite *s, const void *p)
{
    const params *q = p;
    for (int i = DW; i <= DZ; i++)
        if (!s->arg[i].absent) plain_start(&s->arg[i]);
    for (int64_t i = 0; i < q->out * q->in; i++) {
        plain_fq f = weight_of(s, WW, q, i);
        int64_t g = i / q->in * (q->in / q->q.group) + i % q->in / q->q.group;
        for (int64_t r = 0; r < q->rows; r++) {
            double term = s->arg[WDY].in[r * q->out + i / q->in] * s->arg[WX].in[r * q->in + i % q->in];
            if (!s->arg[DW].absent && f.inside) plain_term(&s->arg[DW], i, term);
            if (!s->arg[DS].absent) plain_term(&s->arg[DS], g, term * f.coefficient_s);
            if (!s->arg[DZ].absent && !f.inside) plain_term(&s->arg[DZ], g, term * f.coefficient_z);
        }
    }
}

static void weight_case(suite *s, const params *p, eqi_dtype dtype, flavour f, int which)
{
    static const char *const names[] = { "dw", "ds", "dz" };
    for (int i = 0; i < 3; i++) {
        if (!(which >> i & 1)) {
            suite_absent(s, names[i]);
            continue;
        }
        arg *d = suite_arg(s, names[i], p->acc ? ACC : OUT, CONTIGUOUS, suite_master_dtype(dtype),
                           DIMS(p->out, i ? p->in / p->q.group : p->in));
        if (p->acc) arg_normal(s, d, 1.0);
    }
    arg_flavour(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(p->rows, p->out)), f);
    arg_normal(s, suite_arg(s, "x", IN, ROWS, dtype, DIMS(p->rows, p->in)), 1.0);
    weight(s, p, dtype, IN);
}

static void fq_linear_bwd_w(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        params p = random_params(s);
        eqi_dtype dtype = suite_compute_dtype(s);
        /* Where a weight's gradient is infinite or not a number, what its s and z receive is not worth agreeing on. */
        flavour f = (flavour)suite_pick(s, NORMAL, ZERO);
        begin(s, &p, dtype, p.acc ? " acc" : "");
        weight_case(s, &p, dtype, f, (int)suite_pick(s, 1, 7));
        suite_run(s, call_w, again_w, &p);
    }
}

static void bench_w(suite *s)
{
    for (size_t i = 0; i < EQI_COUNT(benched) * 2; i++) {
        const params *p = &benched[i / 2];
        begin(s, p, i % 2 ? EQI_BF16 : EQI_F32, "");
        weight_case(s, p, i % 2 ? EQI_BF16 : EQI_F32, NORMAL, 7);
        s->flops = 2.0 * (double)(p->rows * p->out * p->in);
        suite_run(s, call_w, NULL, p);
    }
}

/* --- fq_linear_update ---------------------------------------------------------------------------------------- */
enum { UDS, UDZ, UDY, UX, UW, US, UZ, UM, UV, SQUARES };

static const eqi_adamw_desc step = { .lr = 0.5f, .beta1 = 0.9f, .beta2 = 0.75f, .eps = 1e-8f, .weight_decay = 0.125f, .step = 3 };

static eqat_status call_update(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    const eqi_update u = { .m = *v[UM], .v = *v[UV], .squares = *v[SQUARES], .d = step };
    return b->fq_linear_update(ctx, &u, v[UDS], v[UDZ], v[UDY], v[UX], v[UW], v[US], v[UZ], &((const params *)p)->q);
}

static bool spoilt(const suite *s)
{
    static const int watched[] = { UDY, UX, SQUARES };
    for (size_t a = 0; a < EQI_COUNT(watched); a++)
        for (int64_t i = 0; i < s->arg[watched[a]].count; i++)
            if (!isfinite(arg_value(&s->arg[watched[a]], i))) return true;
    return false;
}

static void again_step(suite *s, int64_t i, double g, double mag)
{
    arg *w = &s->arg[UW], *m = &s->arg[UM], *v = &s->arg[UV];
    double b1 = (double)step.beta1, b2 = (double)step.beta2, lr = (double)step.lr;
    m->again[i] = b1 * m->in[i] + (1.0 - b1) * g;
    m->mag[i] = fabs(b1 * m->in[i]) + (1.0 - b1) * mag;
    v->again[i] = b2 * v->in[i] + (1.0 - b2) * g * g;
    v->mag[i] = b2 * v->in[i] + 3.0 * (1.0 - b2) * fabs(g) * mag;
    double below = sqrt(v->again[i] / (1.0 - pow(b2, (double)step.step))) + (double)step.eps;
    double rate = lr / (1.0 - pow(b1, (double)step.step)), error = m->mag[i] / below;
    if (v->again[i] > 0.0) error += fabs(m->again[i]) / below * v->mag[i] / v->again[i];
    w->again[i] = w->in[i] * (1.0 - lr * (double)step.weight_decay) - rate * m->again[i] / below;
    w->mag[i] = fabs(w->in[i]) + 4.0 * rate * error;
}

static void again_update(suite *s, const void *p)
{
    const params *q = p;
    bool bad = spoilt(s);
    if (bad) s->arg[SQUARES].again[0] = (double)NAN;
    for (int i = UDS; i <= UDZ; i++)
        for (int64_t k = 0; !s->arg[i].absent && k < s->arg[i].count; k++) s->arg[i].again[k] = bad ? (double)NAN : 0.0;
    for (int64_t i = 0; !bad && i < q->out * q->in; i++) {
        plain_fq f = weight_of(s, UW, q, i);
        int64_t group = i / q->in * (q->in / q->q.group) + i % q->in / q->q.group;
        double g = 0.0, mag = 0.0;
        for (int64_t r = 0; r < q->rows; r++) {
            double term = s->arg[UDY].in[r * q->out + i / q->in] * s->arg[UX].in[r * q->in + i % q->in];
            if (f.inside) g += term;
            if (f.inside) mag += fabs(term);
            if (!s->arg[UDS].absent) plain_term(&s->arg[UDS], group, term * f.coefficient_s);
            if (!s->arg[UDZ].absent && !f.inside) plain_term(&s->arg[UDZ], group, term * f.coefficient_z);
        }
        again_step(s, i, g, mag);
        s->arg[SQUARES].again[0] += g * g;
        s->arg[SQUARES].mag[0] += 3.0 * fabs(g) * mag;
    }
}

static void update_case(suite *s, const params *p, eqi_dtype dtype, flavour f, int which)
{
    eqi_dtype master = suite_master_dtype(dtype);
    for (int i = 0; i < 2; i++) {
        if (which >> i & 1) suite_arg(s, i ? "dz" : "ds", OUT, CONTIGUOUS, master, DIMS(p->out, p->in / p->q.group));
        else suite_absent(s, i ? "dz" : "ds");
    }
    bool x_too = f > ZERO && suite_coin(s);
    arg_flavour(s, suite_arg(s, "dy", IN, ROWS, dtype, DIMS(p->rows, p->out)), x_too ? NORMAL : f);
    arg_flavour(s, suite_arg(s, "x", IN, ROWS, dtype, DIMS(p->rows, p->in)), x_too ? f : NORMAL);
    weight(s, p, dtype, ACC);
    arg *m = suite_arg(s, "m", ACC, CONTIGUOUS, master, DIMS(p->out, p->in));
    arg *v = suite_arg(s, "v", ACC, CONTIGUOUS, master, DIMS(p->out, p->in));
    arg_normal(s, m, 0.1);
    for (int64_t i = 0; i < v->count; i++) arg_set(v, i, 0.1 + suite_uniform(s));
    arg *squares = suite_arg(s, "squares", ACC, CONTIGUOUS, EQI_F64, DIMS(1));
    arg_set(squares, 0, f == WITH_NAN && suite_coin(s) ? (double)NAN : suite_uniform(s));
    squares->eps = 0x1p-20;
    for (int i = UW; i <= SQUARES; i++)
        if (s->arg[i].role == ACC) s->arg[i].match = dtype == EQI_F64 && i != SQUARES ? CLOSE : SAME;
    for (int i = UW; i < SQUARES && spoilt(s); i++) s->arg[i].match = EXACT;
}

static void fq_linear_update(suite *s)
{
    static const flavour flavours[] = { NORMAL, NORMAL, ZERO, WITH_NAN, WITH_INF };
    for (int i = 0; i < s->cases * 2; i++) {
        params p = random_params(s);
        p.acc = false;
        eqi_dtype dtype = suite_compute_dtype(s);
        flavour f = flavours[suite_pick(s, 0, (int64_t)EQI_COUNT(flavours) - 1)];
        begin(s, &p, dtype, flavour_name(f));
        update_case(s, &p, dtype, f, (int)suite_pick(s, 0, 3));
        suite_run(s, call_update, again_update, &p);
    }
}

static void bench_update(suite *s)
{
    for (size_t i = 0; i < EQI_COUNT(benched) * 2; i++) {
        const params *p = &benched[i / 2];
        begin(s, p, i % 2 ? EQI_BF16 : EQI_F32, "");
        update_case(s, p, i % 2 ? EQI_BF16 : EQI_F32, NORMAL, 3);
        s->flops = 2.0 * (double)(p->rows * p->out * p->in);
        suite_run(s, call_update, NULL, p);
    }
}

const kernel_check check_fq_linear[] = {
    { "fq_linear", fq_linear, NULL, bench },
    { "fq_linear_bwd_x", fq_linear_bwd_x, NULL, bench_x },
    { "fq_linear_bwd_w", fq_linear_bwd_w, NULL, bench_w },
    { "fq_linear_update", fq_linear_update, NULL, bench_update },
    { 0 },
};
