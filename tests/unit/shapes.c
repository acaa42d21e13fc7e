#include "each_test.h"
#include "unit.h"

static eqi_tape *tape;

static void open_tape(void) { OK(ctx, eqi_tape_create(ctx, &tape)); }
static void close_tape(void) { eqi_tape_free(tape); }

/* Every op refuses what does not fit, in one line that begins with its name and shows both shapes.
 */

static eqi_tensor *out;

static eqi_tensor *pool[64];
static int pooled;

static eqi_tensor *t(eqi_dtype dtype, dims shape)
{
    eqi_tensor *x = make(ctx, dtype, shape);
    OK(ctx, eqi_tensor_fill(x, 1));
    return pool[pooled++] = x;
}

static void drain(void)
{
    while (pooled) eqi_tensor_unref(pool[--pooled]);
}

#define F(...) t(EQI_F32, DIMS(__VA_ARGS__))
#define U(...) t(EQI_U32, DIMS(__VA_ARGS__))
#define REFUSES(message, expr)                            \
    do {                                                  \
        out = (eqi_tensor *)ctx;                          \
        FAILS(ctx, EQAT_INVALID_ARGUMENT, message, expr); \
        ck_assert_ptr_null(out);                          \
        ck_assert_uint_eq(tape->count, 0);                \
    } while (0)

/* The sum stays the caller's. */
#define REFUSES_IN_PLACE(message, y, weights)                              \
    do {                                                                   \
        FAILS(ctx, EQAT_INVALID_ARGUMENT, message,                         \
              eqi_op_scatter_rows(tape, &given, y, weights, rows, slots)); \
        ck_assert_ptr_eq(given, sum);                                      \
        ck_assert_uint_eq(tape->count, 0);                                 \
    } while (0)

START_TEST(pairs)
{
    REFUSES("add: a [2, 3] does not fit b [3, 2]", eqi_op_add(tape, F(2, 3), F(3, 2), &out));
    REFUSES("add: found b of dtype bf16, expected f32",
            eqi_op_add(tape, F(2), t(EQI_BF16, DIMS(2)), &out));
    REFUSES("add: found a of dtype i32, expected f32, bf16 or f64",
            eqi_op_add(tape, t(EQI_I32, DIMS(2)), F(2), &out));
    REFUSES("mul: a [2, 3] does not fit b [6]", eqi_op_mul(tape, F(2, 3), F(6), &out));
    REFUSES("mul: found an empty a [0, 3]", eqi_op_mul(tape, F(0, 3), F(0, 3), &out));
    REFUSES("gated: gate [2, 4] does not fit up [2, 5]",
            eqi_op_gated(tape, F(2, 4), F(2, 5), EQI_SILU, &out));
    REFUSES("gated: found activation 2, expected 0 to 1",
            eqi_op_gated(tape, F(2, 4), F(2, 4), EQI_ACTIVATION_COUNT, &out));
    REFUSES("mse: x [2, 4] does not fit target [8]", eqi_op_mse(tape, F(2, 4), F(8), &out));
    REFUSES("scale: found a of dtype u8, expected f32, bf16 or f64",
            eqi_op_scale(tape, t(EQI_U8, DIMS(2)), 1, &out));
    REFUSES("reshape: [2, 4] and [3, 3] differ in their number of elements",
            eqi_op_reshape(tape, F(2, 4), 2, DIMS(3, 3).at, &out));
    REFUSES("slice: found 3 elements from 2 on, expected a part of dimension 1 of [2, 4]",
            eqi_op_slice(tape, F(2, 4), 1, 2, 3, &out));
    REFUSES("transpose: found dimensions 0 and 2, expected two of [2, 4]",
            eqi_op_transpose(tape, F(2, 4), 0, 2, &out));
    REFUSES("cast: found output dtype f16, expected f32 or bf16",
            eqi_op_cast(tape, F(2, 4), EQI_F16, &out));
    REFUSES("cast: found output dtype f32, expected f64",
            eqi_op_cast(tape, t(EQI_F64, DIMS(4)), EQI_F32, &out));
    REFUSES("rmsnorm: x [2, 4] does not fit gain [5]",
            eqi_op_rmsnorm(tape, F(2, 4), F(5), 1e-5, 0, &out));
    eqi_tensor *half = t(EQI_BF16, DIMS(4));
    half->requires_grad = true;
    REFUSES("rmsnorm: found gain of dtype bf16, expected f32",
            eqi_op_rmsnorm(tape, F(2, 4), half, 1e-5, 0, &out));
    drain();
}
END_TEST

START_TEST(optimizer_step)
{
    const eqi_adamw_desc d = {.lr = 1, .step = 1};
    eqi_tensor *sum = t(EQI_F64, DIMS(1)), *strided;
    OK(ctx, eqi_tensor_slice(F(4, 4), &strided, 1, 0, 2));
    pool[pooled++] = strided;
#define STEP_REFUSES(message, expr) FAILS(ctx, EQAT_INVALID_ARGUMENT, message, expr)
    STEP_REFUSES("sum of squares: found sum of dtype f32, expected f64",
                 eqi_sum_squares(F(1), F(3)));
    STEP_REFUSES("sum of squares: g [4, 2] is not contiguous", eqi_sum_squares(sum, strided));
    STEP_REFUSES("clip factor: found factor [2], expected one element",
                 eqi_clip_factor(F(1), F(2), sum, 1, 1));
    STEP_REFUSES("adamw: p [2, 3] does not fit v [3, 2]",
                 eqi_adamw(F(2, 3), F(2, 3), F(2, 3), F(3, 2), NULL, &d));
    STEP_REFUSES("adamw: found g of dtype bf16, expected f32",
                 eqi_adamw(F(2), t(EQI_BF16, DIMS(2)), F(2), F(2), NULL, &d));
    STEP_REFUSES("adamw: p [4, 2] is not contiguous",
                 eqi_adamw(strided, F(4, 2), F(4, 2), F(4, 2), NULL, &d));
    STEP_REFUSES("adamw: found factor [2], expected one element",
                 eqi_adamw(F(3), F(3), F(3), F(3), F(2), &d));
    OK(ctx, eqi_adamw(F(0), F(0), F(0), F(0), NULL, &d));
    drain();
}
END_TEST

START_TEST(linear)
{
    eqi_quant_desc q = {.bits = 2, .group = 32};
    REFUSES("linear: x [2, 3, 64] does not fit w [5, 48]",
            eqi_op_linear(tape, F(2, 3, 64), &(eqi_weight){.w = F(5, 48)}, &out));
    REFUSES("linear: w [5, 64] does not fit bias [6]",
            eqi_op_linear(tape, F(2, 64), &(eqi_weight){.w = F(5, 64), .bias = F(6)}, &out));
    REFUSES("linear: found w [64], expected 2 dimensions",
            eqi_op_linear(tape, F(2, 64), &(eqi_weight){.w = F(64)}, &out));
    REFUSES("linear: found w of dtype f64, expected f32, bf16 or f16",
            eqi_op_linear(tape, F(2, 64), &(eqi_weight){.w = t(EQI_F64, DIMS(5, 64))}, &out));
    REFUSES(
        "linear: expected a weight w, or w with s and z, or codes with s and z",
        eqi_op_linear(tape, F(2, 64), &(eqi_weight){.w = F(5, 64), .s = F(5, 2), .q = q}, &out));
    REFUSES("linear: expected a weight w, or w with s and z, or codes with s and z",
            eqi_op_linear(tape, F(2, 64), &(eqi_weight){0}, &out));
    REFUSES("linear: s [5, 1] does not fit w [5, 64]",
            eqi_op_linear(tape, F(2, 64),
                          &(eqi_weight){.w = F(5, 64), .s = F(5, 1), .z = F(5, 2), .q = q}, &out));
    REFUSES("linear: z [4, 2] does not fit codes [5, 4]",
            eqi_op_linear(tape, F(2, 64),
                          &(eqi_weight){.codes = U(5, 4), .s = F(5, 2), .z = F(4, 2), .q = q},
                          &out));
    REFUSES("linear: x [2, 96] does not fit codes [5, 4]",
            eqi_op_linear(tape, F(2, 96),
                          &(eqi_weight){.codes = U(5, 4), .s = F(5, 2), .z = F(5, 2), .q = q},
                          &out));
    REFUSES("linear: found codes of dtype i32, expected u32",
            eqi_op_linear(
                tape, F(2, 64),
                &(eqi_weight){.codes = t(EQI_I32, DIMS(5, 4)), .s = F(5, 2), .z = F(5, 2), .q = q},
                &out));
    q.bits = 3;
    REFUSES("linear: found rows of 4 words, expected a multiple of 3 at 3 bits",
            eqi_op_linear(tape, F(2, 32),
                          &(eqi_weight){.codes = U(5, 4), .s = F(5, 1), .z = F(5, 1), .q = q},
                          &out));
    q.bits = 9;
    REFUSES("linear: bits: found 9, expected 2 to 8",
            eqi_op_linear(tape, F(2, 64),
                          &(eqi_weight){.w = F(5, 64), .s = F(5, 2), .z = F(5, 2), .q = q}, &out));
    drain();
}
END_TEST

START_TEST(positions_and_heads)
{
    REFUSES("rope: found x [2, 4, 8], expected 4 dimensions",
            eqi_op_rope(tape, F(2, 4, 8), F(4, 4), F(4, 4), NULL, &out));
    REFUSES("rope: x [2, 5, 1, 8] does not fit cos [4, 4]",
            eqi_op_rope(tape, F(2, 5, 1, 8), F(4, 4), F(4, 4), NULL, &out));
    REFUSES("rope: x [2, 4, 1, 6] does not fit cos [4, 4]",
            eqi_op_rope(tape, F(2, 4, 1, 6), F(4, 4), F(4, 4), NULL, &out));
    REFUSES("rope: cos [4, 4] does not fit sin [5, 4]",
            eqi_op_rope(tape, F(2, 4, 1, 8), F(4, 4), F(5, 4), NULL, &out));
    REFUSES("rope: x [2, 4, 1, 8] does not fit positions [4, 2]",
            eqi_op_rope(tape, F(2, 4, 1, 8), F(4, 4), F(4, 4), t(EQI_I32, DIMS(4, 2)), &out));
    eqi_tensor *pos = t(EQI_I32, DIMS(1, 2));
    put(pos, 1, 4);
    REFUSES("rope: found position 4 at position 1, expected 0 to 3",
            eqi_op_rope(tape, F(1, 2, 1, 8), F(4, 4), F(4, 4), pos, &out));
    eqi_attention_desc d = {.scale = 1, .causal = true};
    REFUSES("attention: q [1, 4, 3, 8] does not fit k [1, 4, 2, 8]",
            eqi_op_attention(tape, F(1, 4, 3, 8), F(1, 4, 2, 8), F(1, 4, 2, 8), NULL, &d, &out));
    REFUSES("attention: k [1, 4, 2, 8] does not fit v [1, 5, 2, 8]",
            eqi_op_attention(tape, F(1, 4, 2, 8), F(1, 4, 2, 8), F(1, 5, 2, 8), NULL, &d, &out));
    REFUSES("attention: k [1, 4, 2, 8] does not fit segments [1, 3]",
            eqi_op_attention(tape, F(1, 4, 2, 8), F(1, 4, 2, 8), F(1, 4, 2, 8),
                             t(EQI_I32, DIMS(1, 3)), &d, &out));
    d.q_offset = 2;
    REFUSES("attention: found 3 queries from position 2 on, expected at most 4 positions",
            eqi_op_attention(tape, F(1, 3, 2, 8), F(1, 4, 2, 8), F(1, 4, 2, 8), NULL, &d, &out));
    d.window = -1;
    REFUSES("attention: found window -1 and query offset 2, expected at least 0",
            eqi_op_attention(tape, F(1, 2, 2, 8), F(1, 4, 2, 8), F(1, 4, 2, 8), NULL, &d, &out));
    drain();
}
END_TEST

START_TEST(ids_and_labels)
{
    eqi_tensor *ids = t(EQI_I32, DIMS(2, 2)), *labels = t(EQI_I32, DIMS(2)), *n;
    put(ids, 3, 7);
    REFUSES("embedding: found id 7 at position 3, expected 0 to 6",
            eqi_op_embedding(tape, ids, F(7, 4), EQI_F32, &out));
    put(ids, 3, -1);
    REFUSES("embedding: found id -1 at position 3, expected 0 to 6",
            eqi_op_embedding(tape, ids, F(7, 4), EQI_F32, &out));
    REFUSES("embedding: found id of dtype f32, expected i32",
            eqi_op_embedding(tape, F(2), F(7, 4), EQI_F32, &out));
    REFUSES("embedding: found output dtype f16, expected f32 or bf16",
            eqi_op_embedding(tape, labels, F(7, 4), EQI_F16, &out));
    REFUSES("embedding: found table [7], expected 2 dimensions",
            eqi_op_embedding(tape, labels, F(7), EQI_F32, &out));
    REFUSES("embedding: found ids [1, 1, 1, 1], expected 1 to 3 dimensions, none of them 0",
            eqi_op_embedding(tape, t(EQI_I32, DIMS(1, 1, 1, 1)), F(7, 4), EQI_F32, &out));
    put(labels, 1, 7);
    REFUSES("linear_cross_entropy: found label 7 at position 1, expected 0 to 6",
            eqi_op_linear_cross_entropy(tape, F(2, 4), F(7, 4), labels, NULL, &out, &n));
    ck_assert_ptr_null(n);
    REFUSES("linear_cross_entropy: x [3, 4] does not fit labels [2]",
            eqi_op_linear_cross_entropy(tape, F(3, 4), F(7, 4), labels, NULL, &out, NULL));
    REFUSES("linear_cross_entropy: x [2, 4] does not fit w [7, 5]",
            eqi_op_linear_cross_entropy(tape, F(2, 4), F(7, 5), labels, NULL, &out, NULL));
    REFUSES("kl_divergence: logits [2, 4] does not fit target [2, 5]",
            eqi_op_kl_divergence(tape, F(2, 4), F(2, 5), labels, &out));
    REFUSES("kl_divergence: logits [3, 4] does not fit labels [2]",
            eqi_op_kl_divergence(tape, F(3, 4), F(3, 4), labels, &out));
    REFUSES("kl_divergence: found logits of dtype bf16, expected f32",
            eqi_op_kl_divergence(tape, t(EQI_BF16, DIMS(2, 4)), F(2, 4), NULL, &out));
    REFUSES("kl_divergence: found labels of dtype f32, expected i32",
            eqi_op_kl_divergence(tape, F(2, 4), F(2, 4), F(2), &out));
    drain();
}
END_TEST

START_TEST(experts)
{
    eqi_tensor *index, *rows = t(EQI_I32, DIMS(2)), *slots = t(EQI_I32, DIMS(2)), *sum = F(3, 4),
                       *given = sum;
    REFUSES("route: found 5 experts a row, expected 1 to 4",
            eqi_op_route(tape, F(2, 4), 5, false, &out, &index));
    ck_assert_ptr_null(index);
    REFUSES("gather_rows: found x [2, 3, 4], expected 2 dimensions",
            eqi_op_gather_rows(tape, F(2, 3, 4), rows, &out));
    REFUSES("gather_rows: found row of dtype f32, expected i32",
            eqi_op_gather_rows(tape, F(3, 4), F(2), &out));
    put(rows, 1, 3);
    REFUSES("gather_rows: found row 3 at position 1, expected 0 to 2",
            eqi_op_gather_rows(tape, F(3, 4), rows, &out));
    REFUSES_IN_PLACE("scatter_rows: sum [3, 4] does not fit y [2, 5]", F(2, 5), F(3, 2));
    REFUSES_IN_PLACE("scatter_rows: sum [3, 4] does not fit weights [2, 2]", F(2, 4), F(2, 2));
    REFUSES_IN_PLACE("scatter_rows: y [3, 4] does not fit rows [2]", F(3, 4), F(3, 2));
    REFUSES_IN_PLACE("scatter_rows: found row 3 at position 1, expected 0 to 2", F(2, 4), F(3, 2));
    put(rows, 1, 2);
    put(slots, 0, 2);
    REFUSES_IN_PLACE("scatter_rows: found slot 2 at position 0, expected 0 to 1", F(2, 4), F(3, 2));
    drain();
}
END_TEST

START_TEST(quantizer)
{
    eqi_quant_desc q = {.bits = 2, .group = 100};
    FAILS(ctx, EQAT_INVALID_ARGUMENT,
          "group size: found 100, expected a divisor of the row length 576",
          eqi_quant_desc_check(ctx, &q, 576));
    q.group = 0;
    ck_assert_int_eq(eqi_quant_desc_check(ctx, &q, 576), EQAT_INVALID_ARGUMENT);
    q = (eqi_quant_desc){.bits = 1, .group = 64};
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "bits: found 1, expected 2 to 8",
          eqi_quant_desc_check(ctx, &q, 576));
    q.bits = 8;
    OK(ctx, eqi_quant_desc_check(ctx, &q, 576));
    q = (eqi_quant_desc){.bits = 2, .group = 8};
    REFUSES("quantize: found a row length of 40, expected a multiple of 32",
            eqi_quantize(F(2, 40), F(2, 5), F(2, 5), &q, &out));
    REFUSES("quantize: s [2, 4] does not fit w [2, 64]",
            eqi_quantize(F(2, 64), F(2, 4), F(2, 8), &q, &out));
    REFUSES("quantize: found w of dtype i32, expected f32, bf16 or f16",
            eqi_quantize(t(EQI_I32, DIMS(2, 64)), F(2, 8), F(2, 8), &q, &out));
    REFUSES("fakequant: z [2, 7] does not fit w [2, 64]",
            eqi_op_fakequant(tape, F(2, 64), F(2, 8), F(2, 7), &q, EQI_F32, &out));
    REFUSES("fakequant: found output dtype f16, expected f32 or bf16",
            eqi_op_fakequant(tape, F(2, 64), F(2, 8), F(2, 8), &q, EQI_F16, &out));
    eqi_weight packed = {.codes = t(EQI_U32, DIMS(2, 4)), .s = F(2, 8), .z = F(2, 8), .q = q};
    REFUSES("dequantize: found output dtype i32, expected f32 or bf16",
            eqi_dequantize(&packed, EQI_I32, &out));
    eqi_tensor *z;
    q.group = 48;
    REFUSES("quantizer start: group size: found 48, expected a divisor of the row length 64",
            eqi_quant_minmax(F(2, 64), &q, &out, &z));
    q.group = 16;
    REFUSES("quantizer start: h [63] does not fit w [2, 64]",
            eqi_quant_search(F(2, 64), F(63), &q, &out, &z));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "second moments: x [2, 64] does not fit sum [63]",
          eqi_second_moments(F(2, 64), F(63)));
    ck_assert_ptr_null(z);
    drain();
}
END_TEST

START_TEST(doubles_only_where_they_compute)
{
    eqi_ctx *fast = open_ctx("cpu");
    if (!fast->backend->f64) {
        eqi_tape *its;
        OK(fast, eqi_tape_create(fast, &its));
        eqi_tensor *x = make(fast, EQI_F64, DIMS(4, 4));
        FAILS(fast, EQAT_INVALID_ARGUMENT, "scale: found a of dtype f64, expected f32 or bf16",
              eqi_op_scale(its, x, 1, &out));
        eqi_tensor_unref(x);
        eqi_tape_free(its);
    }
    eqi_ctx_unref(fast);
}
END_TEST

/* Weights that do not train may have another dtype than the kernels want. */
START_TEST(parameters_are_converted)
{
    eqi_tensor *x = F(2, 4), *gain = t(EQI_BF16, DIMS(4)), *w = t(EQI_F16, DIMS(3, 4)),
               *bias = t(EQI_F16, DIMS(3));
    OK(ctx, eqi_op_rmsnorm(tape, x, gain, 0, 0, &out));
    ck_assert_double_eq(get(out, 3), 1);
    eqi_tensor_unref(out);
    OK(ctx, eqi_op_linear(tape, x, &(eqi_weight){.w = w, .bias = bias}, &out));
    ck_assert_double_eq(get(out, 5), 5);
    eqi_tensor_unref(out);
    drain();
}
END_TEST

/* Round trip through packed codes, at every width, against the definition. */
START_TEST(quantize_and_back)
{
    for (int bits = 2; bits <= 8; bits++) {
        eqi_quant_desc q = {.bits = bits, .group = 16};
        eqi_tensor *w = make_random(ctx, EQI_F32, DIMS(3, 64), (uint32_t)bits, 1), *s, *z, *codes,
                   *back;
        for (int mse = 0; mse < 2; mse++) {
            OK(ctx, mse ? eqi_quant_search(w, NULL, &q, &s, &z) : eqi_quant_minmax(w, &q, &s, &z));
            OK(ctx, eqi_quantize(w, s, z, &q, &codes));
            ck_assert_int_eq(codes->v.shape[1], 2 * bits);
            eqi_weight packed = {.codes = codes, .s = s, .z = z, .q = q};
            ck_assert_int_eq(eqi_weight_in(&packed), 64);
            ck_assert_int_eq(eqi_weight_out(&packed), 3);
            OK(ctx, eqi_dequantize(&packed, EQI_F32, &back));
            for (int i = 0; i < 3 * 64; i++) {
                float step = (float)get(s, i / 16), zero = (float)get(z, i / 16),
                      u = rintf((float)get(w, i) / step) + zero;
                float top = (float)((1 << bits) - 1), code = u < 0 ? 0 : u > top ? top : u;
                ck_assert_double_eq(get(back, i), (code - zero) * step);
            }
            /* A frozen zero point gives the same. */
            eqi_tensor *z8, *again;
            OK(ctx, eqi_tensor_cast(z, EQI_U8, &z8));
            packed.z = z8;
            OK(ctx, eqi_dequantize(&packed, EQI_F32, &again));
            ck_assert(same_bits(back, again));
            eqi_tensor *used[] = {s, z, codes, back, z8, again};
            for (size_t i = 0; i < EQI_COUNT(used); i++) eqi_tensor_unref(used[i]);
        }
        eqi_tensor_unref(w);
    }
}
END_TEST

TCase *case_shapes(void)
{
    TCase *c = tcase_create("shapes");
    tcase_add_checked_fixture(c, setup_ref, teardown);
    tcase_add_checked_fixture(c, open_tape, close_tape);
    tcase_add_test(c, pairs);
    tcase_add_test(c, optimizer_step);
    tcase_add_test(c, linear);
    tcase_add_test(c, positions_and_heads);
    tcase_add_test(c, ids_and_labels);
    tcase_add_test(c, experts);
    tcase_add_test(c, quantizer);
    tcase_add_test(c, doubles_only_where_they_compute);
    tcase_add_test(c, parameters_are_converted);
    tcase_add_test(c, quantize_and_back);
    return c;
}
