#include "plain.h"

typedef struct params {
    eqi_quant_desc q;
    bool acc;
} params;

static params random_params(suite *s, int64_t in)
{
    params p = {.q = {.bits = (int)suite_pick(s, 2, 8),
                      .group = random_group(s, in),
                      .clamp = suite_coin(s)},
                .acc = suite_coin(s)};
    return p;
}

static plain_fq weight_of(const arg *w, const arg *step, const arg *zero, const eqi_quant_desc *q,
                          int64_t i)
{
    int64_t in = w->v.shape[1], g = i / in * (in / q->group) + i % in / q->group;
    return plain_quantize(w->v.dtype == EQI_F64, w->in[i], step->in[g], zero->in[g], q->bits,
                          q->clamp);
}

/* ---- fakequant ---- */
enum { WHAT, W, S, Z };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->fakequant(ctx, v[WHAT], v[W], v[S], v[Z], &((const params *)p)->q);
}

static void again(suite *s, const void *p)
{
    for (int64_t i = 0; i < s->arg[WHAT].count; i++)
        s->arg[WHAT].again[i] = round_to(
            s->arg[WHAT].v.dtype,
            weight_of(&s->arg[W], &s->arg[S], &s->arg[Z], &((const params *)p)->q, i).value);
}

static void fakequant(suite *s)
{
    for (int i = 0; i < s->cases * 3; i++) {
        bool whole = suite_coin(s);
        int64_t out = suite_pick(s, 1, 9), in = whole ? 32 * suite_pick(s, 1, 9) : odd_size(s, 257);
        params p = random_params(s, in);
        if (whole) p.q.group = whole_group(s, in);
        bool wide = s->b->f64 && i % 4 == 0;
        eqi_dtype dtype = wide ? EQI_F64 : EQI_F32,
                  what = wide ? EQI_F64
            : suite_coin(s)   ? EQI_F32
                              : EQI_BF16;
        suite_begin(s, "N=%lld K=%lld bits %d group %lld %s%s", (long long)out, (long long)in,
                    p.q.bits, (long long)p.q.group, eqi_dtype_name(what),
                    p.q.clamp ? " clamp" : "");
        suite_arg(s, "what", OUT, CONTIGUOUS, what, DIMS(out, in))->match = EXACT;
        arg *w = suite_arg(s, "w", IN, CONTIGUOUS, dtype, DIMS(out, in));
        arg *step = suite_arg(s, "s", IN, CONTIGUOUS, dtype, DIMS(out, in / p.q.group));
        arg *zero = suite_arg(s, "z", IN, CONTIGUOUS, dtype, DIMS(out, in / p.q.group));
        arg_weight(s, w, step, zero, &p.q, i % 3 > 0);
        suite_run(s, call, again, &p);
    }
}

/* docs/numerics.md at 2 bits: s = 0.5, z = 1.4 gives z' = 1 and the values -0.5, 0, 0.5, 1. */
static void fakequant_known(suite *s)
{
    static const double w[] = {-2.0, -0.75, -0.25, 0.25, 0.3, 0.75, 1.25, 5.0};
    static const double what[] = {-0.5, -0.5, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0};
    suite_begin(s, "by hand");
    suite_arg(s, "what", OUT, CONTIGUOUS, EQI_F32, DIMS(1, 8))->match = EXACT;
    arg_values(suite_arg(s, "w", IN, CONTIGUOUS, EQI_F32, DIMS(1, 8)), w);
    arg_values(suite_arg(s, "s", IN, CONTIGUOUS, EQI_F32, DIMS(1, 1)), (double[]){0.5});
    arg_values(suite_arg(s, "z", IN, CONTIGUOUS, EQI_F32, DIMS(1, 1)), (double[]){1.4});
    known_run(s, call, &(params){.q = {.bits = 2, .group = 8}}, what);
}

static void bench(suite *s)
{
    for (int i = 0; i < 2; i++) {
        eqi_dtype what = i ? EQI_BF16 : EQI_F32;
        params p = {.q = {.bits = 2, .group = 64, .clamp = true}};
        suite_begin(s, "%s N=1536 K=1536 group 64", eqi_dtype_name(what));
        suite_arg(s, "what", OUT, CONTIGUOUS, what, DIMS(1536, 1536));
        arg *w = suite_arg(s, "w", IN, CONTIGUOUS, EQI_F32, DIMS(1536, 1536));
        arg *step = suite_arg(s, "s", IN, CONTIGUOUS, EQI_F32, DIMS(1536, 24));
        arg *zero = suite_arg(s, "z", IN, CONTIGUOUS, EQI_F32, DIMS(1536, 24));
        arg_weight(s, w, step, zero, &p.q, false);
        s->bytes = 1536.0 * 1536 * (4.0 + (double)eqi_dtype_size(what));
        suite_run(s, call, NULL, &p);
    }
}

/* ---- fakequant_bwd ---- */
enum { DW, DS, DZ, DWHAT, BW, BS, BZ };

static eqat_status call_bwd(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                            const void *p)
{
    const params *q = p;
    return b->fakequant_bwd(ctx, v[DW], v[DS], v[DZ], v[DWHAT], v[BW], v[BS], v[BZ], &q->q, q->acc);
}

static void again_bwd(suite *s, const void *p)
{
    const params *q = p;
    arg *dw = &s->arg[DW], *ds = &s->arg[DS], *dz = &s->arg[DZ];
    if (!dw->absent) plain_start(dw);
    if (!ds->absent) plain_start(ds);
    if (!dz->absent) plain_start(dz);
    for (int64_t i = 0; i < s->arg[BW].count; i++) {
        plain_fq f = weight_of(&s->arg[BW], &s->arg[BS], &s->arg[BZ], &q->q, i);
        int64_t in = s->arg[BW].v.shape[1], g = i / in * (in / q->q.group) + i % in / q->q.group;
        double grad = s->arg[DWHAT].in[i];
        if (!dw->absent && f.inside) plain_term(dw, i, grad);
        if (!ds->absent) plain_term(ds, g, grad * f.coefficient_s);
        if (!dz->absent && !f.inside) plain_term(dz, g, grad * f.coefficient_z);
    }
}

static arg *gradient(suite *s, const char *name, bool present, bool acc, eqi_dtype dtype, int64_t n,
                     int64_t k)
{
    if (!present) {
        suite_absent(s, name);
        return NULL;
    }
    arg *a = suite_arg(s, name, acc ? ACC : OUT, CONTIGUOUS, dtype, DIMS(n, k));
    if (acc) arg_normal(s, a, 1.0);
    return a;
}

static void fakequant_bwd(suite *s)
{
    for (int i = 0; i < s->cases * 3; i++) {
        bool whole = suite_coin(s);
        int64_t out = suite_pick(s, 1, 9), in = whole ? 32 * suite_pick(s, 1, 9) : odd_size(s, 257),
                groups;
        params p = random_params(s, in);
        if (whole) p.q.group = whole_group(s, in);
        eqi_dtype dtype = s->b->f64 && i % 4 == 0 ? EQI_F64 : EQI_F32;
        int which = (int)suite_pick(s, 1, 7);
        bool alias = (which & 1) && !p.acc && suite_coin(s);
        groups = in / p.q.group;
        suite_begin(s, "N=%lld K=%lld bits %d group %lld %s%s%s which %d%s", (long long)out,
                    (long long)in, p.q.bits, (long long)p.q.group, eqi_dtype_name(dtype),
                    p.q.clamp ? " clamp" : "", p.acc ? " acc" : "", which,
                    alias ? " in place" : "");
        gradient(s, "dw", which & 1, p.acc, dtype, out, in);
        gradient(s, "ds", which & 2, p.acc, dtype, out, groups);
        gradient(s, "dz", which & 4, p.acc, dtype, out, groups);
        arg_normal(s, suite_arg(s, "dwhat", IN, CONTIGUOUS, dtype, DIMS(out, in)), 1.0);
        arg *w = suite_arg(s, "w", IN, CONTIGUOUS, dtype, DIMS(out, in));
        arg *step = suite_arg(s, "s", IN, CONTIGUOUS, dtype, DIMS(out, groups));
        arg *zero = suite_arg(s, "z", IN, CONTIGUOUS, dtype, DIMS(out, groups));
        arg_weight(s, w, step, zero, &p.q, i % 3 > 0);
        if (alias) s->arg[DW].alias = DWHAT;
        suite_run(s, call_bwd, again_bwd, &p);
    }
}

/* s = 0.5, z' = 1, Q = 3. w = 0.3: t = 0.6, inside, dw 1, ds 1 - 0.6. w = -2: u = -3, below, ds 0 -
 * 1, dz -0.5. w = 5: u = 11, above, ds 3 - 1, dz -0.5. w = 1: t = 2, inside, ds 0. All values are
 * dyadic but 0.3. */
static void fakequant_bwd_known(suite *s)
{
    double t = (double)(0.3f / 0.5f);
    suite_begin(s, "by hand");
    suite_arg(s, "dw", OUT, CONTIGUOUS, EQI_F32, DIMS(1, 4));
    suite_arg(s, "ds", OUT, CONTIGUOUS, EQI_F32, DIMS(1, 1));
    suite_arg(s, "dz", OUT, CONTIGUOUS, EQI_F32, DIMS(1, 1));
    arg_values(suite_arg(s, "dwhat", IN, CONTIGUOUS, EQI_F32, DIMS(1, 4)),
               (double[]){1, 10, 100, 1000});
    arg_values(suite_arg(s, "w", IN, CONTIGUOUS, EQI_F32, DIMS(1, 4)), (double[]){0.3, -2, 5, 1});
    arg_values(suite_arg(s, "s", IN, CONTIGUOUS, EQI_F32, DIMS(1, 1)), (double[]){0.5});
    arg_values(suite_arg(s, "z", IN, CONTIGUOUS, EQI_F32, DIMS(1, 1)), (double[]){1.0});
    known_run(s, call_bwd, &(params){.q = {.bits = 2, .group = 4, .clamp = true}},
              (double[]){1, 0, 0, 1000, (1 - t) - 10 + 200, -0.5 * 110});
    /* Without a floor s can be 0: every weight is outside, and no 0 / 0 of a vector's lanes past
     * the end gets into the sums. */
    suite_begin(s, "s = 0 by hand");
    suite_arg(s, "dw", OUT, CONTIGUOUS, EQI_F32, DIMS(1, 3));
    suite_arg(s, "ds", OUT, CONTIGUOUS, EQI_F32, DIMS(1, 1));
    suite_arg(s, "dz", OUT, CONTIGUOUS, EQI_F32, DIMS(1, 1));
    arg_values(suite_arg(s, "dwhat", IN, CONTIGUOUS, EQI_F32, DIMS(1, 3)), (double[]){1, 10, 100});
    arg_values(suite_arg(s, "w", IN, CONTIGUOUS, EQI_F32, DIMS(1, 3)), (double[]){0.3, -2, 5});
    arg_values(suite_arg(s, "s", IN, CONTIGUOUS, EQI_F32, DIMS(1, 1)), (double[]){0});
    arg_values(suite_arg(s, "z", IN, CONTIGUOUS, EQI_F32, DIMS(1, 1)), (double[]){1});
    known_run(s, call_bwd, &(params){.q = {.bits = 2, .group = 3}},
              (double[]){0, 0, 0, 2 - 10 + 200, 0});
}

static void bench_bwd(suite *s)
{
    params p = {.q = {.bits = 2, .group = 64, .clamp = true}};
    suite_begin(s, "N=1536 K=1536 group 64");
    gradient(s, "dw", true, false, EQI_F32, 1536, 1536);
    gradient(s, "ds", true, false, EQI_F32, 1536, 24);
    gradient(s, "dz", true, false, EQI_F32, 1536, 24);
    arg_normal(s, suite_arg(s, "dwhat", IN, CONTIGUOUS, EQI_F32, DIMS(1536, 1536)), 1.0);
    arg *w = suite_arg(s, "w", IN, CONTIGUOUS, EQI_F32, DIMS(1536, 1536));
    arg *step = suite_arg(s, "s", IN, CONTIGUOUS, EQI_F32, DIMS(1536, 24));
    arg *zero = suite_arg(s, "z", IN, CONTIGUOUS, EQI_F32, DIMS(1536, 24));
    arg_weight(s, w, step, zero, &p.q, false);
    s->bytes = 1536.0 * 1536 * 12;
    suite_run(s, call_bwd, NULL, &p);
}

const kernel_check check_fakequant[] = {
    {"fakequant", fakequant, fakequant_known, bench},
    {"fakequant_bwd", fakequant_bwd, fakequant_bwd_known, bench_bwd},
    {0},
};
