#include <sys/stat.h>
#include <unistd.h>

#include "cases.h"
#include "each_test.h"

static const char *in, *out;

static void make_paths(void)
{
    in = in_dir(dir, "in");
    out = in_dir(dir, "out");
    mkdir(in, 0777);
}

static void quantize(eqat_model *m, int bits, int group)
{
    eqat_quantizer *q = make_quantizer(ctx, bits, group);
    OK(ctx, eqat_model_quantize_rtn(m, q, NULL));
    eqat_quantizer_free(q);
}

/* The folder opens again and is the model in memory; saved once more it is the same folder. */
static void round_trip(eqat_model *m, eqat_dtype compute, bool quantized)
{
    OK(ctx, eqat_model_save(m, out, NULL));
    eqat_model *again = open_model(ctx, out, compute);
    eqat_model_info a = {.struct_size = sizeof a}, b = {.struct_size = sizeof b};
    OK(ctx, eqat_model_inspect(m, &a));
    OK(ctx, eqat_model_inspect(again, &b));
    ck_assert(b.quantized == quantized && a.bytes == b.bytes && a.linear_bits == b.linear_bits &&
              a.parameters == b.parameters);
    same_logits(m, again, 11);
    const char *twice = in_dir(dir, "twice");
    char command[4096];
    OK(ctx, eqat_model_save(again, twice, NULL));
    snprintf(command, sizeof command, "diff -r '%s' '%s'", out, twice);
    ck_assert_int_eq(system(command), 0);
    eqat_model_free(again);
}

static const int widths[] = {2, 3, 4, 8};
static const eqi_stored dtypes[] = {EQI_STORED_F32, EQI_STORED_BF16, EQI_STORED_F16};

/* Every family at every width, in rotation through stored and compute types. */
START_TEST(what_is_evaluated_is_what_is_saved)
{
    int bits = widths[_i % 4];
    const tiny *t = &tiny_models[_i / 4];
    eqat_dtype compute = _i % 2 ? EQAT_F32 : EQAT_BF16;
    write_model(ctx, in, t->config, dtypes[_i % 3], NULL);
    eqat_model *m = open_model(ctx, in, compute);
    quantize(m, bits, _i % 3 == 0 ? 16 : _i % 3 == 1 ? 32 : -1);
    round_trip(m, compute, true);
    eqat_model_free(m);
}
END_TEST

START_TEST(full_precision_too)
{
    write_model(ctx, in, tiny_find("qwen3")->config, dtypes[_i], NULL);
    eqat_model *m = open_model(ctx, in, EQAT_BF16);
    round_trip(m, EQAT_BF16, false);
    eqat_model_free(m);
}
END_TEST

START_TEST(linears_that_differ)
{
    write_model(ctx, in, tiny_find("qwen2")->config, EQI_STORED_BF16, NULL);
    eqat_model *m = open_model(ctx, in, EQAT_BF16);
    eqat_quantizer *q = make_quantizer(ctx, 2, 32);
    OK(ctx, add_rule(q, "*.down_proj", 4, 16));
    OK(ctx, eqat_quantizer_add_rule(q, "model.layers.1.self_attn.v_proj", NULL));
    OK(ctx, add_rule(q, "*.o_proj", 8, -1));
    OK(ctx, eqat_model_quantize_rtn(m, q, NULL));
    round_trip(m, EQAT_BF16, true);
    char *text = read_text(in_dir(out, "config.json"));
    ck_assert(strstr(text,
                     "\"+:^model\\\\.layers\\\\.0\\\\.mlp\\\\.down_proj$\": {\n        \"bits\": "
                     "4,\n        \"group_size\": 16") != NULL);
    ck_assert(strstr(text, "\"-:^model\\\\.layers\\\\.1\\\\.self_attn\\\\.v_proj$\": {}") != NULL);
    ck_assert(strstr(text, "q_proj$") == NULL);
    ck_assert(strstr(text, "o_proj$\": {\n        \"bits\": 8,\n        \"group_size\": -1") !=
              NULL);
    /* transformers looks for what is packed here. */
    const char *modules = strstr(text, "\"modules_in_block_to_quantize\": [\n      [\n");
    ck_assert_ptr_nonnull(modules);
    ck_assert_ptr_nonnull(strstr(modules, "\"model.layers.0.self_attn.v_proj\""));
    ck_assert_ptr_null(strstr(modules, "\"model.layers.1.self_attn.v_proj\""));
    free(text);
    eqat_quantizer_free(q);
    eqat_model_free(m);
}
END_TEST

START_TEST(a_linear_that_was_asked_for_stays_where_it_is)
{
    static const char name[] = "model.layers.1.self_attn.v_proj.weight";
    write_model(ctx, in, tiny_find("qwen2")->config, EQI_STORED_BF16, NULL);
    eqat_model *m = open_model(ctx, in, EQAT_BF16);
    eqat_quantizer *q = make_quantizer(ctx, 2, 32);
    eqat_tensor *before, *after;
    OK(ctx, eqat_quantizer_add_rule(q, "*.v_proj", NULL));
    OK(ctx, eqat_model_parameter(m, name, &before));
    OK(ctx, eqat_model_quantize_rtn(m, q, NULL));
    OK(ctx, eqat_model_parameter(m, name, &after));
    ck_assert_ptr_eq(before, after);
    eqat_quantizer_free(q);
    eqat_model_free(m);
}
END_TEST

/* What a driver of one's own trained is rounded to the input's types, in memory as in the file. */
START_TEST(trained_tensors)
{
    static const char *const names[] = {
        "model.layers.0.input_layernorm.weight", "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.self_attn.q_proj.bias", "model.norm.weight", "model.embed_tokens.weight"};
    bool packed = _i & 1;
    eqat_dtype compute = _i & 2 ? EQAT_F32 : EQAT_BF16;
    write_model(ctx, in, tiny_find("llama")->config, EQI_STORED_BF16, NULL);
    eqat_model *m = open_model(ctx, in, compute);
    eqat_tensor *t;
    if (packed) quantize(m, 3, 16);
    for (size_t n = 0; n < EQI_COUNT(names); n++) {
        if (packed && n == 1) continue;
        OK(ctx, eqat_model_parameter(m, names[n], &t));
        for (int64_t i = 0; i < count(t); i++) put(t, i, get(t, i) * 1.001 + 1e-4);
    }
    if (packed) {
        OK(ctx, eqat_model_parameter(m, "model.layers.1.mlp.up_proj.scales", &t));
        for (int64_t i = 0; i < count(t); i++) put(t, i, get(t, i) * 1.001);
        /* Zero points in training are fractions beyond the range too. */
        eqi_linear *l = &m->blocks[0].linears[EQI_K];
        OK(ctx, eqi_tensor_cast(l->weight.z, EQI_F32, &t));
        for (int64_t i = 0; i < count(t); i++) put(t, i, get(t, i) + (i % 3 - 1) * 0.7);
        eqi_tensor_unref(l->weight.z);
        l->weight.z = t;
    }
    round_trip(m, compute, packed);
    eqat_model_free(m);
}
END_TEST

START_TEST(trained_ends_that_are_not_tied)
{
    static const char *const names[] = {"lm_head.weight", "model.embed_tokens.weight"};
    write_model(ctx, in, tiny_find("mistral")->config, EQI_STORED_BF16, NULL);
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    eqat_tensor *t;
    OK(ctx, eqat_model_parameter(m, names[_i], &t));
    for (int64_t i = 0; i < count(t); i++) put(t, i, get(t, i) * 1.001 + 1e-4);
    eqi_model_unload_ends(m); /* as a job does: what the caller asked for stays */
    eqat_tensor *same;
    OK(ctx, eqat_model_parameter(m, names[_i], &same));
    ck_assert_ptr_eq(same, t);
    round_trip(m, EQAT_F32, false);
    eqat_model_free(m);
}
END_TEST

START_TEST(trained_to_nan)
{
    write_model(ctx, in, tiny_find("llama")->config, EQI_STORED_BF16, NULL);
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    eqat_tensor *t;
    OK(ctx, eqat_model_parameter(m, "model.layers.1.mlp.up_proj.weight", &t));
    put(t, 7, NAN);
    says(ctx, eqat_model_save(m, out, NULL), EQAT_NUMERIC,
         "model.layers.1.mlp.up_proj.weight: found NaN");
    ck_assert_int_eq(entries(dir), 1);
    eqat_model_free(m);
}
END_TEST

/* In training, where memory stays as it is: what is finite there and not in the file, and a step
 * that fp16 cannot tell from 0. */
START_TEST(in_training)
{
    write_model(ctx, in, tiny_find("llama")->config, EQI_STORED_F16, NULL);
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    eqat_tensor *gain, *steps;
    quantize(m, 2, 16);
    OK(ctx, eqat_model_parameter(m, "model.norm.weight", &gain));
    OK(ctx, eqat_model_parameter(m, "model.layers.1.mlp.up_proj.scales", &steps));
    m->job = EQI_JOB_E2E_QP;
    double before = get(gain, 3);
    put(gain, 3, 1e5);
    says(ctx, eqat_model_save(m, out, NULL), EQAT_NUMERIC, "model.norm.weight: found infinity");
    ck_assert_int_eq(entries(dir), 1);
    put(gain, 3, before);
    put(steps, 0, -1e-30);
    OK(ctx, eqat_model_save(m, out, NULL));
    ck_assert(get(steps, 0) == (double)-1e-30f);
    eqat_model *again = open_model(ctx, out, EQAT_F32);
    OK(ctx, eqat_model_parameter(again, "model.layers.1.mlp.up_proj.scales", &steps));
    ck_assert(get(steps, 0) == -0x1p-24);
    eqat_model_free(again);
    eqat_model_free(m);
}
END_TEST

START_TEST(config_is_carried_over)
{
    char text[2048];
    snprintf(
        text, sizeof text,
        "{\"_name\": \"caf\\u00e9\", \"initializer_range\": 0.02, \"eos_token_id\": [1, 2], %s",
        tiny_find("llama")->config + 1);
    write_model(ctx, in, text, EQI_STORED_BF16, NULL);
    write_text(in_dir(in, "generation_config.json"), "{\"temperature\": 0.6}\n");
    eqat_model *m = open_model(ctx, in, EQAT_BF16);
    quantize(m, 2, 16);
    OK(ctx, eqat_model_save(m, out, NULL));
    eqat_model_free(m);
    char *saved = read_text(in_dir(out, "config.json"));
    static const char *const lines[] = {"\"_name\": \"caf\xc3\xa9\"",
                                        "\"initializer_range\": 0.02,",
                                        "\"rms_norm_eps\": 1e-",
                                        "\"torch_dtype\": \"bfloat16\"",
                                        "\"bits\": 2,",
                                        "\"group_size\": 16,",
                                        "\"quant_method\": \"gptq\"",
                                        "\"checkpoint_format\": \"gptq_v2\"",
                                        "\"desc_act\": false",
                                        "\"sym\": false",
                                        "\"lm_head\": false",
                                        "\"libeqat:"};
    for (size_t i = 0; i < EQI_COUNT(lines); i++)
        ck_assert_msg(strstr(saved, lines[i]) != NULL, "%s in %s", lines[i], saved);
    ck_assert(strstr(saved, "dynamic") == NULL);
    free(saved);
    saved = read_text(in_dir(out, "generation_config.json"));
    ck_assert_str_eq(saved, "{\"temperature\": 0.6}\n");
    free(saved);
}
END_TEST

/* A tokenizer that libeqat does not read is carried over; one that is damaged is told. */
START_TEST(tokenizer_files)
{
    write_model(ctx, in, tiny_find("llama")->config, EQI_STORED_BF16, NULL);
    write_text(in_dir(in, "tokenizer.model"), "sentences");
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    ck_assert(eqat_model_tokenizer(m) == NULL);
    OK(ctx, eqat_model_save(m, out, NULL));
    eqat_model_free(m);
    char *text = read_text(in_dir(out, "tokenizer.model"));
    ck_assert_str_eq(text, "sentences");
    write_text(in_dir(in, "tokenizer.json"), "{\"version\": ");
    says(ctx, eqat_model_open(ctx, &m, in, NULL), EQAT_FORMAT, "tokenizer.json");
    ck_assert(m == NULL);
    free(text);
}
END_TEST

START_TEST(places_that_cannot_be_written)
{
    write_model(ctx, in, tiny_find("llama")->config, EQI_STORED_F16, NULL);
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    const char *file = in_dir(in, "config.json"), *under_file = in_dir(file, "out"),
               *nowhere = in_dir(out, "deep/deeper");
    says(ctx, eqat_model_save(m, in, NULL), EQAT_EXISTS,
         "found a folder that is not empty, expected a new or empty folder");
    says(ctx, eqat_model_save(m, file, NULL), EQAT_EXISTS, "found something that is not a folder");
    says(ctx, eqat_model_save(m, under_file, NULL), EQAT_IO,
         "config.json/out: cannot create the output folder");
    says(ctx, eqat_model_save(m, nowhere, NULL), EQAT_NOT_FOUND,
         "deep/deeper: cannot create the output folder");
    ck_assert_int_eq(entries(dir), 1);
    ck_assert_int_eq(entries(in), 2);
    mkdir(out, 0777);
    OK(ctx, eqat_model_save(m, out, NULL));
    ck_assert_int_eq(entries(out), 2);
    ck_assert_int_eq(entries(dir), 2);
    eqat_model_free(m);
}
END_TEST

START_TEST(widths_that_no_engine_reads)
{
    write_model(ctx, in, tiny_find("llama")->config, EQI_STORED_F16, NULL);
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    quantize(m, 5 + _i, 32);
    size_t bytes;
    free(logits_of(m, 3, &bytes));
    says(ctx, eqat_model_check_save(m, NULL, NULL), EQAT_UNSUPPORTED,
         "model.layers.0.self_attn.q_proj: found ");
    says(ctx, eqat_model_save(m, out, NULL), EQAT_UNSUPPORTED,
         "model.layers.0.self_attn.q_proj: found ");
    ck_assert(strstr(ctx->error, "bits, expected 2, 3, 4 or 8: no engine reads others") != NULL);
    ck_assert_int_eq(entries(dir), 1);
    eqat_model_free(m);
}
END_TEST

START_TEST(formats_by_name)
{
    write_model(ctx, in, tiny_find("llama")->config, EQI_STORED_F16, NULL);
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    OK(ctx, eqat_model_check_save(m, NULL, NULL));
    quantize(m, 4, 32);
    OK(ctx, eqat_model_check_save(m, NULL, NULL));
    eqat_save_options o;
    eqat_save_options_init(&o, sizeof o);
    o.format = "gptq_v3";
    says(ctx, eqat_model_check_save(m, NULL, &o), EQAT_UNSUPPORTED,
         "format: found \"gptq_v3\", expected gptq_v2");
    says(ctx, eqat_model_save(m, out, &o), EQAT_UNSUPPORTED, "format: found \"gptq_v3\", expected");
    ck_assert_int_eq(entries(dir), 1);
    o.format = NULL; /* the default */
    OK(ctx, eqat_model_check_save(m, NULL, &o));
    o.reserved[5] = 1; /* between members that are known */
    says(ctx, eqat_model_check_save(m, NULL, &o), EQAT_UNSUPPORTED, "save: found byte");
    o.reserved[5] = 0;
    o.gguf_type = "q9_9";
    says(ctx, eqat_model_check_save(m, NULL, &o), EQAT_UNSUPPORTED, "gguf_type: found \"q9_9\"");
    eqat_model_free(m);
}
END_TEST

/* Three bits need 32 outputs to fill whole words. */
START_TEST(outputs_that_fill_no_word)
{
    char text[1024];
    const char *config = tiny_find("mistral")->config,
               *at = strstr(config, "\"num_key_value_heads\": 2");
    snprintf(text, sizeof text, "%.*s\"num_key_value_heads\": 1%s", (int)(at - config), config,
             at + 24);
    write_model(ctx, in, text, EQI_STORED_F16, NULL);
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    quantize(m, 3, 32);
    says(ctx, eqat_model_save(m, out, NULL), EQAT_UNSUPPORTED,
         "model.layers.0.self_attn.k_proj: found 16 outputs, expected a multiple of 32 at 3 bits");
    ck_assert_int_eq(entries(dir), 1);
    eqat_model_free(m);
}
END_TEST

START_TEST(interrupted)
{
    write_model(ctx, in, tiny_find("llama")->config, EQI_STORED_F16, NULL);
    eqat_model *m = open_model(ctx, in, EQAT_F32);
    atomic_store(&ctx->cancelled, 1);
    says(ctx, eqat_model_save(m, out, NULL), EQAT_CANCELLED, "cancelled");
    ck_assert_int_eq(entries(dir), 1);
    eqat_model_free(m);
}
END_TEST

TCase *case_save(void)
{
    TCase *tc = tcase_create("save");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_checked_fixture(tc, make_paths, NULL);
    tcase_add_loop_test(tc, what_is_evaluated_is_what_is_saved, 0, (int)n_tiny_models * 4);
    tcase_add_loop_test(tc, full_precision_too, 0, 3);
    tcase_add_test(tc, linears_that_differ);
    tcase_add_test(tc, a_linear_that_was_asked_for_stays_where_it_is);
    tcase_add_loop_test(tc, trained_tensors, 0, 4);
    tcase_add_loop_test(tc, trained_ends_that_are_not_tied, 0, 2);
    tcase_add_test(tc, trained_to_nan);
    tcase_add_test(tc, in_training);
    tcase_add_test(tc, config_is_carried_over);
    tcase_add_test(tc, tokenizer_files);
    tcase_add_test(tc, places_that_cannot_be_written);
    tcase_add_loop_test(tc, widths_that_no_engine_reads, 0, 3);
    tcase_add_test(tc, formats_by_name);
    tcase_add_test(tc, outputs_that_fill_no_word);
    tcase_add_test(tc, interrupted);
    return tc;
}
