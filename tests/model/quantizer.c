/* The calls that take a tensor at hand. */
#include <math.h>

#include "base/half.h"
#include "base/rng.h"
#include "cases.h"
#include "quant/freeze.h"

static eqat_quantizer *quantizer_of(eqi_ctx *ctx, int bits, int group, eqat_init init)
{
    eqat_quantizer_options o;
    eqat_quantizer *q;
    eqat_quantizer_options_init(&o, sizeof o);
    o.bits = bits;
    o.group_size = group;
    o.init = (int32_t)init;
    OK(ctx, eqat_quantizer_create(ctx, &q, &o));
    return q;
}

static eqi_tensor *weight(eqi_ctx *ctx, eqi_dtype dtype, int64_t out, int64_t in)
{
    eqi_tensor *w32, *w;
    OK(ctx, eqi_tensor_create(ctx, &w32, EQI_F32, 2, (int64_t[]){out, in}));
    float *x = w32->v.data;
    for (int64_t i = 0; i < out * in; i++)
        x[i] = 0.02f * (float)eqi_rng_normal(7, EQI_RNG_USER, (uint64_t)i);
    OK(ctx, eqi_tensor_cast(w32, dtype, &w));
    eqi_tensor_unref(w32);
    return w;
}

static void same_bytes(const eqi_tensor *a, const eqi_tensor *b)
{
    ck_assert_int_eq(a->v.dtype, b->v.dtype);
    ck_assert_int_eq(eqi_view_count(&a->v), eqi_view_count(&b->v));
    ck_assert_mem_eq(a->v.data, b->v.data,
                     (size_t)eqi_view_count(&a->v) * eqi_dtype_size(a->v.dtype));
}

/* The one call gives what the steps give. */
START_TEST(quantize_is_init_and_pack)
{
    eqi_ctx *ctx = open_ctx("cpu");
    static const int groups[] = {16, 64, -1};
    for (int i = 0; i < 12; i++) {
        eqat_quantizer *q =
            quantizer_of(ctx, 2 + i % 3, groups[i % 3], i < 6 ? EQAT_INIT_MINMAX : EQAT_INIT_MSE);
        eqi_tensor *w = weight(ctx, i % 2 ? EQI_F32 : EQI_BF16, 5, 192), *s, *z, *codes, *s2, *z2,
                   *codes2, *u8;
        OK(ctx, eqat_quantizer_quantize(q, w, &s, &z, &codes));
        OK(ctx, eqat_quantizer_init(q, w, NULL, true, &s2, &z2));
        OK(ctx, eqat_quantizer_pack(q, w, s2, z2, &codes2));
        OK(ctx, eqi_tensor_cast(z2, EQI_U8, &u8));
        same_bytes(s, s2);
        same_bytes(z, u8);
        same_bytes(codes, codes2);
        eqi_tensor *used[] = {w, s, z, codes, s2, z2, codes2, u8};
        for (size_t k = 0; k < EQI_COUNT(used); k++) eqi_tensor_unref(used[k]);
        eqat_quantizer_free(q);
    }
    eqi_ctx_unref(ctx);
}
END_TEST

START_TEST(quantize_bad_weights)
{
    eqi_ctx *ctx = open_ctx("cpu");
    eqat_quantizer *q = quantizer_of(ctx, 2, 16, EQAT_INIT_MINMAX);
    eqi_tensor *odd = weight(ctx, EQI_F32, 2, 48), *narrow = weight(ctx, EQI_F32, 2, 40), *flat, *s,
               *z, *codes;
    OK(ctx, eqi_tensor_create(ctx, &flat, EQI_F32, 1, (int64_t[]){64}));
    says(ctx, eqat_quantizer_quantize(q, odd, &s, &z, &codes), EQAT_INVALID_ARGUMENT,
         "row length of 48, expected a multiple of 32");
    ck_assert(!s && !z && !codes);
    says(ctx, eqat_quantizer_quantize(q, narrow, &s, &z, &codes), EQAT_INVALID_ARGUMENT,
         "a divisor of the row length 40");
    ck_assert(!s && !z && !codes);
    says(ctx, eqat_quantizer_quantize(q, flat, &s, &z, &codes), EQAT_INVALID_ARGUMENT,
         "a weight of 1 dimensions, expected 2");
    ck_assert(!s && !z && !codes);
    eqi_tensor *used[] = {odd, narrow, flat};
    for (size_t k = 0; k < EQI_COUNT(used); k++) eqi_tensor_unref(used[k]);
    eqat_quantizer_free(q);
    eqi_ctx_unref(ctx);
}
END_TEST

/* A step of 0 is one that was imported; what underflows keeps its group and its sign. */
START_TEST(steps_as_a_file_stores_them)
{
    static const float steps[][2] = {{0.0f, 0.0f},
                                     {-0.0f, -0.0f},
                                     {1e-30f, 0x1p-24f},
                                     {-1e-30f, -0x1p-24f},
                                     {0x1p-149f, 0x1p-24f},
                                     {-0x1p-149f, -0x1p-24f},
                                     {0x1p-25f, 0x1p-24f},
                                     {0x1p-23f, 0x1p-23f},
                                     {-0x1p-23f, -0x1p-23f},
                                     {0.1f, 0.0999755859375f},
                                     {-0.1f, -0.0999755859375f},
                                     {1e5f, 65504.0f},
                                     {-1e30f, -65504.0f},
                                     {INFINITY, 65504.0f}};
    eqi_ctx *ctx = open_ctx("cpu");
    eqi_tensor *s;
    OK(ctx, eqi_tensor_create(ctx, &s, EQI_F32, 1, (int64_t[]){EQI_COUNT(steps)}));
    float *x = s->v.data;
    for (size_t i = 0; i < EQI_COUNT(steps); i++) x[i] = steps[i][0];
    OK(ctx, eqi_quant_round_s(s));
    for (size_t i = 0; i < EQI_COUNT(steps); i++)
        ck_assert_msg(eqi_f32_bits(x[i]) == eqi_f32_bits(steps[i][1]), "%a: found %a, expected %a",
                      (double)steps[i][0], (double)x[i], (double)steps[i][1]);
    x[0] = NAN;
    OK(ctx, eqi_quant_round_s(s));
    ck_assert(isnan(x[0]));
    eqi_tensor_unref(s);
    eqi_ctx_unref(ctx);
}
END_TEST

TCase *case_quantizer(void)
{
    TCase *c = tcase_create("quantizer");
    tcase_add_test(c, quantize_is_init_and_pack);
    tcase_add_test(c, quantize_bad_weights);
    tcase_add_test(c, steps_as_a_file_stores_them);
    return c;
}
