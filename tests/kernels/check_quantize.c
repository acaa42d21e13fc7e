#include <stdlib.h>

#include "plain.h"

static int64_t packed_size(suite *s)
{
    static const int64_t sizes[] = {32, 64, 96, 128, 160, 256, 320};
    return sizes[suite_pick(s, 0, 6)];
}

/* ---- quantize ---- */
enum { CODES, W, S, Z };

static eqat_status call(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v, const void *p)
{
    return b->quantize(ctx, v[CODES], v[W], v[S], v[Z], p);
}

static void again(suite *s, const void *p)
{
    const eqi_quant_desc *q = p;
    int64_t out = s->arg[W].v.shape[0], in = s->arg[W].v.shape[1], words = in / 32 * q->bits;
    uint32_t row[320 / 32 * 8];
    int code[320];
    for (int64_t n = 0; n < out; n++) {
        for (int64_t k = 0; k < in; k++) {
            int64_t g = n * (in / q->group) + k / q->group;
            double c = plain_quantize(s->arg[S].v.dtype == EQI_F64, s->arg[W].in[n * in + k],
                                      s->arg[S].in[g], s->arg[Z].in[g], q->bits, false)
                           .code;
            code[k] = isnan(c) ? 0 : (int)c;
        }
        plain_pack(row, code, in, q->bits);
        for (int64_t i = 0; i < words; i++) s->arg[CODES].again[n * words + i] = (double)row[i];
    }
}

/* Steps as they are stored, and steps far from these; weights at the ties between codes, next to
 * them, and beyond the ends. */
static void stored(suite *s, arg *w, arg *step, const eqi_quant_desc *q)
{
    static const float odd[] = {0x1p-24f,  65504.0f, 0x1p-64f,  0x1p64f, 0x1p-65f, 0x1p65f,
                                0x1p-126f, 1e-40f,   0x1p-149f, FLT_MAX, INFINITY};
    int64_t in = w->v.shape[1], groups = in / q->group, top = (1 << q->bits) - 1;
    for (int64_t g = 0; g < step->count; g++)
        arg_set(step, g,
                (double)(suite_pick(s, 0, 5) ? eqi_stored_scale((float)arg_value(step, g))
                                             : odd[suite_pick(s, 0, 10)]));
    for (int64_t i = 0; i < w->count; i++) {
        double st = arg_value(step, i / in * groups + i % in / q->group);
        float v = (float)(st * ((double)suite_pick(s, -top - 2, top + 1) + 0.5));
        if (suite_coin(s)) v = nextafterf(v, suite_coin(s) ? INFINITY : -INFINITY);
        if (suite_pick(s, 0, 99) == 0) v = suite_coin(s) ? FLT_MAX : -FLT_MAX;
        arg_set(w, i, (double)v);
    }
}

static void quantize(suite *s)
{
    for (int i = 0; i < s->cases * 3; i++) {
        int64_t out = suite_pick(s, 1, 9), in = packed_size(s);
        eqi_quant_desc q = {
            .bits = 2 + i % 7, .group = random_group(s, in), .clamp = suite_coin(s)};
        bool wide = s->b->f64 && i % 5 == 0;
        eqi_dtype dtype = wide ? EQI_F64 : EQI_F32, weight = suite_weight_dtype(s, dtype);
        eqi_dtype zeros = suite_coin(s) ? EQI_U8 : dtype;
        suite_begin(s, "N=%lld K=%lld bits %d group %lld w %s z %s", (long long)out, (long long)in,
                    q.bits, (long long)q.group, eqi_dtype_name(weight), eqi_dtype_name(zeros));
        suite_arg(s, "codes", OUT, CONTIGUOUS, EQI_U32, DIMS(out, in / 32 * q.bits));
        arg *w = suite_arg(s, "w", IN, CONTIGUOUS, weight, DIMS(out, in));
        arg *step = suite_arg(s, "s", IN, CONTIGUOUS, dtype, DIMS(out, in / q.group));
        arg *zero = suite_arg(s, "z", IN, CONTIGUOUS, zeros, DIMS(out, in / q.group));
        arg_weight(s, w, step, zero, &q, i % 3 > 0);
        if (!wide && suite_coin(s)) stored(s, w, step, &q);
        if (zeros != EQI_U8 && i % 3 == 0) arg_sprinkle(s, zero, (double)NAN, 5);
        suite_run(s, call, again, &q);
    }
}

/* Codes 0, 1, 2, 3 repeated, at 2 bits: 0b11100100 in every byte. At 3 bits 0..7 repeated is the
 * stream of octal digits 0o76543210 = 0xfac688, little end first. */
static void quantize_known(suite *s)
{
    for (int bits = 2; bits <= 3; bits++) {
        double w[32], two[] = {0xe4e4e4e4, 0xe4e4e4e4},
                      three[] = {0x88fac688, 0xc688fac6, 0xfac688fa};
        for (int i = 0; i < 32; i++) w[i] = i % (1 << bits) - 1;
        suite_begin(s, "by hand, %d bits", bits);
        suite_arg(s, "codes", OUT, CONTIGUOUS, EQI_U32, DIMS(1, bits));
        arg_values(suite_arg(s, "w", IN, CONTIGUOUS, EQI_F32, DIMS(1, 32)), w);
        arg_values(suite_arg(s, "s", IN, CONTIGUOUS, EQI_F32, DIMS(1, 1)), (double[]){1.0});
        arg_values(suite_arg(s, "z", IN, CONTIGUOUS, EQI_U8, DIMS(1, 1)), (double[]){1.0});
        known_run(s, call, &(eqi_quant_desc){.bits = bits, .group = 32}, bits == 2 ? two : three);
    }
}

static void bench(suite *s)
{
    eqi_quant_desc q = {.bits = 2, .group = 64};
    suite_begin(s, "N=1536 K=1536 bits 2 group 64");
    suite_arg(s, "codes", OUT, CONTIGUOUS, EQI_U32, DIMS(1536, 96));
    arg *w = suite_arg(s, "w", IN, CONTIGUOUS, EQI_F32, DIMS(1536, 1536));
    arg *step = suite_arg(s, "s", IN, CONTIGUOUS, EQI_F32, DIMS(1536, 24));
    arg *zero = suite_arg(s, "z", IN, CONTIGUOUS, EQI_F32, DIMS(1536, 24));
    arg_weight(s, w, step, zero, &q, false);
    s->bytes = 1536.0 * 1536 * 4.25;
    suite_run(s, call, NULL, &q);
}

/* ---- dequantize ---- */
enum { WHAT, DCODES };

static eqat_status call_dequantize(const eqi_backend *b, eqi_ctx *ctx, const eqi_view *const *v,
                                   const void *p)
{
    return b->dequantize(ctx, v[WHAT], v[DCODES], v[S], v[Z], p);
}

static void again_dequantize(suite *s, const void *p)
{
    const eqi_quant_desc *q = p;
    arg *what = &s->arg[WHAT];
    int64_t in = what->v.shape[1], words = in / 32 * q->bits;
    uint32_t row[320 / 32 * 8];
    for (int64_t i = 0; i < what->count; i++) {
        int64_t g = i / in * (in / q->group) + i % in / q->group;
        for (int64_t j = 0; j < words; j++)
            row[j] = (uint32_t)s->arg[DCODES].in[i / in * words + j];
        double top = (double)((1 << q->bits) - 1),
               zero = fmin(fmax(rint(s->arg[Z].in[g]), 0.0), top);
        double offset = (double)plain_unpack(row, i % in, q->bits) - zero, step = s->arg[S].in[g];
        what->again[i] = s->arg[S].v.dtype == EQI_F64
            ? offset * step
            : round_to(what->v.dtype, (double)((float)offset * (float)step));
    }
}

static void dequantize(suite *s)
{
    for (int i = 0; i < s->cases * 3; i++) {
        int64_t out = suite_pick(s, 1, 9), in = packed_size(s);
        eqi_quant_desc q = {
            .bits = 2 + i % 7, .group = random_group(s, in), .clamp = suite_coin(s)};
        if (suite_coin(s)) q.group = whole_group(s, in);
        bool wide = s->b->f64 && i % 5 == 0;
        eqi_dtype dtype = wide ? EQI_F64 : EQI_F32,
                  what = wide ? EQI_F64
            : suite_coin(s)   ? EQI_F32
                              : EQI_BF16;
        eqi_dtype zeros = suite_coin(s) ? EQI_U8 : dtype;
        suite_begin(s, "N=%lld K=%lld bits %d group %lld %s z %s", (long long)out, (long long)in,
                    q.bits, (long long)q.group, eqi_dtype_name(what), eqi_dtype_name(zeros));
        suite_arg(s, "what", OUT, CONTIGUOUS, what, DIMS(out, in))->match = EXACT;
        arg_whole(s, suite_arg(s, "codes", IN, CONTIGUOUS, EQI_U32, DIMS(out, in / 32 * q.bits)), 0,
                  UINT32_MAX);
        arg *step = suite_arg(s, "s", IN, CONTIGUOUS, dtype, DIMS(out, in / q.group));
        arg *zero = suite_arg(s, "z", IN, CONTIGUOUS, zeros, DIMS(out, in / q.group));
        arg_normal(s, step, 0.1); /* an imported step may be anything: negative, tiny, 0 */
        arg_sprinkle(s, step, 0.0, 9);
        arg_sprinkle(s, step, 1e-30, 9);
        for (int64_t g = 0; g < zero->count; g++)
            arg_set(zero, g,
                    zeros == EQI_U8 ? (double)suite_pick(s, 0, (1 << q.bits) - 1)
                                    : (double)(1 << q.bits) * (1.4 * suite_uniform(s) - 0.2));
        suite_run(s, call_dequantize, again_dequantize, &q);
    }
}

static void bench_dequantize(suite *s)
{
    for (int i = 0; i < 4; i++) {
        eqi_quant_desc q = {.bits = 2 + i / 2, .group = 64};
        eqi_dtype what = i % 2 ? EQI_BF16 : EQI_F32;
        suite_begin(s, "%s N=1536 K=1536 bits %d group 64", eqi_dtype_name(what), q.bits);
        suite_arg(s, "what", OUT, CONTIGUOUS, what, DIMS(1536, 1536));
        arg_whole(s, suite_arg(s, "codes", IN, CONTIGUOUS, EQI_U32, DIMS(1536, 48 * q.bits)), 0,
                  UINT32_MAX);
        arg_normal(s, suite_arg(s, "s", IN, CONTIGUOUS, EQI_F32, DIMS(1536, 24)), 0.1);
        arg_whole(s, suite_arg(s, "z", IN, CONTIGUOUS, EQI_U8, DIMS(1536, 24)), 0, 3);
        s->bytes = 1536.0 * 1536 * (q.bits / 8.0 + (double)eqi_dtype_size(what));
        suite_run(s, call_dequantize, NULL, &q);
    }
}

const kernel_check check_quantize[] = {
    {"quantize", quantize, quantize_known, bench},
    {"dequantize", dequantize, NULL, bench_dequantize},
    {0},
};
