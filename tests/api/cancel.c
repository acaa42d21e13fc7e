#include <pthread.h>
#include <time.h>

#include "api.h"

/* A cancel from another thread in the middle of one long op. */

enum { LONG = 16384, HEADS = 8, SIZE = 64 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct canceller {
    eqat_context *ctx;
    double at; /* when it was */
} canceller;

static void *cancel_soon(void *user)
{
    canceller *c = user;
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    c->at = now();
    eqat_context_cancel(c->ctx);
    return NULL;
}

static eqat_tensor *random_input(eqat_context *ctx)
{
    const int64_t shape[4] = {1, LONG, HEADS, SIZE};
    eqat_tensor *t;
    OK(eqat_tensor_create(ctx, &t, EQAT_F32, 4, shape, NULL));
    OK(eqat_tensor_fill(t, 0.25));
    return t;
}

static eqat_status attend(eqat_tape *tape, eqat_tensor *const *in, eqat_tensor **out)
{
    eqat_attention_options o;
    eqat_attention_options_init(&o, sizeof o);
    return eqat_op_attention(tape, in[0], in[1], in[2], NULL, &o, out);
}

/* Of a cancelled op; the time from the request to the answer. */
static double answer(canceller *c, pthread_t thread, eqat_status st)
{
    double end = now();
    pthread_join(thread, NULL);
    ck_assert_int_eq(st, EQAT_CANCELLED);
    return end - c->at;
}

START_TEST(one_long_attention_stops_within_a_second)
{
    eqat_context_options o = defaults();
    eqat_context *ctx = open_context(&o);
    eqat_tape *tape;
    eqat_tensor *in[3], *out = NULL;
    canceller c = {.ctx = ctx};
    pthread_t thread;
    OK(eqat_tape_create(ctx, &tape));
    for (int i = 0; i < 3; i++) in[i] = random_input(ctx);
    pthread_create(&thread, NULL, cancel_soon, &c);
    ck_assert_double_lt(answer(&c, thread, attend(tape, in, &out)), 1);
    ck_assert_ptr_null(out);
    /* and backward, where a task is a whole head */
    const int64_t few[4] = {1, LONG, 1, SIZE};
    for (int i = 0; i < 3; i++) {
        eqat_tensor_free(in[i]);
        OK(eqat_tensor_create(ctx, &in[i], EQAT_F32, 4, few, NULL));
        OK(eqat_tensor_fill(in[i], 0.25));
        OK(eqat_tensor_set_requires_grad(in[i], true));
    }
    OK(attend(tape, in, &out));
    pthread_create(&thread, NULL, cancel_soon, &c);
    ck_assert_double_lt(answer(&c, thread, eqat_tape_backward_from(tape, out, in[0])), 1);
    eqat_tensor_free(out);
    for (int i = 0; i < 3; i++) eqat_tensor_free(in[i]);
    eqat_tape_free(tape);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(a_request_that_was_taken_back_stops_nothing)
{
    eqat_context_options o = defaults();
    eqat_context *ctx = open_context(&o);
    eqat_tape *tape;
    eqat_tensor *x, *y;
    const int64_t shape[2] = {64, 64};
    OK(eqat_tape_create(ctx, &tape));
    OK(eqat_tensor_create(ctx, &x, EQAT_F32, 2, shape, NULL));
    OK(eqat_tensor_fill(x, 1));
    eqat_context_cancel(ctx);
    ck_assert_int_eq(eqat_op_linear(tape, x, x, NULL, &y), EQAT_CANCELLED);
    ck_assert_str_eq(eqat_context_error(ctx), "cancelled");
    OK(eqat_op_linear(tape, x, x, NULL, &y)); /* it was answered */
    eqat_tensor_free(y);
    eqat_context_cancel(ctx);
    eqat_context_reset_cancel(ctx);
    OK(eqat_op_linear(tape, x, x, NULL, &y));
    eqat_tensor_free(y);
    eqat_tensor_free(x);
    eqat_tape_free(tape);
    eqat_context_free(ctx);
}
END_TEST

TCase *cancel_case(void)
{
    TCase *c = tcase_create("cancel");
    tcase_add_test(c, one_long_attention_stops_within_a_second);
    tcase_add_test(c, a_request_that_was_taken_back_stops_nothing);
    return c;
}
