#include "each_test.h"
#include "unit.h"

static eqi_tape *tape;

static void open_tape(void) { OK(ctx, eqi_tape_create(ctx, &tape)); }
static void close_tape(void)
{
    eqi_tape_free(tape);
    eqi_tape_free(NULL);
}

static eqi_tensor *leaf(double a, double b)
{
    return trainable(make_from(ctx, EQI_F32, DIMS(2), (double[]){a, b}));
}

static void expect(const eqi_tensor *t, double a, double b)
{
    ck_assert_ptr_nonnull(t);
    ck_assert_double_eq(get(t, 0), a);
    ck_assert_double_eq(get(t, 1), b);
}

/* Backward from `out` with the gradient (1, 10). */
static void backward(eqi_tensor *out)
{
    eqi_tensor *g = make_from(ctx, out->v.dtype, DIMS(2), (double[]){1, 10});
    OK(ctx, eqi_tape_backward_from(tape, out, g));
    expect(g, 1, 10);
    eqi_tensor_unref(g);
}

START_TEST(records_only_what_trains)
{
    eqi_tensor *a = leaf(1, 2), *b = make_from(ctx, EQI_F32, DIMS(2), (double[]){3, 4}), *y, *z;
    OK(ctx, eqi_op_add(tape, b, b, &y));
    ck_assert_uint_eq(tape->count, 0);
    ck_assert(!y->requires_grad && !tape->touched);
    OK(ctx, eqi_op_mul(tape, y, a, &z));
    ck_assert_uint_eq(tape->count, 1);
    ck_assert(z->requires_grad && z->on_tape && tape->touched);
    eqi_tensor_unref(y);
    eqi_tape_set_recording(tape, false);
    OK(ctx, eqi_op_add(tape, z, a, &y));
    ck_assert_uint_eq(tape->count, 1);
    ck_assert(!y->requires_grad);
    ck_assert(!eqi_tape_records(tape, &a, 1));
    eqi_tape_set_recording(tape, true);
    ck_assert(eqi_tape_records(tape, &a, 1) && !eqi_tape_records(tape, &b, 1));
    backward(z);
    expect(a->grad, 6, 80);
    ck_assert_ptr_null(b->grad);
    eqi_tensor_unref(a);
    eqi_tensor_unref(b);
    eqi_tensor_unref(y);
    eqi_tensor_unref(z);
}
END_TEST

START_TEST(several_uses_add_up)
{
    /* y = ((a + a) + a * a) + a: dy/da = 3 + 2a */
    eqi_tensor *a = leaf(5, 7), *two, *square, *sum, *y;
    OK(ctx, eqi_op_add(tape, a, a, &two));
    OK(ctx, eqi_op_mul(tape, a, a, &square));
    OK(ctx, eqi_op_add(tape, two, square, &sum));
    OK(ctx, eqi_op_add(tape, sum, a, &y));
    backward(y);
    expect(a->grad, 13, 170);
    eqi_tensor_unref(two);
    eqi_tensor_unref(square);
    eqi_tensor_unref(sum);
    eqi_tensor_unref(y);
    eqi_tensor_unref(a);
}
END_TEST

/* The gradient of a sum is handed on without a copy; later additions to one reader must not show in
 * the other. */
START_TEST(shared_gradients_stay_apart)
{
    eqi_tensor *a = leaf(1, 1), *b = leaf(2, 2), *u, *v, *w, *x, *y;
    OK(ctx, eqi_op_scale(tape, a, 3, &u));
    OK(ctx, eqi_op_scale(tape, b, 5, &v));
    OK(ctx, eqi_op_scale(tape, u, 2, &w)); /* a second use of u, below the sum on the tape */
    OK(ctx, eqi_op_add(tape, u, v, &x));
    OK(ctx, eqi_op_add(tape, x, w, &y));
    backward(y);
    expect(a->grad, 9, 90);
    expect(b->grad, 5, 50);
    eqi_tensor *all[] = {a, b, u, v, w, x, y};
    for (size_t i = 0; i < EQI_COUNT(all); i++) eqi_tensor_unref(all[i]);
}
END_TEST

START_TEST(leaves_own_their_gradients)
{
    eqi_tensor *a = leaf(1, 1), *b = leaf(2, 2), *r, *y;
    OK(ctx, eqi_op_reshape(tape, b, 1, DIMS(2).at, &r));
    OK(ctx, eqi_op_add(tape, a, r, &y));
    eqi_tensor *g = make_from(ctx, EQI_F32, DIMS(2), (double[]){1, 10});
    OK(ctx, eqi_tape_backward_from(tape, y, g));
    ck_assert_ptr_ne(a->grad->v.data, b->grad->v.data);
    ck_assert_ptr_ne(a->grad->v.data, g->v.data);
    ck_assert_ptr_ne(b->grad->v.data, g->v.data);
    put(g, 0, 99);
    put(a->grad, 1, 98);
    expect(b->grad, 1, 10);
    ck_assert_double_eq(get(a->grad, 0), 1);
    eqi_tensor *all[] = {a, b, r, y, g};
    for (size_t i = 0; i < EQI_COUNT(all); i++) eqi_tensor_unref(all[i]);
}
END_TEST

START_TEST(two_backwards_accumulate)
{
    eqi_tensor *a = leaf(1, 1), *y;
    for (int i = 1; i <= 3; i++) {
        OK(ctx, eqi_op_scale(tape, a, 2, &y));
        backward(y);
        expect(a->grad, 2 * i, 20 * i);
        eqi_tensor_unref(y);
    }
    eqi_tensor_zero_grad(a);
    ck_assert_ptr_null(a->grad);
    OK(ctx, eqi_op_scale(tape, a, 2, &y));
    backward(y);
    expect(a->grad, 2, 20);
    eqi_tensor_unref(y);
    eqi_tensor_unref(a);
}
END_TEST

START_TEST(loss_is_scaled)
{
    eqi_tensor *a = leaf(1, 4), *target = make_from(ctx, EQI_F32, DIMS(2), (double[]){0, 1}), *loss;
    OK(ctx, eqi_op_mse(tape, a, target, &loss));
    ck_assert_double_eq(get(loss, 0), 5);
    OK(ctx, eqi_tape_backward(tape, loss, 0.5));
    expect(a->grad, 0.5, 1.5);
    ck_assert_ptr_null(loss->grad);
    eqi_tensor_unref(loss);
    eqi_tensor_unref(target);
    eqi_tensor_unref(a);
}
END_TEST

START_TEST(dtypes_of_gradients)
{
    /* A leaf in bf16 has an f32 gradient; what the tape made has its own dtype. 257 needs more bits
     * than bf16 has. */
    eqi_tensor *a = trainable(make_from(ctx, EQI_BF16, DIMS(2), (double[]){1, 1})), *y;
    for (int i = 0; i < 257; i++) {
        OK(ctx, eqi_op_scale(tape, a, 1, &y));
        backward(y);
        eqi_tensor_unref(y);
    }
    ck_assert_int_eq(a->grad->v.dtype, EQI_F32);
    expect(a->grad, 257, 2570);
    eqi_tensor *g;
    bool acc;
    OK(ctx, eqi_op_scale(tape, a, 1, &y));
    OK(ctx, eqi_grad_of(y, &g, &acc));
    ck_assert(g->v.dtype == EQI_BF16 && !acc);
    OK(ctx, eqi_grad_of(y, &g, &acc));
    ck_assert(g == y->grad && acc);
    OK(ctx, eqi_grad_of(NULL, &g, &acc));
    ck_assert_ptr_null(g);
    eqi_tensor_unref(y);
    eqi_tensor_unref(a);
}
END_TEST

START_TEST(results_become_constants)
{
    eqi_tensor *a = leaf(1, 1), *y;
    OK(ctx, eqi_op_scale(tape, a, 2, &y));
    eqi_tape_clear(tape);
    ck_assert(!y->requires_grad && !y->on_tape);
    eqi_tensor *loss;
    OK(ctx, eqi_op_mse(tape, y, y, &loss));
    ck_assert_uint_eq(tape->count, 0);
    FAILS(ctx, EQAT_INVALID_ARGUMENT,
          "backward: the loss was not recorded: nothing it depends on is trainable",
          eqi_tape_backward(tape, loss, 1));
    FAILS(ctx, EQAT_INVALID_ARGUMENT,
          "backward: the output was not recorded: nothing it depends on is trainable",
          eqi_tape_backward_from(tape, y, y));
    eqi_tensor_unref(loss);
    eqi_tensor_unref(y);
    eqi_tensor_unref(a);
}
END_TEST

START_TEST(backward_of_the_wrong_thing)
{
    eqi_tensor *a = leaf(1, 1), *y, *g = make(ctx, EQI_F32, DIMS(3));
    OK(ctx, eqi_op_scale(tape, a, 2, &y));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "backward: found a loss of shape [2], expected one element",
          eqi_tape_backward(tape, y, 1));
    ck_assert_uint_eq(tape->count, 0);
    eqi_tensor_unref(y);
    OK(ctx, eqi_op_scale(tape, a, 2, &y));
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "backward: found a gradient of shape [3], expected [2]",
          eqi_tape_backward_from(tape, y, g));
    ck_assert_uint_eq(tape->count, 0);
    ck_assert_ptr_null(a->grad);
    eqi_tensor_unref(g);
    eqi_tensor_unref(y);
    eqi_tensor_unref(a);
}
END_TEST

START_TEST(what_leads_nowhere_is_skipped)
{
    eqi_tensor *a = leaf(1, 1), *b = leaf(2, 2), *y, *dead;
    OK(ctx, eqi_op_scale(tape, a, 2, &y));
    OK(ctx, eqi_op_scale(tape, b, 2, &dead));
    backward(y);
    ck_assert_ptr_null(b->grad);
    expect(a->grad, 2, 20);
    ck_assert(!dead->requires_grad);
    eqi_tensor_unref(dead);
    eqi_tensor_unref(y);
    eqi_tensor_unref(a);
    eqi_tensor_unref(b);
}
END_TEST

typedef struct triple {
    int released, called;
    eqat_status fail;
    const char *message;
} triple;

static void triple_release(void *user) { ((triple *)user)->released++; }

static eqat_status triple_backward(void *user, eqi_tape *t, eqi_tensor *dy, eqi_tensor *const *in,
                                   int n_in)
{
    triple *u = user;
    u->called++;
    if (u->message) eqi_fail(t->ctx, u->fail, "%s", u->message);
    if (u->fail != EQAT_OK) return u->fail;
    ck_assert_int_eq(n_in, 2);
    ck_assert_ptr_null(in[1]);
    /* Ops may serve as arithmetic here: nothing is recorded meanwhile, not even of what trains. */
    eqi_tensor *g;
    EQI_RETURN_IF(eqi_op_scale(t, in[0], 3, &g));
    ck_assert(!g->requires_grad);
    eqi_tensor_unref(g);
    EQI_RETURN_IF(eqi_op_scale(t, dy, 3, &g));
    return eqi_grad_give(in[0], g);
}

static eqi_tensor *run_triple(eqi_tensor *a, triple *u)
{
    eqi_tensor *y = make_from(ctx, EQI_F32, DIMS(2), (double[]){3 * get(a, 0), 3 * get(a, 1)}),
               *in[2] = {a, NULL};
    OK(ctx, eqi_op_custom(tape, "triple", in, 2, y, triple_backward, triple_release, u));
    return y;
}

START_TEST(custom_op)
{
    triple u = {0};
    eqi_tensor *a = leaf(1, 2), *y = run_triple(a, &u);
    backward(y);
    expect(a->grad, 3, 30);
    ck_assert(u.called == 1 && u.released == 1);
    eqi_tensor_unref(y);

    /* A leaf of the caller's may be handed dy itself. */
    u = (triple){.fail = EQAT_IO, .message = "the disk is gone"};
    y = run_triple(a, &u);
    eqi_tensor *g = make_from(ctx, EQI_F32, DIMS(2), (double[]){1, 10});
    FAILS(ctx, EQAT_IO, "triple: the disk is gone", eqi_tape_backward_from(tape, y, g));
    ck_assert(u.called == 1 && u.released == 1);
    eqi_tensor_unref(y);
    u = (triple){.fail = EQAT_NUMERIC};
    y = run_triple(a, &u);
    FAILS(ctx, EQAT_NUMERIC, "triple: its backward rule failed: numeric",
          eqi_tape_backward_from(tape, y, g));
    eqi_tensor_unref(y);

    /* Not recorded: released at once. */
    u = (triple){0};
    a->requires_grad = false;
    y = run_triple(a, &u);
    ck_assert_int_eq(u.released, 1);
    eqi_tensor_unref(y);
    a->requires_grad = true;

    /* An output that is on the tape already. */
    OK(ctx, eqi_op_scale(tape, a, 1, &y));
    u = (triple){0};
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "triple: custom: the output is trainable or recorded already",
          eqi_op_custom(tape, "triple", &a, 1, y, triple_backward, triple_release, &u));
    ck_assert_int_eq(u.released, 1);
    eqi_tensor *many[11] = {a};
    u = (triple){0};
    FAILS(ctx, EQAT_INVALID_ARGUMENT, "triple: custom: found 11 inputs, expected at most 10",
          eqi_op_custom(tape, "triple", many, 11, g, triple_backward, triple_release, &u));
    ck_assert_int_eq(u.released, 1);
    eqi_tensor_unref(y);
    eqi_tensor_unref(g);
    eqi_tensor_unref(a);
}
END_TEST

static eqat_status give_dy_itself(void *user, eqi_tape *t, eqi_tensor *dy, eqi_tensor *const *in,
                                  int n_in)
{
    (void)user, (void)t;
    for (int i = 0; i < n_in; i++) EQI_RETURN_IF(eqi_grad_add(in[i], dy));
    return EQAT_OK;
}

START_TEST(custom_op_gives_dy_to_all)
{
    eqi_tensor *a = leaf(1, 2), *b = leaf(3, 4), *in[3] = {a, b, a};
    eqi_tensor *y = make_from(ctx, EQI_F32, DIMS(2), (double[]){5, 8});
    OK(ctx, eqi_op_custom(tape, NULL, in, 3, y, give_dy_itself, NULL, NULL));
    backward(y);
    expect(a->grad, 2, 20);
    expect(b->grad, 1, 10);
    eqi_tensor_unref(y);
    eqi_tensor_unref(a);
    eqi_tensor_unref(b);
}
END_TEST

static eqat_status no_rule_forward(eqi_tensor *a, eqi_tensor **y)
{
    static const eqi_op no_rule = {.name = "no_rule"};
    OK(ctx, eqi_tensor_cast(a, EQI_F32, y));
    return eqi_tape_record(tape, &no_rule, &a, 1, *y, NULL, 0, NULL, 0);
}

START_TEST(op_without_a_rule)
{
    eqi_tensor *a = leaf(1, 2), *y;
    OK(ctx, no_rule_forward(a, &y));
    FAILS(ctx, EQAT_UNSUPPORTED, "no_rule: has no backward rule",
          eqi_tape_backward_from(tape, y, a));
    eqi_tensor_unref(y);
    eqi_tensor_unref(a);
}
END_TEST

START_TEST(many_nodes)
{
    eqi_tensor *a = leaf(1, 2), *x = eqi_tensor_ref(a), *y;
    for (int i = 0; i < 1000; i++) {
        OK(ctx, eqi_op_scale(tape, x, i % 2 ? 2 : 0.5, &y));
        eqi_tensor_unref(x);
        x = y;
    }
    ck_assert_uint_eq(tape->count, 1000);
    backward(x);
    expect(a->grad, 1, 10);
    eqi_tensor_unref(x);
    eqi_tensor_unref(a);
}
END_TEST

TCase *case_tape(void)
{
    TCase *t = tcase_create("tape");
    tcase_add_checked_fixture(t, setup_ref, teardown);
    tcase_add_checked_fixture(t, open_tape, close_tape);
    tcase_add_test(t, records_only_what_trains);
    tcase_add_test(t, several_uses_add_up);
    tcase_add_test(t, shared_gradients_stay_apart);
    tcase_add_test(t, leaves_own_their_gradients);
    tcase_add_test(t, two_backwards_accumulate);
    tcase_add_test(t, loss_is_scaled);
    tcase_add_test(t, dtypes_of_gradients);
    tcase_add_test(t, results_become_constants);
    tcase_add_test(t, backward_of_the_wrong_thing);
    tcase_add_test(t, what_leads_nowhere_is_skipped);
    tcase_add_test(t, custom_op);
    tcase_add_test(t, custom_op_gives_dy_to_all);
    tcase_add_test(t, op_without_a_rule);
    tcase_add_test(t, many_nodes);
    return t;
}
