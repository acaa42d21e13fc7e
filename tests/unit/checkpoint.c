#include "each_test.h"
#include "unit.h"

static eqi_tape *tape;

static void open_tape(void) { OK(ctx, eqi_tape_create(ctx, &tape)); }
static void close_tape(void) { eqi_tape_free(tape); }

/* x + w * silu(norm(x)) * norm(x), with a trainable gain and w captured: fan-out inside, residual
 * outside. */
typedef struct block {
    eqi_tensor *gain, *w;
    int released, runs;
    bool nested;
} block;

static void block_release(void *user) { ((block *)user)->released++; }

static eqat_status inner_segment(eqi_tape *t, void *user, eqi_tensor *const *in, int n_in,
                                 eqi_tensor **out)
{
    block *b = user;
    b->runs++;
    (void)n_in;
    eqi_tensor *n = NULL, *s = NULL, *m = NULL;
    eqat_status st = EQAT_OK;
    *out = NULL;
    EQI_GOTO(done, eqi_op_rmsnorm(t, in[0], b->gain, 1e-5, 0, &n));
    EQI_GOTO(done, eqi_op_gated(t, n, n, EQI_SILU, &s));
    EQI_GOTO(done, eqi_op_linear(t, s, &(eqi_weight){.w = b->w}, &m));
    EQI_GOTO(done, eqi_op_add(t, in[0], m, out));
done:
    eqi_tensor_unref(n);
    eqi_tensor_unref(s);
    eqi_tensor_unref(m);
    return st;
}

static eqat_status segment(eqi_tape *t, void *user, eqi_tensor *const *in, int n_in,
                           eqi_tensor **out)
{
    block *b = user;
    if (b->nested) return eqi_tape_checkpoint(t, inner_segment, user, block_release, in, n_in, out);
    return inner_segment(t, user, in, n_in, out);
}

enum { PLAIN, CHECKPOINT, NESTED };

/* Three blocks with one more use of the middle stream; returns the gradients of x, gain and w. */
static void run(int how, eqi_dtype dtype, bool train_x, eqi_tensor **grads, int *released,
                int *runs)
{
    eqi_tensor *x = make_random(ctx, dtype, DIMS(2, 5, 8), 1, 1), *h = eqi_tensor_ref(x), *y,
               *mid = NULL;
    eqi_dtype params = dtype == EQI_F64 ? EQI_F64 : EQI_F32;
    block b = {.gain = trainable(make_random(ctx, params, DIMS(8), 2, 1)),
               .w = trainable(make_random(ctx, params, DIMS(8, 8), 3, 0.5)),
               .nested = how == NESTED};
    x->requires_grad = train_x;
    for (int i = 0; i < 3; i++) {
        if (how == PLAIN)
            OK(ctx, segment(tape, &b, &h, 1, &y));
        else
            OK(ctx, eqi_tape_checkpoint(tape, segment, &b, block_release, &h, 1, &y));
        eqi_tensor_unref(h);
        h = y;
        if (i == 1) mid = eqi_tensor_ref(y);
    }
    OK(ctx, eqi_op_add(tape, h, mid, &y));
    ck_assert_uint_eq(tape->count, how == PLAIN ? 13 : 4);
    ck_assert_uint_eq(tape->captures, how == PLAIN ? 0 : 3);
    eqi_tensor *seed = make_random(ctx, dtype, DIMS(2, 5, 8), 4, 1);
    OK(ctx, eqi_tape_backward_from(tape, y, seed));
    ck_assert_uint_eq(tape->captures, 0);
    eqi_tensor *all[] = {x, b.gain, b.w};
    for (int i = 0; i < 3; i++) grads[i] = all[i]->grad ? eqi_tensor_ref(all[i]->grad) : NULL;
    *released = b.released;
    *runs = b.runs;
    eqi_tensor *used[] = {x, b.gain, b.w, h, mid, y, seed};
    for (size_t i = 0; i < EQI_COUNT(used); i++) eqi_tensor_unref(used[i]);
}

static void compare(eqi_dtype dtype, bool train_x)
{
    eqi_tensor *plain[3], *again[3];
    int released, runs;
    run(PLAIN, dtype, train_x, plain, &released, &runs);
    ck_assert_int_eq(runs, 3);
    for (int how = CHECKPOINT; how <= NESTED; how++) {
        run(how, dtype, train_x, again, &released, &runs);
        ck_assert_int_eq(released, how == CHECKPOINT ? 3 : 9);
        ck_assert_int_eq(runs, how == CHECKPOINT ? 6 : 9);
        for (int i = 0; i < 3; i++) {
            ck_assert_int_eq(plain[i] != NULL, i > 0 || train_x);
            if (plain[i]) ck_assert(same_bits(plain[i], again[i]));
            eqi_tensor_unref(again[i]);
        }
    }
    for (int i = 0; i < 3; i++) eqi_tensor_unref(plain[i]);
}

START_TEST(same_bits_as_the_plain_run)
{
    compare(EQI_F32, true);
    compare(EQI_BF16, true);
    compare(EQI_F64, true);
    /* As in E2E-QP: nothing but captured parameters trains. */
    compare(EQI_F32, false);
    compare(EQI_BF16, false);
}
END_TEST

START_TEST(nothing_to_train)
{
    eqi_tensor *x = make_random(ctx, EQI_F32, DIMS(2, 8), 1, 1), *y;
    block b = {.gain = make_random(ctx, EQI_F32, DIMS(8), 2, 1),
               .w = make_random(ctx, EQI_F32, DIMS(8, 8), 3, 1)};
    OK(ctx, eqi_tape_checkpoint(tape, segment, &b, block_release, &x, 1, &y));
    ck_assert(b.released == 1 && b.runs == 1 && tape->count == 0 && !y->requires_grad &&
              tape->recording);
    eqi_tensor_unref(y);
    b.w->requires_grad = true;
    eqi_tape_set_recording(tape, false);
    OK(ctx, eqi_tape_checkpoint(tape, segment, &b, block_release, &x, 1, &y));
    ck_assert(b.released == 2 && tape->count == 0 && !y->requires_grad && !tape->recording);
    eqi_tensor_unref(y);
    eqi_tape_set_recording(tape, true);
    OK(ctx, eqi_tape_checkpoint(tape, segment, &b, block_release, &x, 1, &y));
    ck_assert(b.released == 2 && tape->count == 1 && y->requires_grad);
    eqi_tape_clear(tape);
    ck_assert_int_eq(b.released, 3);
    eqi_tensor *used[] = {x, y, b.gain, b.w};
    for (size_t i = 0; i < EQI_COUNT(used); i++) eqi_tensor_unref(used[i]);
}
END_TEST

static eqat_status identity(eqi_tape *t, void *user, eqi_tensor *const *in, int n_in,
                            eqi_tensor **out)
{
    (void)user, (void)n_in;
    eqi_tensor *ignored;
    EQI_RETURN_IF(eqi_op_scale(t, in[0], 2, &ignored));
    eqi_tensor_unref(ignored);
    *out = eqi_tensor_ref(in[0]);
    return EQAT_OK;
}

START_TEST(segment_that_returns_its_input)
{
    eqi_tensor *x = trainable(make_from(ctx, EQI_F32, DIMS(2), (double[]){1, 2})), *u, *y;
    OK(ctx, eqi_op_scale(tape, x, 4, &u));
    OK(ctx, eqi_tape_checkpoint(tape, identity, NULL, NULL, &u, 1, &y));
    ck_assert_ptr_ne(u, y);
    eqi_tensor *g = make_from(ctx, EQI_F32, DIMS(2), (double[]){1, 10});
    OK(ctx, eqi_tape_backward_from(tape, y, g));
    ck_assert_double_eq(get(x->grad, 0), 4);
    ck_assert_double_eq(get(x->grad, 1), 40);
    eqi_tensor *used[] = {x, u, y, g};
    for (size_t i = 0; i < EQI_COUNT(used); i++) eqi_tensor_unref(used[i]);
}
END_TEST

typedef struct flaky {
    int runs, fail_on, released;
} flaky;

static void flaky_release(void *user) { ((flaky *)user)->released++; }

static eqat_status flaky_segment(eqi_tape *t, void *user, eqi_tensor *const *in, int n_in,
                                 eqi_tensor **out)
{
    flaky *f = user;
    (void)n_in;
    if (++f->runs == f->fail_on) return eqi_fail(t->ctx, EQAT_IO, "run %d", f->runs);
    return eqi_op_scale(t, in[0], 2, out);
}

START_TEST(segment_that_fails)
{
    eqi_tensor *x = trainable(make_from(ctx, EQI_F32, DIMS(2), (double[]){1, 2})), *y;
    flaky f = {.fail_on = 1};
    FAILS(ctx, EQAT_IO, "run 1",
          eqi_tape_checkpoint(tape, flaky_segment, &f, flaky_release, &x, 1, &y));
    ck_assert(!y && f.released == 1 && tape->recording && tape->count == 0);
    f = (flaky){.fail_on = 2};
    OK(ctx, eqi_tape_checkpoint(tape, flaky_segment, &f, flaky_release, &x, 1, &y));
    FAILS(ctx, EQAT_IO, "run 2", eqi_tape_backward_from(tape, y, x));
    ck_assert(f.released == 1 && tape->count == 0 && tape->recording);
    eqi_tensor_unref(y);
    eqi_tensor_unref(x);
}
END_TEST

TCase *case_checkpoint(void)
{
    TCase *t = tcase_create("checkpoint");
    tcase_add_checked_fixture(t, setup_ref, teardown);
    tcase_add_checked_fixture(t, open_tape, close_tape);
    tcase_add_test(t, same_bits_as_the_plain_run);
    tcase_add_test(t, nothing_to_train);
    tcase_add_test(t, segment_that_returns_its_input);
    tcase_add_test(t, segment_that_fails);
    return t;
}
