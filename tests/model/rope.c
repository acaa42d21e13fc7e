#include "cases.h"
#include "each_test.h"

/* Angle of pair `pair` at position 1, for a sequence of `length`. */
static double angle(eqi_config c, int64_t length, int pair)
{
    eqi_rotary r;
    OK(ctx, eqi_rope_tables(ctx, &c, &c.ropes[0], 3, length, &r));
    ck_assert(get(r.cos, pair) == 1 && get(r.sin, pair) == 0);
    double x = get(r.cos, c.head_dim / 2 + pair), y = get(r.sin, c.head_dim / 2 + pair);
    double twice = atan2(get(r.sin, c.head_dim + pair), get(r.cos, c.head_dim + pair)),
           once = atan2(y, x);
    ck_assert_double_eq_tol(twice, 2 * once, 1e-6);
    eqi_rotary_release(&r);
    return once;
}

static const eqi_config plain = {
    .head_dim = 8, .max_positions = 16, .n_ropes = 1, .ropes = {{.theta = 10000, .factor = 4}}};

START_TEST(frequencies_fall_by_theta)
{
    for (int i = 0; i < 4; i++) ck_assert_double_eq_tol(angle(plain, 3, i), pow(10, -i), 1e-7);
}
END_TEST

START_TEST(linear_scaling_divides_all)
{
    eqi_config c = plain;
    c.ropes[0].kind = EQI_ROPE_LINEAR;
    for (int i = 0; i < 4; i++) ck_assert_double_eq_tol(angle(c, 3, i), pow(10, -i) / 4, 1e-7);
}
END_TEST

START_TEST(dynamic_scaling_starts_beyond_the_model)
{
    eqi_config c = plain;
    c.ropes[0].kind = EQI_ROPE_DYNAMIC;
    for (int i = 0; i < 4; i++) ck_assert_double_eq_tol(angle(c, 16, i), pow(10, -i), 1e-7);
    /* Twice the length at factor 4: the base grows by (4 * 2 - 3) ^ (8 / 6). */
    double base = 10000 * pow(5, 8.0 / 6.0);
    for (int i = 0; i < 4; i++) ck_assert_double_eq_tol(angle(c, 32, i), pow(base, -i / 4.0), 1e-7);
}
END_TEST

START_TEST(llama3_scaling_spares_high_frequencies)
{
    eqi_config c = plain;
    c.ropes[0].kind = EQI_ROPE_LLAMA3;
    c.ropes[0].low = 1;
    c.ropes[0].high = 4;
    c.ropes[0].original = 128;
    /* Wavelengths 6, 63, 628, 6283 against 32 and 128. */
    double smooth = (128 * 0.1 / (2 * 3.14159265358979) - 1) / 3;
    ck_assert_double_eq_tol(angle(c, 3, 0), 1, 1e-7);
    ck_assert_double_eq_tol(angle(c, 3, 1), (1 - smooth) * 0.1 / 4 + smooth * 0.1, 1e-7);
    ck_assert_double_eq_tol(angle(c, 3, 2), 0.01 / 4, 1e-8);
    ck_assert_double_eq_tol(angle(c, 3, 3), 0.001 / 4, 1e-9);
}
END_TEST

TCase *case_rope(void)
{
    TCase *tc = tcase_create("rope");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, frequencies_fall_by_theta);
    tcase_add_test(tc, linear_scaling_divides_all);
    tcase_add_test(tc, dynamic_scaling_starts_beyond_the_model);
    tcase_add_test(tc, llama3_scaling_spares_high_frequencies);
    return tc;
}
