#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"
#include "train/schedule.h"

/* ---- schedule ---- */

START_TEST(schedule_values)
{
    static const double half = 0.5, root = 0.70710678118654752440, last = 0.99950656036573155700;
    const struct {
        int64_t k;
        eqi_schedule s;
        double expected;
    } cases[] = {
        /* no warm-up: from 1 along the cosine to the floor */
        {0, {0, 100, 1, 0.05}, 1},
        {50, {0, 100, 1, 0.05}, 0.05 + 0.95 * half},
        {25, {0, 100, 1, 0}, (1 + root) * half},
        {99, {0, 100, 1, 0}, (1 - last) * half},
        {100, {0, 100, 1, 0.05}, 0.05},
        {1000, {0, 100, 1, 0.05}, 0.05},
        /* warm-up: linear from 0, the cosine over the rest */
        {0, {4, 20, 1, 0}, 0},
        {3, {4, 20, 1, 0}, 0.75},
        {4, {4, 20, 1, 0}, 1},
        {12, {4, 20, 1, 0}, half},
        /* the last half of the rest, nothing of it, nine tenths of five steps */
        {4, {4, 20, 0.5, 0.1}, 1},
        {12, {4, 20, 0.5, 0.1}, 1},
        {14, {4, 20, 0.5, 0.1}, 0.1 + 0.9 * (1 + root) * half},
        {16, {4, 20, 0.5, 0.1}, 0.1 + 0.9 * half},
        {20, {4, 20, 0.5, 0.1}, 0.1},
        {19, {4, 20, 0, 0.1}, 1},
        {20, {4, 20, 0, 0.1}, 0.1},
        {0, {0, 5, 0.9, 0.1}, 1},
        /* no end: constant */
        {1, {2, 0, 1, 0.3}, half},
        {1000000, {2, 0, 1, 0.3}, 1},
        /* a warm-up longer than everything */
        {5, {10, 5, 1, 0.3}, half},
        {10, {10, 5, 1, 0.3}, 0.3},
        {10, {10, 10, 1, 0.3}, 0.3},
    };
    for (size_t i = 0; i < EQI_COUNT(cases); i++)
        ck_assert_double_eq_tol(eqi_schedule_factor(&cases[i].s, cases[i].k), cases[i].expected,
                                1e-15);
}
END_TEST

/* ---- AdamW ---- */

enum { N = 7, M = 3 };

static eqat_tensor *trainable(eqat_context *ctx, int64_t n, const float *values)
{
    eqat_tensor *t;
    OK(ctx, eqat_tensor_create(ctx, &t, EQAT_F32, 1, &n, values));
    OK(ctx, eqat_tensor_set_requires_grad(t, true));
    return t;
}

/* loss = factor * mean((x - target)^2) on the tape: gradient 2 factor (x - target) / n */
static void add_gradient(eqat_context *ctx, eqat_tensor *x, const float *target, double factor)
{
    eqat_tape *tape;
    eqat_tensor *t, *loss;
    int64_t n = eqat_tensor_count(x);
    OK(ctx, eqat_tape_create(ctx, &tape));
    OK(ctx, eqat_tensor_create(ctx, &t, EQAT_F32, 1, &n, target));
    OK(ctx, eqat_op_mse(tape, x, t, &loss));
    OK(ctx, eqat_tape_backward(tape, loss, factor));
    eqat_tensor_free(t);
    eqat_tensor_free(loss);
    eqat_tape_free(tape);
}

typedef struct plain {
    double x[N + M], m[N + M], v[N + M];
} plain;

static const float start_a[N] = {0.5f, -1.25f, 3.0f, 0.0f, 1e-3f, -40.0f, 7.0f},
                   start_b[M] = {1.0f, 2.0f, -3.0f};
static const float target_a[N] = {0}, target_b[M] = {1.5f, 2.0f, 0.0f};

/* The same in double, from the formulas. */
static double plain_step(plain *p, const eqat_optimizer_options *o, int k, double lr_a, double lr_b,
                         double scale)
{
    double g[N + M], sum = 0, norm, clip = 1;
    for (int i = 0; i < N + M; i++) {
        double target = i < N ? (double)target_a[i] : (double)target_b[i - N];
        g[i] = scale * 2 * (p->x[i] - target) / (i < N ? N : M);
        sum += g[i] * g[i];
    }
    norm = sqrt(sum);
    if (o->max_grad_norm > 0 && norm > o->max_grad_norm) clip = o->max_grad_norm / (norm + 1e-6);
    const eqi_schedule schedule = {o->warmup_steps, o->total_steps, o->decay_ratio,
                                   o->min_lr_factor};
    const double share = eqi_schedule_factor(&schedule, k);
    for (int i = 0; i < N + M; i++) {
        double lr = (i < N ? lr_a : lr_b) * share, gi = g[i] * clip;
        p->m[i] = o->beta1 * p->m[i] + (1 - o->beta1) * gi;
        p->v[i] = o->beta2 * p->v[i] + (1 - o->beta2) * gi * gi;
        double mh = p->m[i] / (1 - pow(o->beta1, k + 1)), vh = p->v[i] / (1 - pow(o->beta2, k + 1));
        p->x[i] = p->x[i] * (1 - lr * o->weight_decay) - lr * mh / (sqrt(vh) + o->eps);
    }
    return norm;
}

static void compare(eqat_tensor *t, const double *expected, double tolerance)
{
    int64_t n;
    float *x = read_floats(t, &n);
    for (int64_t i = 0; i < n; i++)
        ck_assert_double_le(fabs((double)x[i] - expected[i]), tolerance * (1 + fabs(expected[i])));
    free(x);
}

static eqat_optimizer_options twelve_steps(void)
{
    eqat_optimizer_options o;
    eqat_optimizer_options_init(&o, sizeof o);
    o.total_steps = 12;
    o.warmup_steps = 3;
    o.min_lr_factor = 0.1;
    return o;
}

static void follow(eqat_optimizer_options o, double grad_scale)
{
    eqat_context *ctx = make_context(2, 0);
    const double lr_a = 0.05, lr_b = 0.01;
    eqat_optimizer *adamw;
    int32_t group;
    OK(ctx, eqat_optimizer_create(ctx, &adamw, &o));
    OK(ctx, eqat_optimizer_add_group(adamw, lr_a, NULL));
    OK(ctx, eqat_optimizer_add_group(adamw, lr_b, &group));
    ck_assert_int_eq(group, 1);
    eqat_tensor *a = trainable(ctx, N, start_a), *b = trainable(ctx, M, start_b);
    OK(ctx, eqat_optimizer_add(adamw, 0, a));
    OK(ctx, eqat_optimizer_add(adamw, 1, b));
    plain p = {{0}, {0}, {0}};
    for (int i = 0; i < N; i++) p.x[i] = (double)start_a[i];
    for (int i = 0; i < M; i++) p.x[N + i] = (double)start_b[i];
    for (int k = 0; k < 15; k++) {
        add_gradient(ctx, a, target_a, 1);
        add_gradient(ctx, b, target_b, 0.25); /* in two parts: gradients accumulate */
        add_gradient(ctx, b, target_b, 0.75);
        double norm, expected = plain_step(&p, &o, k, lr_a, lr_b, grad_scale);
        OK(ctx, eqat_optimizer_step(adamw, grad_scale));
        OK(ctx, eqat_optimizer_grad_norm(adamw, &norm));
        ck_assert_double_eq_tol(norm, expected, 1e-5 * expected);
        ck_assert_ptr_null(eqat_tensor_grad(a));
        ck_assert_int_eq(eqat_optimizer_steps(adamw), k + 1);
        compare(a, p.x, 2e-6);
        compare(b, p.x + N, 2e-6);
    }
    eqat_tensor_free(a);
    eqat_tensor_free(b);
    eqat_optimizer_free(adamw);
    eqat_context_free(ctx);
}

START_TEST(adamw_follows_the_formulas) { follow(twelve_steps(), 1); }
END_TEST

START_TEST(adamw_takes_its_constants_from_the_options)
{
    eqat_optimizer_options o = twelve_steps();
    o.beta1 = 0.6;
    o.beta2 = 0.9;
    o.eps = 0.01;
    o.decay_ratio = 0.5;
    follow(o, 1);
}
END_TEST

START_TEST(adamw_decays_and_clips)
{
    eqat_optimizer_options o = twelve_steps();
    o.weight_decay = 0.1;
    o.max_grad_norm = 0.3;
    follow(o, 0.5);
}
END_TEST

static eqat_status spoil(void *user, eqat_tensor *const *parameters, size_t count)
{
    ck_assert_uint_eq(count, 2);
    const float value = *(const float *)user;
    float g[N];
    eqat_tensor *grad = eqat_tensor_grad(parameters[0]);
    ck_assert_int_eq(eqat_tensor_read(grad, g, sizeof g), EQAT_OK);
    g[3] = value;
    return eqat_tensor_write(grad, g, sizeof g);
}

static eqat_status refuse(void *user, eqat_tensor *const *parameters, size_t count)
{
    (void)user;
    (void)parameters;
    (void)count;
    return EQAT_BACKEND;
}

START_TEST(a_gradient_that_is_not_finite_changes_nothing)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int clip = 0; clip < 2; clip++)
        for (int i = 0; i < 3; i++) {
            eqat_context *ctx = make_context(1, 0);
            eqat_optimizer_options o;
            eqat_optimizer_options_init(&o, sizeof o);
            o.max_grad_norm = clip ? 1 : 0;
            eqat_optimizer *adamw;
            OK(ctx, eqat_optimizer_create(ctx, &adamw, &o));
            OK(ctx, eqat_optimizer_add_group(adamw, 0.1, NULL));
            eqat_tensor *a = trainable(ctx, N, start_a), *b = trainable(ctx, M, start_b);
            OK(ctx, eqat_optimizer_add(adamw, 0, a));
            OK(ctx, eqat_optimizer_add(adamw, 0, b));
            float value = bad[i];
            eqat_optimizer_set_grad_callback(adamw, spoil, &value);
            double norm, expected[N + M];
            add_gradient(ctx, a, target_a, 1);
            add_gradient(ctx, b, target_b, 1);
            OK(ctx, eqat_optimizer_step(adamw, 1));
            OK(ctx, eqat_optimizer_grad_norm(adamw, &norm));
            ck_assert(!isfinite(norm));
            ck_assert_ptr_null(eqat_tensor_grad(a));
            for (int k = 0; k < N; k++) expected[k] = (double)start_a[k];
            for (int k = 0; k < M; k++) expected[N + k] = (double)start_b[k];
            compare(a, expected, 0);
            compare(b, expected + N, 0);
            eqat_tensor_free(a);
            eqat_tensor_free(b);
            eqat_optimizer_free(adamw);
            eqat_context_free(ctx);
        }
}
END_TEST

/* ---- backward and update in one ---- */

enum { ONE_BY_ONE, CALLBACK, CLIPPED, SEGMENT, APART };

typedef struct spy {
    eqat_tensor *watched;
    bool gone; /* its gradient, by the time of the spy's own backward */
} spy;

static eqat_status look(void *user, eqat_tape *tape, eqat_tensor *grad, eqat_tensor *const *in,
                        int32_t n_in)
{
    spy *s = user;
    ck_assert_int_eq(n_in, 1);
    s->gone = !eqat_tensor_grad(s->watched);
    return eqat_tape_add_grad(tape, in[0], grad);
}

static eqat_status nothing(void *user, eqat_tensor *const *parameters, size_t count)
{
    (void)user;
    (void)parameters;
    (void)count;
    return EQAT_OK;
}

static eqat_status doubled(eqat_tape *tape, void *user, eqat_tensor *const *in, int32_t n_in,
                           eqat_tensor **out)
{
    (void)user;
    (void)n_in;
    return eqat_op_add(tape, in[0], in[0], out);
}

/* loss = mse(spy(b) * a + 2 a, target), five steps; a and b afterwards. Returns the last gradient
 * norm. */
static double five_steps(int kind, float *values)
{
    eqat_context *ctx = make_context(1, 0);
    eqat_optimizer_options o;
    eqat_optimizer_options_init(&o, sizeof o);
    if (kind == CLIPPED) o.max_grad_norm = 1e9;
    eqat_optimizer *adamw;
    OK(ctx, eqat_optimizer_create(ctx, &adamw, &o));
    OK(ctx, eqat_optimizer_add_group(adamw, 0.1, NULL));
    if (kind == CALLBACK) eqat_optimizer_set_grad_callback(adamw, nothing, NULL);
    int64_t n = N;
    eqat_tensor *a = trainable(ctx, N, start_a), *b = trainable(ctx, N, start_a), *target;
    OK(ctx, eqat_optimizer_add(adamw, 0, a));
    OK(ctx, eqat_optimizer_add(adamw, 0, b));
    OK(ctx, eqat_tensor_create(ctx, &target, EQAT_F32, 1, &n, target_a));
    eqat_tape *tape;
    OK(ctx, eqat_tape_create(ctx, &tape));
    for (int step = 0; step < 5; step++) {
        spy s = {.watched = a};
        eqat_tensor *seen, *product, *twice, *sum, *loss;
        OK(ctx, eqat_tensor_create(ctx, &seen, EQAT_F32, 1, &n, NULL));
        OK(ctx, eqat_tensor_copy(seen, b));
        OK(ctx, eqat_op_custom(tape, "spy", &b, 1, seen, look, NULL, &s));
        OK(ctx, eqat_op_mul(tape, seen, a, &product));
        if (kind == SEGMENT)
            OK(ctx, eqat_tape_checkpoint(tape, doubled, NULL, NULL, &a, 1, &twice));
        else
            OK(ctx, doubled(tape, NULL, &a, 1, &twice));
        OK(ctx, eqat_op_add(tape, product, twice, &sum));
        OK(ctx, eqat_op_mse(tape, sum, target, &loss));
        if (kind == APART) {
            OK(ctx, eqat_tape_backward(tape, loss, 1));
            OK(ctx, eqat_optimizer_step(adamw, 1));
        } else {
            OK(ctx, eqat_optimizer_backward(adamw, tape, loss));
        }
        ck_assert(s.gone == (kind == ONE_BY_ONE));
        ck_assert_ptr_null(eqat_tensor_grad(a));
        ck_assert_ptr_null(eqat_tensor_grad(b));
        eqat_tensor *const all[] = {seen, product, twice, sum, loss};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) eqat_tensor_free(all[i]);
    }
    double norm;
    OK(ctx, eqat_optimizer_grad_norm(adamw, &norm));
    ck_assert_int_eq(eqat_optimizer_steps(adamw), 5);
    OK(ctx, eqat_tensor_read(a, values, N * sizeof *values));
    OK(ctx, eqat_tensor_read(b, values + N, N * sizeof *values));
    eqat_tape_free(tape);
    eqat_tensor_free(a);
    eqat_tensor_free(b);
    eqat_tensor_free(target);
    eqat_optimizer_free(adamw);
    eqat_context_free(ctx);
    return norm;
}

START_TEST(one_by_one_or_together_the_numbers_are_the_same)
{
    float expected[2 * N], found[2 * N];
    double norm = five_steps(APART, expected);
    ck_assert(isfinite(norm) && norm > 0);
    for (int kind = ONE_BY_ONE; kind < APART; kind++) {
        ck_assert_double_eq_tol(five_steps(kind, found), norm, 1e-6 * norm);
        ck_assert_mem_eq(found, expected, sizeof found);
    }
}
END_TEST

START_TEST(a_step_without_gradients_has_norm_0)
{
    eqat_context *ctx = make_context(1, 0);
    eqat_optimizer *adamw;
    OK(ctx, eqat_optimizer_create(ctx, &adamw, NULL));
    OK(ctx, eqat_optimizer_add_group(adamw, 0.1, NULL));
    eqat_tensor *a = trainable(ctx, N, start_a), *elsewhere = trainable(ctx, N, start_a), *target;
    OK(ctx, eqat_optimizer_add(adamw, 0, a));
    int64_t n = N;
    OK(ctx, eqat_tensor_create(ctx, &target, EQAT_F32, 1, &n, target_a));
    eqat_tape *tape;
    OK(ctx, eqat_tape_create(ctx, &tape));
    for (int i = 0; i < 2; i++) {
        eqat_tensor *loss;
        double norm;
        OK(ctx, eqat_op_mse(tape, i ? elsewhere : a, target, &loss));
        OK(ctx, eqat_optimizer_backward(adamw, tape, loss));
        OK(ctx, eqat_optimizer_grad_norm(adamw, &norm));
        ck_assert((norm == 0) == (i == 1));
        eqat_tensor_free(loss);
    }
    eqat_tape_free(tape);
    eqat_tensor_free(a);
    eqat_tensor_free(elsewhere);
    eqat_tensor_free(target);
    eqat_optimizer_free(adamw);
    eqat_context_free(ctx);
}
END_TEST

/* What an earlier backward left counts too; a gradient that is not finite stops its own tensor. */
START_TEST(leftovers_are_applied_and_bad_gradients_are_not)
{
    eqat_context *ctx = make_context(1, 0);
    eqat_optimizer *adamw;
    OK(ctx, eqat_optimizer_create(ctx, &adamw, NULL));
    OK(ctx, eqat_optimizer_add_group(adamw, 0.1, NULL));
    eqat_tensor *a = trainable(ctx, N, start_a), *b = trainable(ctx, M, start_b), *target, *loss;
    OK(ctx, eqat_optimizer_add(adamw, 0, a));
    OK(ctx, eqat_optimizer_add(adamw, 0, b));
    add_gradient(ctx, b, target_b, 1);
    eqat_tape *tape;
    int64_t n = N;
    float bad[N] = {0}, after_a[N], after_b[M];
    bad[2] = NAN;
    OK(ctx, eqat_tensor_create(ctx, &target, EQAT_F32, 1, &n, bad));
    OK(ctx, eqat_tape_create(ctx, &tape));
    OK(ctx, eqat_op_mse(tape, a, target, &loss));
    OK(ctx, eqat_optimizer_backward(adamw, tape, loss));
    double norm;
    OK(ctx, eqat_optimizer_grad_norm(adamw, &norm));
    ck_assert(isnan(norm));
    OK(ctx, eqat_tensor_read(a, after_a, sizeof after_a));
    OK(ctx, eqat_tensor_read(b, after_b, sizeof after_b));
    ck_assert_mem_eq(after_a, start_a, sizeof after_a);
    ck_assert_mem_eq(after_b, start_b, sizeof after_b); /* behind the bad one */
    ck_assert_ptr_null(eqat_tensor_grad(b));
    eqat_tensor_free(target);
    eqat_tensor_free(loss);

    add_gradient(ctx, b, target_b, 1);
    OK(ctx, eqat_tensor_create(ctx, &target, EQAT_F32, 1, &n, target_a));
    OK(ctx, eqat_op_mse(tape, a, target, &loss));
    OK(ctx, eqat_optimizer_backward(adamw, tape, loss));
    OK(ctx, eqat_tensor_read(a, after_a, sizeof after_a));
    OK(ctx, eqat_tensor_read(b, after_b, sizeof after_b));
    ck_assert_float_lt(after_a[0], start_a[0]);
    ck_assert_float_gt(after_b[0], start_b[0]);
    eqat_tensor_free(target);
    eqat_tensor_free(loss);
    eqat_tape_free(tape);
    eqat_tensor_free(a);
    eqat_tensor_free(b);
    eqat_optimizer_free(adamw);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(wrong_use_is_refused)
{
    eqat_context *ctx = make_context(1, 0);
    eqat_optimizer *adamw;
    eqat_optimizer_options o;
    eqat_optimizer_options_init(&o, sizeof o);
    o.beta1 = 1;
    says(ctx, eqat_optimizer_create(ctx, &adamw, &o), EQAT_INVALID_ARGUMENT, "beta1");
    ck_assert_ptr_null(adamw);
    OK(ctx, eqat_optimizer_create(ctx, &adamw, NULL));
    says(ctx, eqat_optimizer_add_group(adamw, NAN, NULL), EQAT_INVALID_ARGUMENT, "learning rate");
    eqat_tensor *a = trainable(ctx, N, start_a);
    says(ctx, eqat_optimizer_add(adamw, 0, a), EQAT_INVALID_ARGUMENT, "group");
    OK(ctx, eqat_optimizer_add_group(adamw, 0.1, NULL));
    OK(ctx, eqat_optimizer_add(adamw, 0, a));
    says(ctx, eqat_optimizer_add(adamw, 0, a), EQAT_INVALID_ARGUMENT, "already");
    OK(ctx, eqat_tensor_set_requires_grad(a, false));
    says(ctx, eqat_optimizer_add(adamw, 0, a), EQAT_INVALID_ARGUMENT, "untrainable f32");
    eqat_optimizer_set_grad_callback(adamw, refuse, NULL);
    says(ctx, eqat_optimizer_step(adamw, 1), EQAT_BACKEND, "gradient callback: failed: backend");
    ck_assert_int_eq(eqat_optimizer_steps(adamw), 0);
    eqat_tensor_free(a);
    eqat_optimizer_free(adamw);
    eqat_context_free(ctx);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_test(tc, schedule_values);
    tcase_add_test(tc, adamw_follows_the_formulas);
    tcase_add_test(tc, adamw_takes_its_constants_from_the_options);
    tcase_add_test(tc, adamw_decays_and_clips);
    tcase_add_test(tc, a_gradient_that_is_not_finite_changes_nothing);
    tcase_add_test(tc, one_by_one_or_together_the_numbers_are_the_same);
    tcase_add_test(tc, a_step_without_gradients_has_norm_0);
    tcase_add_test(tc, leftovers_are_applied_and_bad_gradients_are_not);
    tcase_add_test(tc, wrong_use_is_refused);
    return run_case("optimizer", tc, CK_NOFORK);
}
