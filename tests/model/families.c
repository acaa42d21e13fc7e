/* Gemma 3 and Qwen3-MoE from both kinds of files; keys and values of earlier positions. */
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

/* ---- keys and values of earlier positions ---- */

enum { BATCH = 2, LENGTH = 12, KV_BLOCKS = 2 };

static eqat_model *model;
static eqi_kv caches[KV_BLOCKS];

static void make_caches(int64_t capacity)
{
    const eqi_config *c = &model->config;
    for (int i = 0; i < KV_BLOCKS; i++)
        caches[i] =
            (eqi_kv){.k = make(ctx, EQI_F32, DIMS(BATCH, capacity, c->kv_heads, c->head_dim)),
                     .v = make(ctx, EQI_F32, DIMS(BATCH, capacity, c->kv_heads, c->head_dim))};
}

static void drop_caches(void)
{
    for (int i = 0; i < KV_BLOCKS; i++) {
        eqi_tensor_unref(caches[i].k);
        eqi_tensor_unref(caches[i].v);
    }
}

/* Positions first.. of all rows. */
static eqi_tensor *positions_from(int64_t first, int64_t time)
{
    int32_t values[BATCH * LENGTH];
    eqi_tensor *t;
    for (int64_t i = 0; i < BATCH * time; i++) values[i] = (int32_t)(first + i % time);
    OK(ctx, eqi_tensor_create(ctx, &t, EQI_I32, 2, (int64_t[]){BATCH, time}));
    OK(ctx, eqi_tensor_upload(t, values, (size_t)(BATCH * time) * sizeof *values));
    return t;
}

static eqat_status through_block(int64_t index, const eqi_block_input *in, eqi_tensor **y)
{
    eqi_tape *tape;
    const eqi_block *block;
    OK(ctx, eqi_tape_create(ctx, &tape));
    eqi_tape_set_recording(tape, false);
    OK(ctx, eqi_block_acquire(model, index, &block));
    eqat_status st = eqi_block_forward(tape, block, in, y);
    eqi_block_release(model, index);
    eqi_tape_free(tape);
    return st;
}

/* x [B, T, H] through all blocks; with caches behind the `first` positions that they have. */
static eqi_tensor *through(eqi_tensor *x, int64_t first, bool cached)
{
    eqi_tensor *positions = cached ? positions_from(first, x->v.shape[1]) : NULL;
    x = eqi_tensor_ref(x);
    for (int64_t i = 0; i < KV_BLOCKS; i++) {
        eqi_tensor *y;
        eqi_block_input in = eqi_model_input(model, x);
        in.positions = positions;
        in.kv = cached ? &caches[i] : NULL;
        OK(ctx, through_block(i, &in, &y));
        eqi_tensor_unref(x);
        x = y;
    }
    eqi_tensor_unref(positions);
    return x;
}

/* Positions [first, first + time) of x. */
static eqi_tensor *piece_of(eqi_tensor *x, int64_t first, int64_t time)
{
    eqi_tensor *view, *copy = make(ctx, EQI_F32, DIMS(BATCH, time, x->v.shape[2]));
    OK(ctx, eqi_tensor_slice(x, &view, 1, first, time));
    OK(ctx, eqi_tensor_copy(copy, view));
    eqi_tensor_unref(view);
    return copy;
}

static const char *const with_caches[] = {"gemma3", "qwen3_moe", "qwen3_moe-mixed", "mistral",
                                          "llama"};
static const int64_t pieces[][LENGTH + 1] = {
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {5, 1, 4, 2}, {7, 5}, {12}};

START_TEST(pieces_give_what_the_whole_gives)
{
    write_model(ctx, dir, tiny_find(with_caches[_i])->config, EQI_STORED_F32, NULL);
    model = open_model(ctx, dir, EQAT_F32);
    OK(ctx, eqi_model_prepare(model, LENGTH));
    eqi_tensor *x = make_random(ctx, EQI_F32, DIMS(BATCH, LENGTH, 64), 5, 1),
               *whole = through(x, 0, false);
    for (size_t p = 0; p < EQI_COUNT(pieces); p++) {
        make_caches(LENGTH);
        int64_t first = 0;
        for (const int64_t *time = pieces[p]; *time; first += *time++) {
            eqi_tensor *part = piece_of(x, first, *time), *y = through(part, first, true),
                       *expected = piece_of(whole, first, *time);
            ck_assert_msg(relative(expected, y) < 1e-5, "%s, cut %zu, position %d: %g",
                          with_caches[_i], p, (int)first, relative(expected, y));
            eqi_tensor_unref(part);
            eqi_tensor_unref(y);
            eqi_tensor_unref(expected);
        }
        ck_assert(first == LENGTH && caches[1].length == LENGTH);
        drop_caches();
    }
    eqi_tensor_unref(x);
    eqi_tensor_unref(whole);
    eqat_model_free(model);
}
END_TEST

START_TEST(a_cache_that_is_full)
{
    write_model(ctx, dir, tiny_find("gemma3")->config, EQI_STORED_F32, NULL);
    model = open_model(ctx, dir, EQAT_F32);
    OK(ctx, eqi_model_prepare(model, LENGTH));
    make_caches(5);
    eqi_tensor *x = make_random(ctx, EQI_F32, DIMS(BATCH, 3, 64), 5, 1), *y;
    eqi_block_input in = eqi_model_input(model, x);
    in.kv = &caches[0];
    OK(ctx, through_block(0, &in, &y));
    eqi_tensor_unref(y);
    says(ctx, through_block(0, &in, &y), EQAT_INVALID_ARGUMENT,
         "keys and values: found 6 positions, expected at most 5");
    ck_assert(y == NULL && caches[0].length == 3);
    eqi_tensor_unref(x);
    drop_caches();
    eqat_model_free(model);
}
END_TEST

TCase *case_families(void)
{
    TCase *tc = tcase_create("families");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, a_gguf_file_gives_the_folders_logits, 0, 4);
    tcase_add_test(tc, the_router_is_not_quantized);
    tcase_add_test(tc, blocks_are_mixtures_or_not);
    tcase_add_loop_test(tc, pieces_give_what_the_whole_gives, 0, (int)EQI_COUNT(with_caches));
    tcase_add_test(tc, a_cache_that_is_full);
    return tc;
}
