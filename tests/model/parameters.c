#include "cases.h"
#include "each_test.h"

static eqat_model *model;

static void open_llama(void)
{
    write_model(ctx, dir, tiny_find("llama")->config, EQI_STORED_BF16, NULL);
    model = open_model(ctx, dir, EQAT_BF16);
}

static void close_llama(void) { eqat_model_free(model); }

static size_t count_names(void)
{
    size_t n = 0;
    while (eqat_model_parameter_name(model, n)) n++;
    return n;
}

START_TEST(names_are_parameters)
{
    ck_assert_str_eq(eqat_model_parameter_name(model, 0), "model.embed_tokens.weight");
    ck_assert_str_eq(eqat_model_parameter_name(model, 1), "model.layers.0.self_attn.q_proj.weight");
    ck_assert_str_eq(eqat_model_parameter_name(model, 2), "model.layers.0.self_attn.q_proj.bias");
    /* embeddings, two blocks of 7 weights, 7 biases and 2 norms, final norm; the head is tied */
    ck_assert_uint_eq(count_names(), 1 + 2 * 16 + 1);
    for (size_t i = 0; i < count_names(); i++) {
        eqat_tensor *t;
        OK(ctx, eqat_model_parameter(model, eqat_model_parameter_name(model, i), &t));
        ck_assert(t->v.dtype == EQI_F32);
    }
    eqat_tensor *t;
    says(ctx, eqat_model_parameter(model, "lm_head.weight", &t), EQAT_NOT_FOUND,
         "no parameter is named lm_head.weight");
    says(ctx, eqat_model_parameter(model, "model.layers.0.self_attn.q_proj.scales", &t),
         EQAT_NOT_FOUND, "q_proj.scales");
}
END_TEST

START_TEST(packed_linears_have_three)
{
    eqat_quantizer *q = make_quantizer(ctx, 3, 32);
    OK(ctx, eqat_model_quantize_rtn(model, q, NULL));
    ck_assert_uint_eq(count_names(), 1 + 2 * (7 * 4 + 2) + 1);
    eqat_tensor *codes, *s, *z, *t;
    OK(ctx, eqat_model_parameter(model, "model.layers.1.mlp.down_proj.codes", &codes));
    OK(ctx, eqat_model_parameter(model, "model.layers.1.mlp.down_proj.scales", &s));
    OK(ctx, eqat_model_parameter(model, "model.layers.1.mlp.down_proj.zeros", &z));
    ck_assert(codes->v.dtype == EQI_U32 && codes->v.shape[0] == 64 && codes->v.shape[1] == 9);
    ck_assert(s->v.dtype == EQI_F32 && s->v.shape[0] == 64 && s->v.shape[1] == 3);
    ck_assert(z->v.dtype == EQI_U8 && z->v.shape[1] == 3);
    says(ctx, eqat_model_parameter(model, "model.layers.1.mlp.down_proj.weight", &t),
         EQAT_NOT_FOUND, "down_proj.weight");
    says(ctx, eqat_model_quantize_rtn(model, q, NULL), EQAT_INVALID_ARGUMENT,
         "model.layers.0.self_attn.q_proj: already quantized");
    eqat_quantizer_free(q);
}
END_TEST

/* Masters in memory and weights read block by block in the compute dtype are the same model. */
START_TEST(masters_change_no_logit)
{
    eqat_model *other = open_model(ctx, dir, EQAT_BF16);
    eqat_tensor *t;
    for (size_t i = 0; i < count_names(); i++)
        OK(ctx, eqat_model_parameter(model, eqat_model_parameter_name(model, i), &t));
    same_logits(model, other, 9);
    eqat_model_free(other);
}
END_TEST

START_TEST(inspection)
{
    eqat_model_info info = {.struct_size = sizeof info};
    OK(ctx, eqat_model_inspect(model, &info));
    int64_t linear = 2 * (64 * 64 * 2 + 32 * 64 * 2 + 96 * 64 * 3);
    int64_t rest = 50 * 64 + 64 + 2 * (2 * 64 + 64 + 32 * 2 + 64 + 96 * 2 + 64);
    ck_assert_str_eq(info.family, "llama");
    ck_assert_int_eq(info.linear_parameters, linear);
    ck_assert_int_eq(info.parameters, linear + rest);
    ck_assert_int_eq(info.bytes, 2 * (linear + rest));
    ck_assert(info.linear_bits == 16 && !info.quantized && info.tied_embeddings &&
              info.blocks == 2);
    eqat_quantizer *q = make_quantizer(ctx, 2, 32);
    OK(ctx, eqat_model_quantize_rtn(model, q, NULL));
    eqat_quantizer_free(q);
    OK(ctx, eqat_model_inspect(model, &info));
    ck_assert(info.quantized && info.linear_bits == 2 + 18 / 32.0);
    ck_assert_int_eq(info.parameters, linear + rest);

    eqat_linear_info one = {.struct_size = sizeof one};
    ck_assert_int_eq(eqat_model_linear_count(model, 1), 7);
    ck_assert_int_eq(eqat_model_linear_count(model, 2), 0);
    OK(ctx, eqat_model_linear(model, 1, 6, &one));
    ck_assert_str_eq(one.name, "model.layers.1.mlp.down_proj");
    ck_assert(one.out_features == 64 && one.in_features == 96 && one.bits == 2 &&
              one.group_size == 32);
    static const int64_t inputs[] = {0, 0, 0, 3, 4, 4, 6};
    for (int64_t i = 0; i < 7; i++) {
        OK(ctx, eqat_model_linear(model, 1, i, &one));
        ck_assert_int_eq(one.input, inputs[i]);
    }
    says(ctx, eqat_model_linear(model, 1, 7, &one), EQAT_INVALID_ARGUMENT,
         "found linear 7 of block 1");
    /* A caller from before a field was added gets what fits. */
    eqat_model_info old = {.struct_size = offsetof(eqat_model_info, hidden_size),
                           .hidden_size = -5};
    OK(ctx, eqat_model_inspect(model, &old));
    ck_assert(old.blocks == 2 && old.hidden_size == -5);
}
END_TEST

TCase *case_parameters(void)
{
    TCase *tc = tcase_create("parameters");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_checked_fixture(tc, open_llama, close_llama);
    tcase_add_test(tc, names_are_parameters);
    tcase_add_test(tc, packed_linears_have_three);
    tcase_add_test(tc, masters_change_no_logit);
    tcase_add_test(tc, inspection);
    return tc;
}
