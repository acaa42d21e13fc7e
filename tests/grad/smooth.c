#include "each_test.h"
#include "grad.h"

/* In f64 on the reference backend. */

static void expect_close(const sample *s, const char *how, eqi_tensor **expected,
                         eqi_tensor **found, double factor)
{
    for (int i = 0; i < INPUTS; i++) {
        if (!expected[i]) continue;
        for (int64_t j = 0; j < count(expected[i]); j++) {
            double e = factor * get(expected[i], j), f = get(found[i], j);
            ck_assert_msg(fabs(e - f) <= 1e-12 * (1 + fabs(e)),
                          "%s, %s: input %d element %lld: found %.15g, expected %.15g", s->c->name,
                          how, i, (long long)j, f, e);
        }
    }
}

START_TEST(finite_differences)
{
    sample s;
    eqi_tensor *grads[INPUTS];
    sample_make(&s, ctx, &grad_cases[_i], EQI_F64, DENSE);
    sample_gradients(&s, ONCE, grads);
    for (int i = 0; i < INPUTS; i++) {
        kind k = s.c->in[i].kind;
        if (k != X && k != P) continue;
        for (int64_t j = 0; j < count(s.in[i]); j++) {
            double at = get(s.in[i], j), h = 1e-5;
            put(s.in[i], j, at + h);
            double above = sample_value(&s);
            put(s.in[i], j, at - h);
            double below = sample_value(&s);
            put(s.in[i], j, at);
            double expected = (above - below) / (2 * h), found = get(grads[i], j);
            ck_assert_msg(
                fabs(expected - found) <= 1e-8 * (1 + fabs(expected)),
                "%s: input %d element %lld: found %.12g, the difference quotient is %.12g",
                s.c->name, i, (long long)j, found, expected);
        }
    }
    free_all(grads);
    sample_free(&s);
}
END_TEST

START_TEST(layouts)
{
    eqi_tensor *dense[INPUTS], *other[INPUTS];
    sample s;
    sample_make(&s, ctx, &grad_cases[_i], EQI_F64, DENSE);
    sample_gradients(&s, ONCE, dense);
    sample_free(&s);
    for (int l = GAPS; l <= TRANSPOSED; l++) {
        sample_make(&s, ctx, &grad_cases[_i], EQI_F64, (layout)l);
        sample_gradients(&s, TWICE, other);
        expect_close(&s, l == GAPS ? "inputs with gaps" : "transposed inputs", dense, other, 2);
        free_all(other);
        sample_free(&s);
    }
    free_all(dense);
}
END_TEST

START_TEST(several_uses)
{
    static const struct {
        int how;
        double factor;
        const char *name;
    } uses[] = {
        {AGAIN, 2, "two backwards"},
        {TWICE, 2, "two uses"},
        {TWICE | AGAIN, 4, "two uses, two backwards"},
        {THROUGH, 1, "inputs from the tape"},
        {THROUGH | TWICE, 2, "inputs from the tape, two uses"},
        {THROUGH | TWICE | AGAIN, 4, "inputs from the tape, two uses, two backwards"},
        {RECOMPUTED | TWICE, 2, "one use recomputed, one not"},
    };
    sample s;
    eqi_tensor *once[INPUTS], *found[INPUTS];
    sample_make(&s, ctx, &grad_cases[_i], EQI_F64, DENSE);
    sample_gradients(&s, ONCE, once);
    for (size_t i = 0; i < EQI_COUNT(uses); i++) {
        sample_gradients(&s, uses[i].how, found);
        expect_close(&s, uses[i].name, once, found, uses[i].factor);
        free_all(found);
    }
    free_all(once);
    sample_free(&s);
}
END_TEST

START_TEST(one_at_a_time)
{
    sample s;
    eqi_tensor *all[INPUTS], *one[INPUTS];
    sample_make(&s, ctx, &grad_cases[_i], EQI_F64, DENSE);
    sample_gradients(&s, ONCE, all);
    for (int i = 0; i < INPUTS; i++) {
        if (!all[i]) continue;
        for (int j = 0; j < INPUTS; j++)
            if (s.in[j]) s.in[j]->requires_grad = i == j;
        sample_gradients(&s, ONCE, one);
        eqi_tensor *expected[INPUTS] = {NULL};
        expected[i] = all[i];
        expect_close(&s, "alone", expected, one, 1);
        free_all(one);
    }
    free_all(all);
    sample_free(&s);
}
END_TEST

START_TEST(recomputed_bit_for_bit)
{
    for (int t = 0; t < 3; t++) {
        eqi_dtype dtype = t == 0 ? EQI_F64 : t == 1 ? EQI_F32 : EQI_BF16;
        if (dtype == EQI_BF16 && grad_cases[_i].no_bf16) continue;
        for (int how = 0; how <= THROUGH; how += THROUGH) {
            sample s;
            eqi_tensor *plain[INPUTS], *again[INPUTS];
            sample_make(&s, ctx, &grad_cases[_i], dtype, DENSE);
            sample_gradients(&s, how, plain);
            sample_gradients(&s, how | RECOMPUTED, again);
            for (int i = 0; i < INPUTS; i++)
                ck_assert_msg(!plain[i] || same_bits(plain[i], again[i]), "%s %s: input %d",
                              s.c->name, eqi_dtype_name(dtype), i);
            free_all(plain);
            free_all(again);
            sample_free(&s);
        }
    }
}
END_TEST

TCase *case_smooth(void)
{
    TCase *t = tcase_create("smooth");
    tcase_add_checked_fixture(t, setup_ref, teardown);
    int n = (int)grad_case_count;
    tcase_add_loop_test(t, finite_differences, 0, n);
    tcase_add_loop_test(t, layouts, 0, n);
    tcase_add_loop_test(t, several_uses, 0, n);
    tcase_add_loop_test(t, one_at_a_time, 0, n);
    tcase_add_loop_test(t, recomputed_bit_for_bit, 0, n);
    return t;
}
