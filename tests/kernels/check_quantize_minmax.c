#include "plain.h"

enum { CODES, S, Z, W, MOST = 1056 };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->quantize_minmax(ctx, v[CODES], v[S], v[Z], v[W], p);
}

static double stored(double step)
{
    double r = round_to(EQI_F16, step);
    return r == 0.0 ? 0x1p-24 : isinf(r) ? 65504.0 : r;
}

static void again(suite *s, const void *p)
{
    const eqi_quant_desc *q = p;
    int64_t in = s->arg[W].v.shape[1], words = in / 32 * q->bits;
    uint32_t row[MOST / 32 * 8];
    int code[MOST];
    for (int64_t i = 0; i < s->arg[W].count; i++) {
        int64_t g = i / q->group, k = i % in;
        double *step = &s->arg[S].again[g], *zero = &s->arg[Z].again[g];
        if (i % q->group == 0) {
            plain_minmax(s->arg[W].in + i, q->group, q->bits, false, step, zero);
            *step = stored(*step);
            if (isnan(*zero)) *zero = 0.0;
        }
        double c = plain_quantize(false, s->arg[W].in[i], *step, *zero, q->bits, false).code;
        code[k] = isnan(c) ? 0 : (int)c;
        if (k < in - 1) continue;
        plain_pack(row, code, in, q->bits);
        for (int64_t j = 0; j < words; j++)
            s->arg[CODES].again[i / in * words + j] = (double)row[j];
    }
}

static void arguments(suite *s, const eqi_quant_desc *q, int64_t out, int64_t in)
{
    suite_arg(s, "codes", OUT, CONTIGUOUS, EQI_U32, DIMS(out, in / 32 * q->bits));
    suite_arg(s, "s", OUT, CONTIGUOUS, EQI_F32, DIMS(out, in / q->group))->match = EXACT;
    suite_arg(s, "z", OUT, CONTIGUOUS, EQI_U8, DIMS(out, in / q->group));
    suite_arg(s, "w", IN, CONTIGUOUS, EQI_F32, DIMS(out, in));
}

/* Groups of many kinds: one-sided, constant, zero, with outliers; subnormal, below and above what
 * fp16 steps reach; the largest range; ties between codes and their neighbours; weights that are
 * not finite. */
static void fill(suite *s, arg *w, const eqi_quant_desc *q)
{
    static const double scales[] = {0.02, 0.02, 0.02, 1.0, 1e-42, 1e-38, 1e-30, 1e-7, 1e5, 1e30};
    static const double odd[] = {(double)NAN, -(double)NAN, (double)INFINITY, -(double)INFINITY};
    double top = (double)((1 << q->bits) - 1);
    for (int64_t first = 0; first < w->count; first += q->group) {
        int kind = (int)suite_pick(s, 0, 9);
        double scale = scales[suite_pick(s, 0, 9)],
               shift = kind == 1 ? 5.0
            : kind == 2          ? -5.0
                                 : 0.0,
               step = stored(scale / top);
        double zero = (double)suite_pick(s, 0, (int64_t)top);
        for (int64_t i = 0; i < q->group; i++) {
            double v = scale * (suite_normal(s) + shift);
            if (kind == 3) v = 0.7 * scale;
            if (kind == 4) v = suite_coin(s) ? 0.0 : -0.0;
            if (kind == 5 && i == q->group / 2) v *= 1e4;
            if (kind == 6) v = suite_coin(s) ? (double)FLT_MAX : -(double)FLT_MAX;
            if (kind >= 7 && i > 1) {
                float tie =
                    (float)(step * ((double)suite_pick(s, 0, (int64_t)top - 1) + 0.5 - zero));
                v = (double)(suite_coin(s) ? tie
                                           : nextafterf(tie, suite_coin(s) ? INFINITY : -INFINITY));
            } else if (kind >= 7) {
                v = step * (i == 0 ? -zero : top - zero);
            }
            arg_set(w, first + i, v);
        }
        if (suite_pick(s, 0, 11) == 0)
            arg_set(w, first + suite_pick(s, 0, q->group - 1), odd[suite_pick(s, 0, 3)]);
    }
}

static void conform(suite *s)
{
    static const int64_t sizes[] = {32, 64, 96, 160, 256, 320, 768, MOST};
    static const int64_t groups[] = {16, 32, 64, 128, 256, 0, 0};
    for (int i = 0; i < s->cases * 3; i++) {
        int64_t in = sizes[suite_pick(s, 0, 7)], group = groups[suite_pick(s, 0, 6)];
        eqi_quant_desc q = {.bits = 2 + i % 7, .group = group};
        if (!group || in % group) q.group = suite_coin(s) ? in : random_group(s, in);
        int64_t out =
            i % 8 ? suite_pick(s, 1, 9) : 40; /* also enough rows for more than one thread */
        suite_begin(s, "N=%lld K=%lld bits %d group %lld", (long long)out, (long long)in, q.bits,
                    (long long)q.group);
        arguments(s, &q, out, in);
        fill(s, &s->arg[W], &q);
        suite_run(s, call, again, &q);
    }
}

/* -1, 0, 1, 2 repeated: s = 1, z = 1, codes 0, 1, 2, 3. Then 0.1 times that, whose s is the fp16
 * next to 0.1; a NaN. */
static void known(suite *s)
{
    const eqi_quant_desc q = {.bits = 2, .group = 32};
    double w[96];
    for (int i = 0; i < 96; i++) w[i] = (i < 32 ? 1.0 : 0.1) * (i % 4 - 1);
    w[70] = (double)NAN;
    suite_begin(s, "by hand");
    arguments(s, &q, 1, 96);
    arg_values(&s->arg[W], w);
    known_run(s, call, &q,
              (double[]){0xe4e4e4e4, 0xe4e4e4e4, 0xe4e4e4e4, 0xe4e4e4e4, 0, 0, 1, 0.0999755859375,
                         NAN, 1, 1, 0});
}

static void bench(suite *s)
{
    const eqi_quant_desc q = {.bits = 2, .group = 64};
    suite_begin(s, "N=1536 K=1536 bits 2 group 64");
    arguments(s, &q, 1536, 1536);
    arg_normal(s, &s->arg[W], 0.02);
    s->bytes = 1536.0 * 1536 * 4.25;
    suite_run(s, call, NULL, &q);
}

const kernel_check check_quantize_minmax[] = {{"quantize_minmax", conform, known, bench}, {0}};
