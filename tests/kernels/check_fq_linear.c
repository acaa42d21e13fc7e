#include "quantized_linear.h"

static linear_case draw(suite *s)
{
    linear_case p = {
        .rows = odd_rows(s), .out = odd_size(s, 130), .in = odd_size(s, 257), .acc = suite_coin(s)};
    p.q = (eqi_quant_desc){
        .bits = (int)suite_pick(s, 2, 8), .group = random_group(s, p.in), .clamp = suite_coin(s)};
    p.dtype = suite_compute_dtype(s);
    int kind = (int)suite_pick(s, 0, 9);
    if (kind < 5) return p;
    if (kind < 9) { /* groups as models have them */
        p.q.group = (int64_t[]){32, 64, 128, 96}[suite_pick(s, 0, 3)];
        p.in = p.q.group * suite_pick(s, 1, 3);
        return p;
    }
    /* Several groups in a row, none of them within a tile. */
    p.out = suite_pick(s, 1, 9);
    p.q.group = suite_pick(s, 257, 300);
    p.in = p.q.group * suite_pick(s, 2, 3);
    return p;
}

static void weight(suite *s, const linear_case *p, arg_role role)
{
    eqi_dtype master = suite_master_dtype(p->dtype);
    arg *w = suite_arg(s, "w", role, CONTIGUOUS, master, DIMS(p->out, p->in));
    arg *step = suite_arg(s, "s", IN, CONTIGUOUS, master, DIMS(p->out, p->in / p->q.group));
    arg *zero = suite_arg(s, "z", IN, CONTIGUOUS, master, DIMS(p->out, p->in / p->q.group));
    arg_weight(s, w, step, zero, &p->q, false);
}

static void weight_arguments(suite *s, const linear_case *p) { weight(s, p, IN); }

static plain_fq weight_of(const suite *s, int w, const linear_case *p, int64_t i)
{
    int64_t g = group_of(p, i);
    return plain_quantize(s->arg[w].v.dtype == EQI_F64, s->arg[w].in[i], s->arg[w + 1].in[g],
                          s->arg[w + 2].in[g], p->q.bits, p->q.clamp);
}

static double seen(const suite *s, int w, const linear_case *p, int64_t i)
{
    return round_to(p->dtype, weight_of(s, w, p, i).value);
}

static const linear_case benched[] = {
    {.rows = 512, .out = 1536, .in = 576, .q = {2, 64, true}},
    {.rows = 4096, .out = 1536, .in = 576, .q = {2, 64, true}},
    {.rows = 4096, .out = 2048, .in = 2048, .q = {2, 64, true}},
    {0},
};

static const weight_form fake_quantized = {draw, weight_arguments, seen, benched};

/* ---- fq_linear ---- */
enum { Y, X, W, S, Z, BIAS };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->fq_linear(ctx, v[Y], v[X], v[W], v[S], v[Z], v[BIAS], &((const linear_case *)p)->q);
}

static void fq_linear(suite *s) { forward_cases(s, &fake_quantized, call); }

static void bench(suite *s) { bench_cases(s, &fake_quantized, 0, forward_arguments, call); }

/* ---- fq_linear_bwd_x ---- */
enum { DX, DY };

static eqat_status call_x(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                          const void *p)
{
    const linear_case *q = p;
    return b->fq_linear_bwd_x(ctx, v[DX], v[DY], v[W], v[S], v[Z], &q->q, q->acc);
}

static void fq_linear_bwd_x(suite *s) { bwd_x_cases(s, &fake_quantized, call_x); }

static void bench_x(suite *s) { bench_cases(s, &fake_quantized, 0, bwd_x_arguments, call_x); }

/* ---- fq_linear_bwd_w ---- */
enum { DW, DS, DZ, WDY, WX, WW };

static eqat_status call_w(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                          const void *p)
{
    const linear_case *q = p;
    return b->fq_linear_bwd_w(ctx, v[DW], v[DS], v[DZ], v[WDY], v[WX], v[WW], v[WW + 1], v[WW + 2],
                              &q->q, q->acc);
}

static void again_w(suite *s, const void *p)
{
    const linear_case *q = p;
    for (int i = DW; i <= DZ; i++)
        if (!s->arg[i].absent) plain_start(&s->arg[i]);
    for (int64_t i = 0; i < q->out * q->in; i++) {
        plain_fq f = weight_of(s, WW, q, i);
        int64_t g = group_of(q, i);
        for (int64_t r = 0; r < q->rows; r++) {
            double term =
                s->arg[WDY].in[r * q->out + i / q->in] * s->arg[WX].in[r * q->in + i % q->in];
            if (!s->arg[DW].absent && f.inside) plain_term(&s->arg[DW], i, term);
            if (!s->arg[DS].absent) plain_term(&s->arg[DS], g, term * f.coefficient_s);
            if (!s->arg[DZ].absent && !f.inside) plain_term(&s->arg[DZ], g, term * f.coefficient_z);
        }
    }
}

static void weight_case(suite *s, const linear_case *p)
{
    gradient_argument(s, p, "dw", p->present & 1, p->in);
    gradient_argument(s, p, "ds", p->present & 2, p->in / p->q.group);
    gradient_argument(s, p, "dz", p->present & 4, p->in / p->q.group);
    arg_flavour(s, suite_arg(s, "dy", IN, ROWS, p->dtype, DIMS(p->rows, p->out)), p->flavour);
    arg_normal(s, suite_arg(s, "x", IN, ROWS, p->dtype, DIMS(p->rows, p->in)), 1.0);
    weight(s, p, IN);
}

static void fq_linear_bwd_w(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        linear_case p = draw_case(s, &fake_quantized);
        /* Where a weight's gradient is infinite or not a number, what its s and z receive is not
         * worth agreeing on. */
        p.flavour = (flavour)suite_pick(s, NORMAL, ZERO);
        begin_case(s, &p, p.acc ? "acc" : "");
        p.present = (unsigned)suite_pick(s, 1, 7);
        weight_case(s, &p);
        suite_run(s, call_w, again_w, &p);
    }
}

static void bench_w(suite *s) { bench_cases(s, &fake_quantized, 7, weight_case, call_w); }

/* ---- fq_linear_update ---- */
enum { UDS, UDZ, UDY, UX, UW, US, UZ, UM, UV, SQUARES };

static const eqi_adamw_desc step = {
    .lr = 0.5f, .beta1 = 0.9f, .beta2 = 0.75f, .eps = 1e-8f, .weight_decay = 0.125f, .step = 3};

static eqat_status call_update(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                               const void *p)
{
    const eqi_update u = {.m = *v[UM], .v = *v[UV], .squares = *v[SQUARES], .d = step};
    return b->fq_linear_update(ctx, &u, v[UDS], v[UDZ], v[UDY], v[UX], v[UW], v[US], v[UZ],
                               &((const linear_case *)p)->q);
}

static const int watched[] = {UDY, UX, SQUARES};

static bool spoilt(const suite *s)
{
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
    const linear_case *q = p;
    bool bad = spoilt(s);
    if (bad) s->arg[SQUARES].again[0] = (double)NAN;
    for (int i = UDS; i <= UDZ; i++)
        for (int64_t k = 0; !s->arg[i].absent && k < s->arg[i].count; k++)
            s->arg[i].again[k] = bad ? (double)NAN : 0.0;
    for (int64_t i = 0; !bad && i < q->out * q->in; i++) {
        plain_fq f = weight_of(s, UW, q, i);
        int64_t group = group_of(q, i);
        double g = 0.0, mag = 0.0;
        for (int64_t r = 0; r < q->rows; r++) {
            double term =
                s->arg[UDY].in[r * q->out + i / q->in] * s->arg[UX].in[r * q->in + i % q->in];
            if (f.inside) g += term;
            if (f.inside) mag += fabs(term);
            if (!s->arg[UDS].absent) plain_term(&s->arg[UDS], group, term * f.coefficient_s);
            if (!s->arg[UDZ].absent && !f.inside)
                plain_term(&s->arg[UDZ], group, term * f.coefficient_z);
        }
        again_step(s, i, g, mag);
        s->arg[SQUARES].again[0] += g * g;
        s->arg[SQUARES].mag[0] += 3.0 * fabs(g) * mag;
    }
}

static void update_case(suite *s, const linear_case *p)
{
    eqi_dtype master = suite_master_dtype(p->dtype);
    flavour f = p->flavour;
    gradient_argument(s, p, "ds", p->present & 1, p->in / p->q.group);
    gradient_argument(s, p, "dz", p->present & 2, p->in / p->q.group);
    /* One alone is not finite, so that each must be looked at. */
    int bad = f > ZERO ? watched[suite_pick(s, 0, (int64_t)EQI_COUNT(watched) - 1)] : UDY;
    arg_flavour(s, suite_arg(s, "dy", IN, ROWS, p->dtype, DIMS(p->rows, p->out)),
                bad == UDY ? f : NORMAL);
    arg_flavour(s, suite_arg(s, "x", IN, ROWS, p->dtype, DIMS(p->rows, p->in)),
                bad == UX ? f : NORMAL);
    weight(s, p, ACC);
    arg *m = suite_arg(s, "m", ACC, CONTIGUOUS, master, DIMS(p->out, p->in));
    arg *v = suite_arg(s, "v", ACC, CONTIGUOUS, master, DIMS(p->out, p->in));
    arg_normal(s, m, 0.1);
    for (int64_t i = 0; i < v->count; i++) arg_set(v, i, 0.1 + suite_uniform(s));
    arg *squares = suite_arg(s, "squares", ACC, CONTIGUOUS, EQI_F64, DIMS(1));
    arg_set(squares, 0, suite_uniform(s));
    if (bad == SQUARES) arg_set(squares, 0, f == WITH_NAN ? (double)NAN : (double)INFINITY);
    squares->eps = 0x1p-20;
    for (int i = UW; i <= SQUARES; i++)
        if (s->arg[i].role == ACC)
            s->arg[i].match = p->dtype == EQI_F64 && i != SQUARES ? CLOSE : SAME;
    for (int i = UW; i < SQUARES && spoilt(s); i++) s->arg[i].match = EXACT;
}

static void fq_linear_update(suite *s)
{
    static const flavour flavours[] = {NORMAL, NORMAL, ZERO, WITH_NAN, WITH_INF};
    for (int i = 0; i < s->cases * 2; i++) {
        linear_case p = draw_case(s, &fake_quantized);
        p.acc = false;
        p.flavour = flavours[suite_pick(s, 0, (int64_t)EQI_COUNT(flavours) - 1)];
        begin_case(s, &p, flavour_name(p.flavour));
        p.present = (unsigned)suite_pick(s, 0, 3);
        update_case(s, &p);
        suite_run(s, call_update, again_update, &p);
    }
}

static void bench_update(suite *s) { bench_cases(s, &fake_quantized, 3, update_case, call_update); }

const kernel_check check_fq_linear[] = {
    {"fq_linear", fq_linear, NULL, bench},
    {"fq_linear_bwd_x", fq_linear_bwd_x, NULL, bench_x},
    {"fq_linear_bwd_w", fq_linear_bwd_w, NULL, bench_w},
    {"fq_linear_update", fq_linear_update, NULL, bench_update},
    {0},
};
