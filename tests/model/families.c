/* Gemma 3 and Qwen3-MoE from both kinds of files. */
#include "cases.h"
#include "each_test.h"

static const char *const from_gguf[] = {"gemma3", "qwen3_moe"};

/* The same weights in a folder and in a GGUF file are the same model. */
START_TEST(a_gguf_file_gives_the_folders_logits)
{
    eqat_dtype compute = _i % 2 ? EQAT_F32 : EQAT_BF16;
    const char *path = in_dir(dir, "model.gguf"), *out = in_dir(dir, "out");
    write_model(ctx, dir, tiny_find(from_gguf[_i / 2])->config, EQI_STORED_F32, NULL);
    convert_to_gguf(ctx, dir, path);
    eqat_model *folder = open_model(ctx, dir, compute), *file = open_model(ctx, path, compute);
    same_logits(folder, file, 11);
    eqat_quantizer *q = make_quantizer(ctx, 4, 32);
    OK(ctx, eqat_model_quantize_rtn(folder, q, NULL));
    OK(ctx, eqat_model_quantize_rtn(file, q, NULL));
    same_logits(folder, file, 11);
    OK(ctx, eqat_model_save(file, out, NULL));
    eqat_model *again = open_model(ctx, out, compute);
    same_logits(folder, again, 11);
    eqat_quantizer_free(q);
    eqat_model_free(folder);
    eqat_model_free(file);
    eqat_model_free(again);
}
END_TEST

/* The router chooses: it stays dense, in the file as it came. */
START_TEST(the_router_is_not_quantized)
{
    static const char name[] = "model.layers.0.mlp.gate.weight";
    const char *out = in_dir(dir, "out");
    write_model(ctx, dir, tiny_find("qwen3_moe")->config, EQI_STORED_BF16, NULL);
    eqat_model *m = open_model(ctx, dir, EQAT_BF16);
    eqat_quantizer *q = make_quantizer(ctx, 2, 16);
    OK(ctx, add_rule(q, "*.mlp.gate", 4, 16)); /* not even on request */
    OK(ctx, eqat_model_quantize_rtn(m, q, NULL));
    OK(ctx, eqat_model_save(m, out, NULL));
    eqi_source *before, *after;
    OK(ctx, eqi_source_open_safetensors(ctx, &before, dir));
    OK(ctx, eqi_source_open_safetensors(ctx, &after, out));
    const eqi_source_entry *a = eqi_source_find(before, name), *b = eqi_source_find(after, name);
    ck_assert(a && b && b->stored == EQI_STORED_BF16 && a->bytes == b->bytes);
    unsigned char x[4 * 64 * 2], y[sizeof x];
    ck_assert_uint_eq(a->bytes, sizeof x);
    OK(ctx, eqi_source_read_raw(before, a, 0, sizeof x, x));
    OK(ctx, eqi_source_read_raw(after, b, 0, sizeof y, y));
    ck_assert_mem_eq(x, y, sizeof x);
    ck_assert_ptr_null(eqi_source_find(after, "model.layers.0.mlp.gate.qweight"));
    ck_assert_ptr_nonnull(eqi_source_find(after, "model.layers.0.mlp.experts.3.up_proj.qweight"));
    eqat_linear_info info = {.struct_size = sizeof info};
    OK(ctx, eqat_model_linear(m, 0, 4, &info));
    ck_assert_str_eq(info.name, "model.layers.0.mlp.gate");
    ck_assert_int_eq(info.bits, 0);
    eqi_source_close(before);
    eqi_source_close(after);
    eqat_quantizer_free(q);
    eqat_model_free(m);
}
END_TEST

/* Blocks that are mixtures have a router and experts, the others an MLP. */
START_TEST(blocks_are_mixtures_or_not)
{
    write_model(ctx, dir, tiny_find("qwen3_moe-mixed")->config, EQI_STORED_F32, NULL);
    eqat_model *m = open_model(ctx, dir, EQAT_F32);
    ck_assert_int_eq(eqat_model_linear_count(m, 0), 4 + 1 + 4 * 3);
    ck_assert_int_eq(eqat_model_linear_count(m, 1), 7);
    ck_assert_ptr_nonnull(eqi_block_linear(&m->blocks[0], EQI_ROUTER, 0));
    ck_assert_ptr_null(eqi_block_linear(&m->blocks[1], EQI_ROUTER, 0));
    ck_assert_str_eq(eqi_block_linear(&m->blocks[0], EQI_DOWN, 3)->local,
                     "mlp.experts.3.down_proj");
    ck_assert_int_eq(eqi_block_linear(&m->blocks[1], EQI_DOWN, 0)->in, 96);
    eqat_model_free(m);
}
END_TEST

TCase *case_families(void)
{
    TCase *tc = tcase_create("families");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, a_gguf_file_gives_the_folders_logits, 0, 4);
    tcase_add_test(tc, the_router_is_not_quantized);
    tcase_add_test(tc, blocks_are_mixtures_or_not);
    return tc;
}
