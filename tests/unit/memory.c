#include "unit.h"

static size_t live_after(eqi_ctx *ctx, size_t *peak)
{
    *peak = ctx->live_peak;
    ctx->live_peak = ctx->live_bytes;
    return ctx->live_bytes;
}

/* A chain of products: every tensor is needed until its own backward is done, and no longer. */
START_TEST(backward_gives_back_as_it_goes)
{
    enum { LINKS = 20, BYTES = 4096 };
    eqi_ctx *ctx = open_ctx("ref");
    eqi_tape *tape;
    OK(ctx, eqi_tape_create(ctx, &tape));
    eqi_tensor *a = trainable(make_random(ctx, EQI_F32, DIMS(BYTES / 4), 1, 1)),
               *x = eqi_tensor_ref(a), *y;
    for (int i = 0; i < LINKS; i++) {
        OK(ctx, eqi_op_mul(tape, x, x, &y));
        eqi_tensor_unref(x);
        x = y;
    }
    size_t peak, forward = live_after(ctx, &peak);
    ck_assert_uint_eq(forward, (LINKS + 1) * BYTES);
    OK(ctx, eqi_tape_backward_from(tape, x, x));
    eqi_tensor_unref(x);
    size_t rest = live_after(ctx, &peak);
    ck_assert_uint_eq(rest, 2 * BYTES); /* a and its gradient */
    /* The seed is x itself: at most one gradient more than the tensors, the one being filled. */
    ck_assert_uint_le(peak, forward + 2 * BYTES);
    eqi_tensor_unref(a);
    eqi_tape_free(tape);
    eqi_ctx_unref(ctx);
}
END_TEST

/* Gradients that pass a sum, a reshape, a rotation or the gate of an MLP need no memory of their
 * own. */
START_TEST(gradients_pass_without_copies)
{
    eqi_ctx *ctx = open_ctx("ref");
    eqi_tape *tape;
    OK(ctx, eqi_tape_create(ctx, &tape));
    enum { BYTES = 2 * 4 * 2 * 8 * 4 };
    eqi_tensor *a = trainable(make_random(ctx, EQI_F32, DIMS(2, 4, 2, 8), 1, 1));
    eqi_tensor *cos = make_random(ctx, EQI_F32, DIMS(4, 4), 2, 1);
    eqi_tensor *u, *v, *w, *x, *y, *z;
    OK(ctx, eqi_op_scale(tape, a, 2, &u));
    OK(ctx, eqi_op_rope(tape, u, cos, cos, NULL, &v));
    OK(ctx, eqi_op_reshape(tape, v, 2, DIMS(8, 16).at, &w));
    OK(ctx, eqi_op_reshape(tape, w, 4, DIMS(2, 4, 2, 8).at, &x));
    eqi_tensor *c = make_random(ctx, EQI_F32, DIMS(2, 4, 2, 8), 3, 1);
    OK(ctx, eqi_op_add(tape, x, c, &y));
    OK(ctx, eqi_op_scale(tape, y, 1, &z));
    eqi_tensor *seed = make_random(ctx, EQI_F32, DIMS(2, 4, 2, 8), 4, 1);
    size_t peak, before = live_after(ctx, &peak);
    OK(ctx, eqi_tape_backward_from(tape, z, seed));
    live_after(ctx, &peak);
    /* One transient for the whole way up, and the gradient of a. */
    ck_assert_uint_le(peak, before + 2 * BYTES);
    eqi_tensor *used[] = {a, cos, u, v, w, x, y, z, c, seed};
    for (size_t i = 0; i < EQI_COUNT(used); i++) eqi_tensor_unref(used[i]);
    eqi_tape_free(tape);
    eqi_ctx_unref(ctx);
}
END_TEST

/* What no backward rule reads does not stay for it: of this chain, nothing but a, cos and the two
 * that mul needs. */
START_TEST(forward_keeps_what_backward_reads)
{
    eqi_ctx *ctx = open_ctx("ref");
    eqi_tape *tape;
    OK(ctx, eqi_tape_create(ctx, &tape));
    enum { BYTES = 2 * 4 * 2 * 8 * 4, COS = 4 * 4 * 4 };
    eqi_tensor *a = trainable(make_random(ctx, EQI_F32, DIMS(2, 4, 2, 8), 1, 1));
    eqi_tensor *cos = make_random(ctx, EQI_F32, DIMS(4, 4), 2, 1), *t[7];
    OK(ctx, eqi_op_scale(tape, a, 2, &t[0]));
    OK(ctx, eqi_op_add(tape, t[0], a, &t[1]));
    OK(ctx, eqi_op_rope(tape, t[1], cos, cos, NULL, &t[2]));
    OK(ctx, eqi_op_reshape(tape, t[2], 2, DIMS(8, 16).at, &t[3]));
    OK(ctx, eqi_op_scale(tape, t[3], 2, &t[4]));
    OK(ctx, eqi_op_mul(tape, t[3], t[4], &t[5]));
    OK(ctx, eqi_op_scale(tape, t[5], 1, &t[6]));
    for (int i = 0; i < 6; i++) eqi_tensor_unref(t[i]);
    ck_assert_uint_eq(ctx->live_bytes, 4 * BYTES + COS);
    ck_assert_ptr_null(t[0]->storage);
    ck_assert_ptr_null(t[0]->v.data);
    OK(ctx, eqi_tape_backward_from(tape, t[6], t[6]));
    eqi_tensor_unref(t[6]);
    ck_assert_uint_eq(ctx->live_bytes, 2 * BYTES + COS);
    eqi_tensor_unref(a);
    eqi_tensor_unref(cos);
    ck_assert_uint_eq(ctx->live_bytes, 0);
    eqi_tape_free(tape);
    eqi_ctx_unref(ctx);
}
END_TEST

/* 2048 x 32768 logits would be 256 MB in f32; the loss and its gradients must stay far below. The
 * reference is slow, and needs one row at a time. */
static void cross_entropy_memory(const char *device, eqi_dtype dtype, int R)
{
    enum { V = 32768, H = 4 };
    counter c = {0};
    eqi_ctx *ctx = open_counted(device, &c);
    eqi_tape *tape;
    OK(ctx, eqi_tape_create(ctx, &tape));
    eqi_tensor *x = trainable(make_random(ctx, dtype, DIMS(R, H), 1, 1));
    eqi_tensor *w = trainable(make_random(ctx, EQI_F32, DIMS(V, H), 2, 1));
    eqi_tensor *labels = make(ctx, EQI_I32, DIMS(R)), *loss, *n;
    for (int i = 0; i < R; i++) put(labels, i, i % 3 ? i * 127 % V : -100);
    size_t before = ctx->bytes_now;
    ctx->bytes_peak = before;
    OK(ctx, eqi_op_linear_cross_entropy(tape, x, w, labels, NULL, &loss, &n));
    OK(ctx, eqi_tape_backward(tape, loss, 1));
    ck_assert_double_eq(get(n, 0), R - (R + 2) / 3);
    ck_assert(isfinite(get(loss, 0)) && get(loss, 0) > 5);
    size_t logits = (size_t)R * V * 4;
    size_t found = ctx->bytes_peak - before;
    ck_assert_msg(found < logits / 4,
                  "%s %s: found %zu bytes above the start, %zu would hold the logits", device,
                  eqi_dtype_name(dtype), found, logits);
    eqi_tensor *used[] = {x, w, labels, loss, n};
    for (size_t i = 0; i < EQI_COUNT(used); i++) eqi_tensor_unref(used[i]);
    eqi_tape_free(tape);
    eqi_ctx_unref(ctx);
    ck_assert_uint_eq(c.live, 0);
}

START_TEST(no_matrix_of_logits)
{
    cross_entropy_memory("ref", EQI_F32, 48);
    cross_entropy_memory("cpu", EQI_F32, 2048);
    cross_entropy_memory("cpu", EQI_BF16, 2048);
}
END_TEST

/* No T x T scores per head: 4 heads x 1024 x 1024 would be 16 MB. */
START_TEST(no_matrix_of_scores)
{
    enum { T = 1024, HEADS = 4, D = 8 };
    eqi_ctx *ctx = open_ctx("cpu");
    eqi_tape *tape;
    OK(ctx, eqi_tape_create(ctx, &tape));
    eqi_tensor *q = trainable(make_random(ctx, EQI_F32, DIMS(1, T, HEADS, D), 1, 1)), *o;
    size_t before = ctx->bytes_now;
    ctx->bytes_peak = before;
    eqi_attention_desc d = {.scale = 0.3f, .causal = true};
    OK(ctx, eqi_op_attention(tape, q, q, q, NULL, &d, &o));
    OK(ctx, eqi_tape_backward_from(tape, o, q));
    ck_assert_uint_lt(ctx->bytes_peak - before, (size_t)HEADS * T * T * 4 / 4);
    eqi_tensor_unref(q);
    eqi_tensor_unref(o);
    eqi_tape_free(tape);
    eqi_ctx_unref(ctx);
}
END_TEST

/* Sums that only the next one reads are one piece of memory; one that somebody holds is left alone.
 */
START_TEST(sums_of_rows_share_memory)
{
    enum { R = 4, H = 3 };
    eqi_ctx *ctx = open_ctx("ref");
    eqi_tape *tape;
    OK(ctx, eqi_tape_create(ctx, &tape));
    eqi_tensor *y = trainable(make_random(ctx, EQI_F32, DIMS(2, H), 1, 1)),
               *weights = trainable(make_random(ctx, EQI_F32, DIMS(R, 2), 2, 1)),
               *rows = make_from(ctx, EQI_I32, DIMS(2), (double[]){3, 1}),
               *slots = make_from(ctx, EQI_I32, DIMS(2), (double[]){0, 1}), *sum, *square;
    OK(ctx, eqi_tensor_zeros(ctx, &sum, EQI_F32, 2, DIMS(R, H).at));
    const void *data = sum->v.data;
    for (int i = 0; i < 3; i++) {
        OK(ctx, eqi_op_scatter_rows(tape, &sum, y, weights, rows, slots));
        ck_assert_ptr_eq(sum->v.data, data);
    }
    /* The square reads it in backward. */
    OK(ctx, eqi_op_mul(tape, sum, sum, &square));
    OK(ctx, eqi_op_scatter_rows(tape, &sum, y, weights, rows, slots));
    ck_assert_ptr_ne(sum->v.data, data);
    data = sum->v.data;
    eqi_tensor *held = eqi_tensor_ref(sum), *view;
    OK(ctx, eqi_op_scatter_rows(tape, &sum, y, weights, rows, slots));
    ck_assert_ptr_ne(sum->v.data, data);
    data = sum->v.data;
    OK(ctx, eqi_tensor_slice(sum, &view, 0, 0, 1));
    OK(ctx, eqi_op_scatter_rows(tape, &sum, y, weights, rows, slots));
    ck_assert_ptr_ne(sum->v.data, data);
    for (int i = 0; i < H; i++) {
        double once = get(weights, 6) * get(y, i);
        ck_assert_double_eq_tol(get(held, 3 * H + i), 4 * once, 1e-5);
        ck_assert_double_eq_tol(get(sum, 3 * H + i), 6 * once, 1e-5);
    }
    OK(ctx, eqi_tape_backward_from(tape, sum, sum));
    for (int i = 0; i < H; i++)
        ck_assert_double_eq_tol(get(y->grad, i), 6 * get(weights, 6) * get(sum, 3 * H + i), 1e-4);
    eqi_tensor *used[] = {y, weights, rows, slots, sum, square, held, view};
    for (size_t i = 0; i < EQI_COUNT(used); i++) eqi_tensor_unref(used[i]);
    eqi_tape_free(tape);
    eqi_ctx_unref(ctx);
}
END_TEST

TCase *case_memory(void)
{
    TCase *t = tcase_create("memory");
    tcase_add_test(t, backward_gives_back_as_it_goes);
    tcase_add_test(t, gradients_pass_without_copies);
    tcase_add_test(t, forward_keeps_what_backward_reads);
    tcase_add_test(t, no_matrix_of_logits);
    tcase_add_test(t, no_matrix_of_scores);
    tcase_add_test(t, sums_of_rows_share_memory);
    return t;
}
