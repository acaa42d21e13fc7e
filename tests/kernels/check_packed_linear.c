#include "quantized_linear.h"

static linear_case draw(suite *s)
{
    eqi_dtype dtype = suite_compute_dtype(s);
    linear_case p = {.rows = odd_rows(s),
                     .out = odd_size(s, 130),
                     .in = 32 * suite_pick(s, 1, 7),
                     .acc = suite_coin(s)};
    p.q = (eqi_quant_desc){
        .bits = (int)suite_pick(s, 2, 8), .group = random_group(s, p.in), .clamp = suite_coin(s)};
    p.zeros = suite_coin(s) ? EQI_U8 : suite_master_dtype(dtype);
    p.dtype = dtype;
    int kind = (int)suite_pick(s, 0, 9);
    if (kind < 4) return p;
    if (kind < 9) {
        /* Few rows of x and groups as models have them, for what a backend does without a weight
         * in memory. */
        static const int64_t rows[] = {1, 2, 3, 7, 16}, groups[] = {32, 64, 96, 128};
        if (p.rows) p.rows = rows[suite_pick(s, 0, 4)];
        p.q.bits = (int)suite_pick(s, 2, 4);
        p.q.group = groups[suite_pick(s, 0, 3)];
        p.in = p.q.group * suite_pick(s, 1, 17);
        p.out = suite_pick(s, 1, 40);
        return p;
    }
    /* Several groups in a row, none of them within a tile. */
    p.out = suite_pick(s, 1, 9);
    p.q.group = 288;
    p.in = p.q.group * suite_pick(s, 2, 3);
    return p;
}

static void weight_arguments(suite *s, const linear_case *p)
{
    double top = (double)((1 << p->q.bits) - 1);
    arg_whole(s,
              suite_arg(s, "codes", IN, CONTIGUOUS, EQI_U32, DIMS(p->out, p->in / 32 * p->q.bits)),
              0, UINT32_MAX);
    arg_normal(s,
               suite_arg(s, "s", IN, CONTIGUOUS, suite_master_dtype(p->dtype),
                         DIMS(p->out, p->in / p->q.group)),
               1.0 / top);
    arg *zero = suite_arg(s, "z", IN, CONTIGUOUS, p->zeros, DIMS(p->out, p->in / p->q.group));
    for (int64_t g = 0; g < zero->count; g++)
        arg_set(zero, g,
                p->zeros == EQI_U8 ? (double)suite_pick(s, 0, (int64_t)top)
                                   : top * (1.4 * suite_uniform(s) - 0.2));
}

/* q - z' of weight i, from the arguments that begin at `codes` */
static double offset_of(const suite *s, int codes, const linear_case *p, int64_t i)
{
    double top = (double)((1 << p->q.bits) - 1);
    uint32_t block[8];
    for (int j = 0; j < p->q.bits; j++)
        block[j] = (uint32_t)s->arg[codes].in[i / 32 * p->q.bits + j];
    return (double)plain_unpack(block, i % 32, p->q.bits) -
        fmin(fmax(rint(s->arg[codes + 2].in[group_of(p, i)]), 0.0), top);
}

static double seen(const suite *s, int codes, const linear_case *p, int64_t i)
{
    double step = s->arg[codes + 1].in[group_of(p, i)], offset = offset_of(s, codes, p, i);
    return p->dtype == EQI_F64 ? offset * step
                               : round_to(p->dtype, (double)((float)offset * (float)step));
}

static const linear_case benched[] = {
    {.rows = 512, .out = 1536, .in = 576, .q = {2, 64, false}, .zeros = EQI_U8},
    {.rows = 1, .out = 2048, .in = 2048, .q = {2, 64, false}, .zeros = EQI_U8},
    {.rows = 4096, .out = 1536, .in = 576, .q = {2, 64, false}, .zeros = EQI_U8},
    {.rows = 4096, .out = 2048, .in = 2048, .q = {3, 64, false}, .zeros = EQI_U8},
    {0},
};

static const weight_form packed = {draw, weight_arguments, seen, benched};

/* ---- packed_linear ---- */
enum { Y, X, CODES, S, Z, BIAS };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->packed_linear(ctx, v[Y], v[X], v[CODES], v[S], v[Z], v[BIAS],
                            &((const linear_case *)p)->q);
}

static void packed_linear(suite *s) { forward_cases(s, &packed, call); }

/* The widths of models: long rows, and many. */
static void packed_linear_known(suite *s)
{
    static const struct {
        int rows, out, in, bits, group;
        eqi_dtype dtype, zeros;
    } sizes[] = {
        {1, 64, 4096, 2, 64, EQI_BF16, EQI_U8},    {2, 1024, 128, 3, 128, EQI_F32, EQI_F32},
        {7, 4096, 64, 4, 32, EQI_BF16, EQI_U8},    {16, 64, 4096, 2, 128, EQI_BF16, EQI_F32},
        {16, 40, 4160, 4, 4160, EQI_BF16, EQI_U8}, {5, 50, 2112, 3, 192, EQI_BF16, EQI_U8},
        {1, 16400, 64, 2, 64, EQI_BF16, EQI_U8},   {9, 8200, 64, 3, 64, EQI_BF16, EQI_U8},
    };
    for (size_t i = 0; i < EQI_COUNT(sizes); i++) {
        linear_case p = {.rows = sizes[i].rows,
                         .out = sizes[i].out,
                         .in = sizes[i].in,
                         .q = {sizes[i].bits, sizes[i].group, false},
                         .dtype = sizes[i].dtype,
                         .zeros = sizes[i].zeros,
                         .form = &packed,
                         .aligned = true,
                         .present = i % 2};
        forward_case(s, &p, call);
    }
}

static void bench(suite *s) { bench_cases(s, &packed, 0, forward_arguments, call); }

/* ---- packed_linear_bwd_x ---- */
enum { DX, DY };

static eqat_status call_x(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                          const void *p)
{
    const linear_case *q = p;
    return b->packed_linear_bwd_x(ctx, v[DX], v[DY], v[CODES], v[S], v[Z], &q->q, q->acc);
}

static void packed_linear_bwd_x(suite *s) { bwd_x_cases(s, &packed, call_x); }

static void bench_x(suite *s) { bench_cases(s, &packed, 0, bwd_x_arguments, call_x); }

/* ---- packed_linear_bwd_sz ---- */
enum { DS, DZ, SDY, SX, SCODES };

static eqat_status call_sz(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                           const void *p)
{
    const linear_case *q = p;
    return b->packed_linear_bwd_sz(ctx, v[DS], v[DZ], v[SDY], v[SX], v[SCODES], v[SCODES + 1],
                                   v[SCODES + 2], &q->q, q->acc);
}

static void again_sz(suite *s, const void *p)
{
    const linear_case *q = p;
    plain_start(&s->arg[DS]);
    if (!s->arg[DZ].absent) plain_start(&s->arg[DZ]);
    for (int64_t i = 0; i < q->out * q->in; i++) {
        double offset = offset_of(s, SCODES, q, i);
        int64_t g = group_of(q, i);
        for (int64_t r = 0; r < q->rows; r++) {
            double term =
                s->arg[SDY].in[r * q->out + i / q->in] * s->arg[SX].in[r * q->in + i % q->in];
            plain_term(&s->arg[DS], g, term * offset);
            if (!s->arg[DZ].absent) plain_term(&s->arg[DZ], g, -term * s->arg[SCODES + 1].in[g]);
        }
    }
}

static void step_case(suite *s, const linear_case *p)
{
    gradient_argument(s, p, "ds", true, p->in / p->q.group);
    gradient_argument(s, p, "dz", p->present, p->in / p->q.group);
    arg_flavour(s, suite_arg(s, "dy", IN, ROWS, p->dtype, DIMS(p->rows, p->out)), p->flavour);
    arg_normal(s, suite_arg(s, "x", IN, ROWS, p->dtype, DIMS(p->rows, p->in)), 1.0);
    weight_arguments(s, p);
}

static void packed_linear_bwd_sz(suite *s)
{
    for (int i = 0; i < s->cases * 2; i++) {
        linear_case p = draw_case(s, &packed);
        /* Where a gradient is infinite or not a number, what the sums make of it is not worth
         * agreeing on. */
        p.flavour = (flavour)suite_pick(s, NORMAL, ZERO);
        begin_case(s, &p, p.acc ? "acc" : "");
        p.present = suite_coin(s);
        step_case(s, &p);
        suite_run(s, call_sz, again_sz, &p);
    }
}

static void bench_sz(suite *s) { bench_cases(s, &packed, 0, step_case, call_sz); }

const kernel_check check_packed_linear[] = {
    {"packed_linear", packed_linear, packed_linear_known, bench},
    {"packed_linear_bwd_x", packed_linear_bwd_x, NULL, bench_x},
    {"packed_linear_bwd_sz", packed_linear_bwd_sz, NULL, bench_sz},
    {0},
};
