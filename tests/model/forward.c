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

static eqat_batch batch_of(int64_t batch, int64_t time, const int32_t *ids)
{
    eqat_batch b;
    eqat_batch_init(&b, sizeof b);
    b.batch = batch;
    b.time = time;
    b.ids = ids;
    return b;
}

static const int32_t text[12] = {1, 7, 49, 0, 3, 3, 8, 21, 5, 30, 2, 11};

static void run(const eqat_batch *b, float *out)
{
    eqat_tensor *t;
    OK(ctx, eqat_model_forward(model, NULL, b, &t));
    OK(ctx, eqi_tensor_download(t, out, (size_t)(b->batch * b->time * 50) * sizeof *out));
    eqi_tensor_unref(t);
}

static double loss_of(const eqat_batch *b, double *count)
{
    eqat_tensor *loss, *n;
    OK(ctx, eqat_model_loss(model, NULL, b, &loss, &n));
    double value = get(loss, 0);
    if (count) *count = get(n, 0);
    eqi_tensor_unref(loss);
    eqi_tensor_unref(n);
    return value;
}

static double nll(const float *logits, int label)
{
    double top = logits[0], sum = 0;
    for (int i = 1; i < 50; i++) top = fmax(top, logits[i]);
    for (int i = 0; i < 50; i++) sum += exp(logits[i] - top);
    return top + log(sum) - logits[label];
}

START_TEST(loss_is_that_of_the_logits)
{
    float logits[12 * 50];
    open_tiny("llama", EQAT_F32);
    eqat_batch b = batch_of(2, 6, text);
    run(&b, logits);
    double sum = 0, count;
    for (int i = 0; i < 12; i++)
        if (i % 6 != 5) sum += nll(logits + i * 50, text[i + 1]);
    ck_assert_double_eq_tol(loss_of(&b, &count), sum / 10, 1e-5);
    ck_assert(count == 10);

    const int32_t labels[12] = {-1, -1, 4, -100, 9, 0, -1, -1, -1, -1, -1, 49};
    b.labels = labels;
    sum = 0;
    for (int i = 0; i < 12; i++)
        if (labels[i] >= 0) sum += nll(logits + i * 50, labels[i]);
    ck_assert_double_eq_tol(loss_of(&b, &count), sum / 4, 1e-5);
    ck_assert(count == 4);
}
END_TEST

/* Later tokens change nothing before them, and a window hides what lies behind it. */
START_TEST(attention_sees_what_it_should)
{
    const tiny *t = &tiny_models[_i];
    if (!strcmp(t->name, "llama-dynamic")) return; /* frequencies depend on the length */
    float a[12 * 50], b[12 * 50];
    open_tiny(t->name, EQAT_F32);
    eqat_batch whole = batch_of(1, 12, text), part = batch_of(1, 9, text);
    run(&whole, a);
    run(&part, b);
    for (int i = 0; i < 9 * 50; i++) ck_assert_float_eq_tol(a[i], b[i], 1e-5);
    int32_t other[12];
    memcpy(other, text, sizeof other);
    other[0] = 2;
    whole.ids = other;
    run(&whole, b);
    bool windowed = !strcmp(t->name, "mistral");
    /* Two blocks of window 5 reach 8 positions back. */
    for (int i = 0; i < 12; i++) {
        bool same = memcmp(a + i * 50, b + i * 50, 50 * sizeof *a) == 0;
        ck_assert_msg(same == (windowed && i > 8), "%s: position %d", t->name, i);
    }
}
END_TEST

START_TEST(segments_keep_sequences_apart)
{
    const int32_t segments[12] = {0, 0, 0, 0, 0, 0, 0, 4, 4, 4, 4, 4},
                  positions[12] = {0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4};
    float packed[12 * 50], first[7 * 50], second[5 * 50];
    open_tiny("qwen3", EQAT_F32);
    eqat_batch b = batch_of(1, 12, text), one = batch_of(1, 7, text),
               two = batch_of(1, 5, text + 7);
    b.segments = segments;
    b.positions = positions;
    run(&b, packed);
    run(&one, first);
    run(&two, second);
    for (int i = 0; i < 7 * 50; i++) ck_assert_float_eq_tol(packed[i], first[i], 1e-5);
    for (int i = 0; i < 5 * 50; i++) ck_assert_float_eq_tol(packed[7 * 50 + i], second[i], 1e-5);
    double count;
    loss_of(&b, &count);
    ck_assert(count == 10); /* the last of each segment predicts nothing */
}
END_TEST

START_TEST(embeddings_replace_ids)
{
    float a[12 * 50], b[12 * 50];
    open_tiny("llama", EQAT_F32);
    eqat_batch ids = batch_of(2, 6, text), given = batch_of(2, 6, NULL);
    run(&ids, a);
    OK(ctx, eqi_model_load_ends(model));
    given.embeddings = make(ctx, EQI_F32, DIMS(2, 6, 64));
    for (int i = 0; i < 12 * 64; i++)
        put(given.embeddings, i, get(model->embedding, text[i / 64] * 64 + i % 64));
    run(&given, b);
    ck_assert(memcmp(a, b, sizeof a) == 0);
    eqat_tensor *loss;
    says(ctx, eqat_model_loss(model, NULL, &given, &loss, NULL), EQAT_INVALID_ARGUMENT,
         "embeddings alone, expected labels");
    eqi_tensor_unref(given.embeddings);
    given.embeddings = make(ctx, EQI_BF16, DIMS(2, 6, 64));
    says(ctx, eqat_model_loss(model, NULL, &given, &loss, NULL), EQAT_INVALID_ARGUMENT,
         "expected labels");
    says(ctx, eqat_model_forward(model, NULL, &given, &loss), EQAT_INVALID_ARGUMENT,
         "embeddings: found bf16 [2, 6, 64], expected f32 [2, 6, 64]");
    eqi_tensor_unref(given.embeddings);
}
END_TEST

START_TEST(bad_batches)
{
    eqat_tensor *t;
    open_tiny("llama", EQAT_F32);
    int32_t ids[4] = {1, 2, 50, 3};
    eqat_batch b = batch_of(1, 4, ids);
    says(ctx, eqat_model_forward(model, NULL, &b, &t), EQAT_INVALID_ARGUMENT,
         "ids: found 50 at position 2, expected 0 to 49");
    ids[2] = -1;
    says(ctx, eqat_model_forward(model, NULL, &b, &t), EQAT_INVALID_ARGUMENT,
         "ids: found -1 at position 2");
    ids[2] = 0;
    b.labels = (int32_t[]){1, 2, 3, 77};
    says(ctx, eqat_model_loss(model, NULL, &b, &t, NULL), EQAT_INVALID_ARGUMENT,
         "labels: found 77 at position 3, expected less than 50");
    b.positions = (int32_t[]){0, 1, 2, 64};
    says(ctx, eqat_model_forward(model, NULL, &b, &t), EQAT_INVALID_ARGUMENT,
         "positions: found 64 at 3, expected 0 to 63");
    b = batch_of(0, 4, ids);
    says(ctx, eqat_model_forward(model, NULL, &b, &t), EQAT_INVALID_ARGUMENT,
         "found 0 sequences of 4 tokens");
    b = batch_of(INT64_MAX, INT64_MAX, ids);
    says(ctx, eqat_model_forward(model, NULL, &b, &t), EQAT_INVALID_ARGUMENT, "fewer than 2^31");
    b = batch_of(1, 4, NULL);
    says(ctx, eqat_model_forward(model, NULL, &b, &t), EQAT_INVALID_ARGUMENT,
         "neither ids nor embeddings");
    ck_assert(t == NULL);
}
END_TEST

START_TEST(cancelling)
{
    eqat_tensor *t;
    open_tiny("llama", EQAT_F32);
    eqat_batch b = batch_of(1, 4, text);
    atomic_store(&ctx->cancelled, 1);
    says(ctx, eqat_model_forward(model, NULL, &b, &t), EQAT_CANCELLED, "cancelled");
    OK(ctx, eqat_model_forward(model, NULL, &b, &t));
    eqi_tensor_unref(t);
}
END_TEST

/* The recorded loss is the plain one; gradients are differences of losses. */
START_TEST(gradients)
{
    const char *names[] = {
        "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight",
        "model.layers.0.input_layernorm.weight", "model.norm.weight", "model.embed_tokens.weight"};
    const tiny *t = &tiny_models[_i];
    if (!strcmp(t->name, "qwen3_moe")) names[1] = "model.layers.1.mlp.experts.2.down_proj.weight";
    eqi_ctx_unref(ctx);
    ctx = open_ctx("ref");
    open_tiny(t->name, EQAT_F32);
    eqat_batch b = batch_of(2, 6, text);
    eqat_tensor *p[EQI_COUNT(names)], *loss, *count;
    for (size_t i = 0; i < EQI_COUNT(names); i++) {
        OK(ctx, eqat_model_parameter(model, names[i], &p[i]));
        trainable(p[i]);
    }
    eqat_tape *tape;
    OK(ctx, eqat_tape_create(ctx, &tape));
    OK(ctx, eqat_model_loss(model, tape, &b, &loss, &count));
    ck_assert(get(loss, 0) == loss_of(&b, NULL));
    ck_assert(get(count, 0) == 10);
    /* Another length in between must not disturb what was recorded. */
    eqat_batch longer = batch_of(1, 12, text);
    loss_of(&longer, NULL);
    OK(ctx, eqat_tape_backward(tape, loss, 1));
    eqat_tape_free(tape);
    for (size_t i = 0; i < EQI_COUNT(names); i++) {
        int at = names[i][6] == 'e' ? text[1] * 64 + 3 : 5;
        double w = get(p[i], at), h = 1e-2, slope;
        put(p[i], at, w + h);
        slope = loss_of(&b, NULL);
        put(p[i], at, w - h);
        slope = (slope - loss_of(&b, NULL)) / (2 * h);
        put(p[i], at, w);
        ck_assert_msg(fabs(get(p[i]->grad, at) - slope) < 2e-3 * (1 + fabs(slope)),
                      "%s %s: found %g, expected %g", t->name, names[i], get(p[i]->grad, at),
                      slope);
    }
    eqi_tensor_unref(loss);
    eqi_tensor_unref(count);
}
END_TEST

/* A shorter sequence behind a longer one is rotated as it would be alone. */
START_TEST(dynamic_scaling_follows_the_length)
{
    size_t bytes;
    open_tiny("llama-dynamic", EQAT_F32);
    free(logits_of(model, 90, &bytes));
    for (int64_t time = 80; time > 0; time -= 69) {
        eqat_model *fresh = open_model(ctx, dir, EQAT_F32);
        same_logits(model, fresh, time);
        eqat_model_free(fresh);
    }
}
END_TEST

/* Full-precision blocks come and go: what stays is less than one of them. */
START_TEST(blocks_leave_memory)
{
    open_tiny("llama", EQAT_F32);
    eqat_batch b = batch_of(1, 4, text);
    loss_of(&b, NULL);
    for (int i = 0; i < 2; i++)
        ck_assert(model->blocks[i].state == EQI_BLOCK_DENSE && !model->blocks[i].readers &&
                  !model->blocks[i].linears[0].weight.w && !model->blocks[i].norms[0].gain);
    eqi_model_unload_ends(model);
    ck_assert(!model->embedding && !model->head);
    loss_of(&b, NULL);
}
END_TEST

TCase *case_forward(void)
{
    TCase *tc = tcase_create("forward");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_checked_fixture(tc, NULL, close_tiny);
    tcase_add_test(tc, loss_is_that_of_the_logits);
    tcase_add_loop_test(tc, attention_sees_what_it_should, 0, (int)n_tiny_models);
    tcase_add_test(tc, segments_keep_sequences_apart);
    tcase_add_test(tc, embeddings_replace_ids);
    tcase_add_test(tc, bad_batches);
    tcase_add_test(tc, cancelling);
    tcase_add_loop_test(tc, gradients, 0, (int)n_tiny_models);
    tcase_add_test(tc, dynamic_scaling_follows_the_length);
    tcase_add_test(tc, blocks_leave_memory);
    return tc;
}
