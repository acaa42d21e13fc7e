/* Sequences that grow token by token. */
#include "cases.h"
#include "each_test.h"

enum { BATCH = 2, LENGTH = 40, TOKENS = 50 };

static eqat_model *model;
static eqat_generation *generation;
static int32_t ids[BATCH * LENGTH];

static void open_tiny(const char *name, int bits)
{
    write_model(ctx, dir, tiny_find(name)->config, EQI_STORED_F32, NULL);
    model = open_model(ctx, dir, EQAT_F32);
    if (bits) {
        eqat_quantizer *q = make_quantizer(ctx, bits, 32);
        OK(ctx, eqat_model_quantize_rtn(model, q, NULL));
        eqat_quantizer_free(q);
    }
    for (int i = 0; i < BATCH * LENGTH; i++) ids[i] = (i * 37 + 11 * (i / 7)) % TOKENS;
    OK(ctx, eqat_generation_create(model, &generation, BATCH));
}

static void close_tiny(void)
{
    eqat_generation_free(generation);
    eqat_model_free(model);
}

/* Tokens [first, first + time) of each sequence. */
static const int32_t *piece_of(int64_t first, int64_t time)
{
    static int32_t piece[BATCH * LENGTH];
    for (int64_t i = 0; i < BATCH * time; i++) piece[i] = ids[i / time * LENGTH + first + i % time];
    return piece;
}

/* Logits [BATCH, LENGTH, TOKENS] of a pass over all of it. */
static eqi_tensor *whole(void)
{
    eqi_tensor *logits;
    eqat_batch b;
    eqat_batch_init(&b, sizeof b);
    b.batch = BATCH;
    b.time = LENGTH;
    b.ids = ids;
    OK(ctx, eqat_model_forward(model, NULL, &b, &logits));
    return logits;
}

/* The next `time` tokens give the last logits of a pass over all of it. */
static void feed_as(eqi_tensor *all, int64_t first, int64_t time, int64_t last_n)
{
    eqi_tensor *found, *view;
    ck_assert_int_eq(eqat_generation_length(generation), first);
    OK(ctx, eqat_generation_feed(generation, piece_of(first, time), time, last_n, &found));
    OK(ctx, eqi_tensor_slice(all, &view, 1, first + time - last_n, last_n));
    eqi_tensor *expected = make(ctx, EQI_F32, DIMS(BATCH, last_n, TOKENS));
    OK(ctx, eqi_tensor_copy(expected, view));
    ck_assert_msg(relative(expected, found) < 1e-5, "positions %d to %d: %g", (int)first,
                  (int)(first + time), relative(expected, found));
    eqi_tensor_unref(found);
    eqi_tensor_unref(view);
    eqi_tensor_unref(expected);
}

static const char *const kinds[] = {"gemma3", "qwen3_moe", "qwen3_moe-mixed", "mistral", "llama"};
static const int64_t pieces[][8] = {{5, 1, 1, 1, 4, 2, 26}, {33, 1, 6}, {40}};

/* Rooms of 16, 32 and 40 tokens; windows of 4 and 6. */
START_TEST(pieces_give_what_the_whole_gives)
{
    open_tiny(kinds[_i / 2], _i % 2 ? 4 : 0);
    eqi_tensor *all = whole();
    for (size_t p = 0; p < EQI_COUNT(pieces); p++) {
        int64_t first = 0;
        for (const int64_t *time = pieces[p]; *time; first += *time++)
            feed_as(all, first, *time, *time > 3 ? 3 : 1);
        ck_assert_int_eq(first, LENGTH);
        OK(ctx, eqat_generation_rewind(generation, 0));
    }
    for (int64_t i = 0; i < LENGTH; i++) feed_as(all, i, 1, 1);
    eqi_tensor_unref(all);
    close_tiny();
}
END_TEST

/* Another continuation of a common start. */
START_TEST(rewinding)
{
    open_tiny("mistral", 2);
    eqi_tensor *all = whole();
    feed_as(all, 0, 20, 1);
    OK(ctx, eqat_generation_feed(generation, piece_of(3, 15), 15, 0, NULL));
    ck_assert_int_eq(eqat_generation_length(generation), 35);
    OK(ctx, eqat_generation_rewind(generation, 18));
    feed_as(all, 18, 22, 2);
    says(ctx, eqat_generation_rewind(generation, 41), EQAT_INVALID_ARGUMENT,
         "length: found 41, expected 0 to 40");
    says(ctx, eqat_generation_rewind(generation, -1), EQAT_INVALID_ARGUMENT,
         "length: found -1, expected 0 to 40");
    eqi_tensor_unref(all);
    close_tiny();
}
END_TEST

START_TEST(full_precision_weights_stay_until_it_goes)
{
    open_tiny("llama", 0);
    eqi_tensor *all = whole();
    ck_assert_ptr_null(model->blocks[1].linears[0].weight.w);
    feed_as(all, 0, 3, 1);
    const eqi_tensor *kept = model->blocks[1].linears[0].weight.w;
    ck_assert_ptr_nonnull(kept);
    feed_as(all, 3, 1, 1);
    eqi_tensor *again = whole(); /* another pass does not drop them */
    ck_assert(same_bits(all, again));
    ck_assert_ptr_eq(model->blocks[1].linears[0].weight.w, kept);
    eqi_tensor_unref(all);
    eqi_tensor_unref(again);
    eqat_generation_free(generation);
    ck_assert_ptr_null(model->blocks[1].linears[0].weight.w);
    eqat_model_free(model);
}
END_TEST

/* Its own reference keeps the model. */
START_TEST(the_model_goes_first)
{
    open_tiny("llama", 4);
    eqi_tensor *all = whole();
    eqat_model_free(model);
    feed_as(all, 0, 9, 1);
    eqi_tensor_unref(all);
    eqat_generation_free(generation);
}
END_TEST

START_TEST(a_failure_leaves_the_sequences)
{
    eqi_tensor *logits;
    open_tiny("llama", 0);
    eqi_tensor *all = whole();
    feed_as(all, 0, 12, 1);
    eqat_context_cancel(ctx);
    says(ctx, eqat_generation_feed(generation, piece_of(12, 20), 20, 1, &logits), EQAT_CANCELLED,
         "cancel");
    ck_assert_ptr_null(logits);
    int32_t bad[2 * BATCH] = {0, 1, TOKENS, 3};
    says(ctx, eqat_generation_feed(generation, bad, 2, 1, &logits), EQAT_INVALID_ARGUMENT,
         "ids: found 50 at position 2, expected 0 to 49");
    /* Out of memory, wherever: the counter goes through every request of a feed that enlarges. */
    for (long n = 0;; n++) {
        refuse_after(n);
        eqat_status st = eqat_generation_feed(generation, piece_of(12, 8), 8, 1, &logits);
        refuse_after(-1);
        ck_assert_int_eq(eqat_generation_length(generation), st == EQAT_OK ? 20 : 12);
        eqi_tensor_unref(logits);
        if (st == EQAT_OK) break;
        ck_assert_int_eq(st, EQAT_OUT_OF_MEMORY);
        ck_assert_ptr_null(logits);
    }
    feed_as(all, 20, 20, 1);
    eqi_tensor_unref(all);
    close_tiny();
}
END_TEST

START_TEST(refusals)
{
    eqat_generation *g;
    eqi_tensor *logits;
    open_tiny("llama", 0);
    says(ctx, eqat_generation_create(model, &g, 0), EQAT_INVALID_ARGUMENT,
         "batch_size: found 0, expected 1 to 2147483647");
    ck_assert_ptr_null(g);
    ck_assert_int_eq(eqat_generation_create(NULL, &g, 1), EQAT_INVALID_ARGUMENT);
    says(ctx, eqat_generation_create(model, NULL, 1), EQAT_INVALID_ARGUMENT, "out");
    says(ctx, eqat_generation_feed(generation, NULL, 1, 1, &logits), EQAT_INVALID_ARGUMENT, "ids");
    says(ctx, eqat_generation_feed(generation, ids, 0, 1, &logits), EQAT_INVALID_ARGUMENT,
         "time: found 0 tokens for each of 2 sequences, expected at least 1");
    says(ctx, eqat_generation_feed(generation, ids, INT64_MAX, 1, &logits), EQAT_INVALID_ARGUMENT,
         "time: found 9223372036854775807 tokens");
    says(ctx, eqat_generation_feed(generation, ids, 4, 5, &logits), EQAT_INVALID_ARGUMENT,
         "last_n: found 5, expected 1 to 4");
    says(ctx, eqat_generation_feed(generation, ids, 4, 0, &logits), EQAT_INVALID_ARGUMENT,
         "last_n: found 0, expected 1 to 4");
    OK(ctx, eqat_generation_feed(generation, ids, 40, 0, NULL));
    says(ctx, eqat_generation_feed(generation, ids, 25, 0, NULL), EQAT_INVALID_ARGUMENT,
         "generation: found 65 tokens, expected at most the model's 64 positions");
    OK(ctx, eqat_generation_feed(generation, ids, 24, 0, NULL));
    ck_assert_int_eq(eqat_generation_length(generation), 64);
    ck_assert_int_eq(eqat_generation_length(NULL), 0);
    eqat_generation_free(NULL);
    close_tiny();
}
END_TEST

TCase *case_generate(void)
{
    TCase *tc = tcase_create("generate");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, pieces_give_what_the_whole_gives, 0, 2 * (int)EQI_COUNT(kinds));
    tcase_add_test(tc, rewinding);
    tcase_add_test(tc, full_precision_weights_stay_until_it_goes);
    tcase_add_test(tc, the_model_goes_first);
    tcase_add_test(tc, a_failure_leaves_the_sequences);
    tcase_add_test(tc, refusals);
    return tc;
}
