/* A pass in pieces, and linears from elsewhere. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cases.h"
#include "each_test.h"

static eqat_model *model;

static void open_tiny(const char *name, eqat_dtype compute)
{
    write_model(ctx, dir, tiny_find(name)->config, EQI_STORED_F32, NULL);
    model = open_model(ctx, dir, compute);
}

static void close_tiny(void)
{
    eqat_model_free(model);
    model = NULL;
}

static const int32_t text[12] = {1, 7, 49, 0, 3, 3, 8, 21, 5, 30, 2, 11};
static const int32_t positions[12] = {0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4, 5};
static const int32_t segments[12] = {0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0};

static eqat_batch text_batch(void)
{
    eqat_batch b;
    eqat_batch_init(&b, sizeof b);
    b.batch = 2;
    b.time = 6;
    b.ids = text;
    return b;
}

static int64_t blocks(void)
{
    eqat_model_info info = {.struct_size = sizeof info};
    OK(ctx, eqat_model_inspect(model, &info));
    return info.blocks;
}

/* Embedding and all blocks. */
static eqat_tensor *hidden(eqat_tape *tape, const eqat_batch *b, bool with_batch)
{
    eqat_tensor *x, *y;
    OK(ctx, eqat_model_embed(model, tape, b, &x));
    for (int64_t i = 0; i < blocks(); i++) {
        OK(ctx, eqat_model_block(model, tape, i, x, with_batch ? b : NULL, &y));
        eqat_tensor_free(x);
        x = y;
    }
    return x;
}

static bool same_bytes(const eqat_tensor *a, const eqat_tensor *b)
{
    size_t n = (size_t)eqat_tensor_count(a) * eqat_dtype_size(eqat_tensor_dtype(a));
    return eqat_tensor_dtype(a) == eqat_tensor_dtype(b) &&
        eqat_tensor_count(a) == eqat_tensor_count(b) && memcmp(a->v.data, b->v.data, n) == 0;
}

START_TEST(pieces_make_the_forward_pass)
{
    open_tiny(tiny_models[_i / 2].name, _i % 2 ? EQAT_BF16 : EQAT_F32);
    eqat_batch b = text_batch();
    for (int marked = 0; marked < 2; marked++) {
        eqat_tensor *whole, *pieces;
        eqat_tape *tape;
        if (marked) b.positions = positions, b.segments = segments;
        b.keep_activations = marked;
        OK(ctx, eqat_tape_create(ctx, &tape));
        OK(ctx, eqat_model_forward(model, NULL, &b, &whole));
        eqat_tensor *x = hidden(tape, &b, marked);
        OK(ctx, eqat_model_logits(model, tape, x, 0, &pieces));
        ck_assert(same_bytes(whole, pieces));
        eqat_tensor_free(whole);
        eqat_tensor_free(pieces);
        eqat_tensor_free(x);
        eqat_tape_free(tape);
    }
    close_tiny();
}
END_TEST

START_TEST(what_is_not_known_of_a_batch_is_refused)
{
    open_tiny("llama", EQAT_F32);
    struct {
        eqat_batch known;
        const float *weights;
    } n = {.known = text_batch()};
    eqat_tensor *logits;
    eqat_tape *tape;
    OK(ctx, eqat_tape_create(ctx, &tape));
    n.known.struct_size = sizeof n;
    OK(ctx, eqat_model_forward(model, NULL, &n.known, &logits));
    eqat_tensor_free(logits);
    n.weights = (const float *)text;
    says(ctx, eqat_model_forward(model, NULL, &n.known, &logits), EQAT_UNSUPPORTED,
         "batch: found byte");
    says(ctx, eqat_model_embed(model, tape, &n.known, &logits), EQAT_UNSUPPORTED,
         "batch: found byte");
    n.known.struct_size = sizeof n.known;
    n.known.reserved[0] = 1;
    says(ctx, eqat_model_loss(model, NULL, &n.known, &logits, NULL), EQAT_UNSUPPORTED,
         "batch: found byte");
    n.known.struct_size = offsetof(eqat_batch, labels); /* the rest is not looked at */
    OK(ctx, eqat_model_forward(model, NULL, &n.known, &logits));
    eqat_tensor_free(logits);
    n.known.struct_size = 0;
    says(ctx, eqat_model_forward(model, NULL, &n.known, &logits), EQAT_INVALID_ARGUMENT,
         "batch: struct_size: found 0");
    eqat_tape_free(tape);
    close_tiny();
}
END_TEST

START_TEST(last_logits_are_the_last)
{
    open_tiny("llama", EQAT_BF16);
    eqat_batch b = text_batch();
    eqat_tape *tape;
    eqat_tensor *all, *last, *none = NULL;
    OK(ctx, eqat_tape_create(ctx, &tape));
    eqat_tensor *x = hidden(tape, &b, false);
    OK(ctx, eqat_model_logits(model, tape, x, 0, &all));
    OK(ctx, eqat_model_logits(model, tape, x, 2, &last));
    ck_assert_int_eq(eqat_tensor_size(last, 1), 2);
    for (int64_t i = 0; i < 2; i++)
        for (int64_t j = 0; j < 2 * 50; j++) { /* so few rows are summed in another order */
            const double expected = get(all, i * 300 + 200 + j);
            ck_assert_double_eq_tol(get(last, i * 100 + j), expected, 1e-5 + 1e-6 * fabs(expected));
        }
    says(ctx, eqat_model_logits(model, tape, x, 7, &none), EQAT_INVALID_ARGUMENT,
         "last_n: found 7, expected 0 to 6");
    says(ctx, eqat_model_block(model, tape, 2, x, NULL, &none), EQAT_INVALID_ARGUMENT,
         "found block 2, expected one of 2");
    says(ctx, eqat_model_block(model, tape, 0, all, NULL, &none), EQAT_INVALID_ARGUMENT,
         "x: found f32 [2, 6, 50], expected bf16 [2, 6, 64]");
    b.time = 3;
    says(ctx, eqat_model_block(model, tape, 0, x, &b, &none), EQAT_INVALID_ARGUMENT,
         "expected bf16 [2, 3, 64]");
    b.ids = NULL;
    says(ctx, eqat_model_embed(model, tape, &b, &none), EQAT_INVALID_ARGUMENT,
         "neither ids nor embeddings");
    says(ctx, eqat_model_embed(model, NULL, &b, &none), EQAT_INVALID_ARGUMENT, "tape");
    ck_assert_ptr_null(none);
    eqat_tensor *used[] = {all, last, x};
    for (size_t i = 0; i < EQI_COUNT(used); i++) eqat_tensor_free(used[i]);
    eqat_tape_free(tape);
    close_tiny();
}
END_TEST

/* ---- gradients ---- */

static const char *const trained[] = {"model.embed_tokens.weight",
                                      "model.layers.0.self_attn.q_proj.weight",
                                      "model.layers.1.mlp.down_proj.weight",
                                      "model.layers.0.input_layernorm.weight", "model.norm.weight"};
enum { TRAINED = EQI_COUNT(trained) };

static void parameters(eqat_tensor **t)
{
    for (int i = 0; i < TRAINED; i++) {
        OK(ctx, eqat_model_parameter(model, trained[i], &t[i]));
        OK(ctx, eqat_tensor_set_requires_grad(t[i], true));
    }
}

/* The gradients so far, which go. */
static void take(eqat_tensor **t, eqat_tensor **gradients)
{
    for (int i = 0; i < TRAINED; i++) {
        ck_assert_ptr_nonnull(eqat_tensor_grad(t[i]));
        gradients[i] = eqat_tensor_ref(eqat_tensor_grad(t[i]));
        eqat_tensor_zero_grad(t[i]);
    }
}

static void all_same(eqat_tensor **a, eqat_tensor **b)
{
    for (int i = 0; i < TRAINED; i++) {
        ck_assert_msg(same_bytes(a[i], b[i]), "%s", trained[i]);
        eqat_tensor_free(b[i]);
    }
}

START_TEST(pieces_have_the_gradients_of_the_loss)
{
    open_tiny("llama", _i ? EQAT_BF16 : EQAT_F32);
    eqat_batch b = text_batch();
    eqat_tensor *t[TRAINED], *wanted[TRAINED], *found[TRAINED], *loss, *x, *normed, *labels;
    int32_t shifted[12];
    for (int i = 0; i < 12; i++) shifted[i] = i % 6 < 5 ? text[i + 1] : -1;
    eqat_tape *tape;
    parameters(t);
    OK(ctx, eqat_tape_create(ctx, &tape));
    OK(ctx, eqat_model_loss(model, tape, &b, &loss, NULL));
    OK(ctx, eqat_tape_backward(tape, loss, 1));
    eqat_tensor_free(loss);
    take(t, wanted);
    OK(ctx, eqat_tensor_create(ctx, &labels, EQAT_I32, 2, DIMS(2, 6).at, shifted));
    for (int keep = 0; keep < 2; keep++) {
        b.keep_activations = keep;
        x = hidden(tape, &b, true);
        OK(ctx, eqat_op_rmsnorm(tape, x, t[4], model->config.eps, 0, &normed));
        OK(ctx, eqat_op_linear_cross_entropy(tape, normed, t[0], labels, &loss, NULL));
        OK(ctx, eqat_tape_backward(tape, loss, 1));
        take(t, found);
        all_same(wanted, found);
        eqat_tensor *used[] = {x, normed, loss};
        for (size_t i = 0; i < EQI_COUNT(used); i++) eqat_tensor_free(used[i]);
    }
    for (int i = 0; i < TRAINED; i++) eqat_tensor_free(wanted[i]);
    eqat_tensor_free(labels);
    eqat_tape_free(tape);
    close_tiny();
}
END_TEST

/* d mean((logits - 0)^2) is 2 / n logits: from it, backward gives what the loss gives; so it does
 * through the whole model at once. */
START_TEST(backward_from_a_gradient_is_backward_of_its_loss)
{
    open_tiny("qwen3", EQAT_F32);
    eqat_batch b = text_batch();
    eqat_tensor *t[TRAINED], *wanted[TRAINED], *found[TRAINED], *logits, *zero, *loss, *gradient;
    eqat_tape *tape;
    parameters(t);
    OK(ctx, eqat_tape_create(ctx, &tape));
    OK(ctx, eqat_tensor_create(ctx, &zero, EQAT_F32, 3, DIMS(2, 6, 50).at, NULL));
    OK(ctx, eqat_model_forward(model, tape, &b, &logits));
    OK(ctx, eqat_op_mse(tape, logits, zero, &loss));
    OK(ctx, eqat_tape_backward(tape, loss, 3));
    take(t, wanted);
    eqat_tensor *used[] = {logits, zero, loss};
    for (size_t i = 0; i < EQI_COUNT(used); i++) eqat_tensor_free(used[i]);
    eqat_tensor *x = hidden(tape, &b, false);
    OK(ctx, eqat_model_logits(model, tape, x, 0, &logits));
    OK(ctx, eqat_op_scale(tape, logits, 2.0 * 3 / (2 * 6 * 50), &gradient));
    OK(ctx, eqat_tape_backward_from(tape, logits, gradient));
    take(t, found);
    eqat_tensor *used_again[] = {x, logits, gradient};
    for (size_t i = 0; i < EQI_COUNT(used_again); i++) eqat_tensor_free(used_again[i]);
    for (int i = 0; i < TRAINED; i++) {
        int64_t n = eqat_tensor_count(wanted[i]);
        double most = 0;
        for (int64_t k = 0; k < n; k++) most = fmax(most, fabs(get(wanted[i], k)));
        ck_assert_double_gt(most, 0);
        for (int64_t k = 0; k < n; k++)
            ck_assert_double_eq_tol(get(found[i], k), get(wanted[i], k), 1e-5 * most);
        eqat_tensor_free(wanted[i]);
        eqat_tensor_free(found[i]);
    }
    eqat_tape_free(tape);
    close_tiny();
}
END_TEST

/* ---- linears from elsewhere ---- */

static void packed_of(const eqat_linear_info *l, eqat_tensor **t)
{
    static const char *const parts[] = {"codes", "scales", "zeros"};
    char name[160];
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%s.%s", l->name, parts[i]);
        OK(ctx, eqat_model_parameter(model, name, &t[i]));
        eqat_tensor_ref(t[i]);
    }
}

static eqat_linear_info linear_info(int64_t block, int64_t i)
{
    eqat_linear_info l = {.struct_size = sizeof l};
    OK(ctx, eqat_model_linear(model, block, i, &l));
    return l;
}

/* What one model was rounded to, put into another: the same folder, and the same logits. */
START_TEST(linears_from_elsewhere_make_the_same_folder)
{
    open_tiny("llama", EQAT_BF16);
    eqat_model *rounded = model, *other = open_model(ctx, dir, EQAT_BF16);
    eqat_quantizer *q = make_quantizer(ctx, 3, 32);
    OK(ctx, add_rule(q, "*.down_proj", 4, 16));
    OK(ctx, add_rule(q, "*.layers.1.self_attn.o_proj", 0, 0));
    OK(ctx, eqat_model_quantize_rtn(model, q, NULL));
    for (int64_t b = 0; b < blocks(); b++)
        for (int64_t i = 0; i < eqat_model_linear_count(model, b); i++) {
            eqat_linear_info l = linear_info(b, i);
            if (!l.bits) continue;
            eqat_tensor *t[3];
            packed_of(&l, t);
            OK(ctx, eqat_model_set_linear(other, b, i, t[0], t[1], t[2]));
            OK(ctx, eqat_tensor_fill(t[1], 1)); /* it was a copy */
            for (int k = 0; k < 3; k++) eqat_tensor_free(t[k]);
        }
    model = open_model(ctx, dir, EQAT_BF16);
    OK(ctx, eqat_model_quantize_rtn(model, q, NULL));
    same_logits(model, other, 8);
    char wanted[512], found[512];
    snprintf(wanted, sizeof wanted, "%s/wanted", dir);
    snprintf(found, sizeof found, "%s/found", dir);
    OK(ctx, eqat_model_save(model, wanted, NULL));
    OK(ctx, eqat_model_save(other, found, NULL));
    ck_assert(same_folders(wanted, found));
    eqat_quantizer_free(q);
    eqat_model_free(rounded);
    eqat_model_free(other);
    close_tiny();
}
END_TEST

/* fp16, half to even: ten bits behind the first one, 2^-24 at least apart.  What is not zero must
 * not become it, nor infinite: that would lose a group. */
static double to_fp16(double x)
{
    double step = ldexp(1, x == 0 || ilogb(x) < -14 ? -24 : ilogb(x) - 10);
    double near = rint(x / step) * step;
    if (near == 0 && x != 0) near = copysign(ldexp(1, -24), x);
    return fabs(near) > 65504 ? copysign(65504, x) : near;
}

START_TEST(scales_from_elsewhere_are_rounded)
{
    static const double special[] = {0,         0.1,        -0.1,    1e-9,  1e-6, 0x1.002p0,
                                     0x1.006p0, 0x1.0021p0, 0x3p-25, 65519, 7e4,  -1e6};
    open_tiny("llama", EQAT_F32);
    eqat_linear_info l = linear_info(0, 0);
    int64_t out = l.out_features, in = l.in_features, groups = in / 16;
    eqat_tensor *codes, *z, *found[3], *s = make_random(ctx, EQI_F32, DIMS(out, groups), 3, 0.01);
    OK(ctx, eqat_tensor_create(ctx, &codes, EQAT_U32, 2, DIMS(out, in / 32 * 2).at, NULL));
    OK(ctx, eqat_tensor_create(ctx, &z, EQAT_U8, 2, DIMS(out, groups).at, NULL));
    for (size_t i = 0; i < EQI_COUNT(special); i++) put(s, (int64_t)i, special[i]);
    OK(ctx, eqat_model_set_linear(model, 0, 0, codes, s, z));
    l = linear_info(0, 0);
    packed_of(&l, found);
    for (int64_t i = 0; i < out * groups; i++)
        ck_assert_msg(get(found[1], i) == to_fp16(get(s, i)), "%lld: found %.9g of %.9g",
                      (long long)i, get(found[1], i), get(s, i));
    eqat_tensor *used[] = {codes, s, z, found[0], found[1], found[2]};
    for (size_t i = 0; i < EQI_COUNT(used); i++) eqat_tensor_free(used[i]);
    close_tiny();
}
END_TEST

START_TEST(bad_linears_are_refused)
{
    open_tiny("llama", EQAT_F32);
    eqat_linear_info l = linear_info(0, 0);
    eqat_tensor *codes, *s, *z, *narrow;
    int64_t out = l.out_features, in = l.in_features, groups = in / 16;
    OK(ctx, eqat_tensor_create(ctx, &codes, EQAT_U32, 2, DIMS(out, in / 32 * 2).at, NULL));
    OK(ctx, eqat_tensor_create(ctx, &narrow, EQAT_U32, 2, DIMS(out - 1, in / 32 * 2).at, NULL));
    OK(ctx, eqat_tensor_create(ctx, &s, EQAT_F32, 2, DIMS(out, groups).at, NULL));
    OK(ctx, eqat_tensor_create(ctx, &z, EQAT_U8, 2, DIMS(out, groups).at, NULL));
    says(ctx, eqat_model_set_linear(model, 0, 99, codes, s, z), EQAT_INVALID_ARGUMENT,
         "found linear 99 of block 0");
    says(ctx, eqat_model_set_linear(model, 0, 0, narrow, s, z), EQAT_INVALID_ARGUMENT,
         "q_proj.codes: found u32");
    says(ctx, eqat_model_set_linear(model, 0, 0, codes, s, s), EQAT_INVALID_ARGUMENT,
         "q_proj.zeros: found f32");
    says(ctx, eqat_model_set_linear(model, 0, 0, codes, codes, z), EQAT_INVALID_ARGUMENT,
         "q_proj.scales: found u32");
    ((unsigned char *)z->v.data)[5] = 4;
    says(ctx, eqat_model_set_linear(model, 0, 0, codes, s, z), EQAT_INVALID_ARGUMENT,
         "q_proj.zeros: found 4 at 5, expected 0 to 3");
    ((float *)s->v.data)[3] = NAN;
    says(ctx, eqat_model_set_linear(model, 0, 0, codes, s, z), EQAT_NUMERIC,
         "q_proj.scales: found nan at 3");
    ck_assert_int_eq(linear_info(0, 0).bits, 0);
    eqat_tensor *used[] = {codes, s, z, narrow};
    for (size_t i = 0; i < EQI_COUNT(used); i++) eqat_tensor_free(used[i]);
    close_tiny();
}
END_TEST

TCase *case_pieces(void)
{
    TCase *tc = tcase_create("pieces");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, pieces_make_the_forward_pass, 0, 2 * (int)n_tiny_models);
    tcase_add_test(tc, what_is_not_known_of_a_batch_is_refused);
    tcase_add_test(tc, last_logits_are_the_last);
    tcase_add_loop_test(tc, pieces_have_the_gradients_of_the_loss, 0, 2);
    tcase_add_test(tc, backward_from_a_gradient_is_backward_of_its_loss);
    tcase_add_test(tc, linears_from_elsewhere_make_the_same_folder);
    tcase_add_test(tc, scales_from_elsewhere_are_rounded);
    tcase_add_test(tc, bad_linears_are_refused);
    return tc;
}
