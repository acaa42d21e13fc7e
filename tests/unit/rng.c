#include "base/rng.h"

#include "unit.h"

/* Expected values from the definition, SplitMix64 chained over seed, purpose and index, computed
 * elsewhere. */
START_TEST(known_values)
{
    ck_assert_uint_eq(eqi_rng_bits(0, EQI_RNG_WINDOW, 0), UINT64_C(0x44e5b98100c67fb0));
    ck_assert_uint_eq(eqi_rng_bits(42, EQI_RNG_INIT, 7), UINT64_C(0xab2f97746e2ea953));
    ck_assert_uint_eq(eqi_rng_bits(UINT64_MAX, EQI_RNG_USER, UINT64_MAX),
                      UINT64_C(0xcbaa79e11f303fa4));
    ck_assert_uint_eq(eqi_rng_below(0, EQI_RNG_WINDOW, 0, 1000003), 269131);
    ck_assert_uint_eq(eqi_rng_below(42, EQI_RNG_INIT, 7, 1000003), 668696);
    ck_assert_uint_eq(eqi_rng_below(UINT64_MAX, EQI_RNG_USER, UINT64_MAX, 1000003), 795572);
    ck_assert_double_eq_tol(eqi_rng_normal(42, EQI_RNG_INIT, 5), -1.1733946663043178, 1e-14);
}
END_TEST

START_TEST(below_reaches_all_and_no_more)
{
    int seen[7] = {0};
    for (uint64_t i = 0; i < 7000; i++) {
        uint64_t x = eqi_rng_below(3, EQI_RNG_SHUFFLE, i, 7);
        ck_assert_uint_lt(x, 7);
        seen[x]++;
    }
    for (int i = 0; i < 7; i++) ck_assert(seen[i] > 850 && seen[i] < 1150);
    ck_assert_uint_eq(eqi_rng_below(3, EQI_RNG_SHUFFLE, 1, 1), 0);
    ck_assert_uint_gt(eqi_rng_below(3, EQI_RNG_SHUFFLE, 1, UINT64_MAX), UINT32_MAX);
}
END_TEST

START_TEST(normal_moments)
{
    enum { N = 100000 };
    double sum = 0, squares = 0, fourth = 0;
    for (uint64_t i = 0; i < N; i++) {
        double x = eqi_rng_normal(1, EQI_RNG_INIT, i);
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
    }
    ck_assert_double_eq_tol(sum / N, 0, 0.01);
    ck_assert_double_eq_tol(squares / N, 1, 0.02);
    ck_assert_double_eq_tol(fourth / N, 3, 0.15);
}
END_TEST

TCase *case_rng(void)
{
    TCase *t = tcase_create("rng");
    tcase_add_test(t, known_values);
    tcase_add_test(t, below_reaches_all_and_no_more);
    tcase_add_test(t, normal_moments);
    return t;
}
