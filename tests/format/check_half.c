#include <math.h>

#include "base/half.h"
#include "run_suite.h"

/* Check reports every assertion that holds; there are a million of them here. */
#define must(condition)                                   \
    do {                                                  \
        if (!(condition)) ck_abort_msg("%s", #condition); \
    } while (0)

START_TEST(widens_every_pattern)
{
    for (uint32_t h = 0; h < 65536; h++) {
        const int exponent = (int)(h >> 10 & 31), mantissa = (int)(h & 1023);
        const float sign = h & 0x8000 ? -1.0f : 1.0f, got = eqi_f16_to_f32((uint16_t)h);
        if (exponent == 31 && mantissa) {
            must(isnan(got));
            must(eqi_f32_bits(got) ==
                 ((h & 0x8000) << 16 | 0x7f800000u | (uint32_t)mantissa << 13));
        } else {
            const double want = exponent == 31 ? HUGE_VAL
                : exponent == 0                ? ldexp(mantissa, -24)
                                               : ldexp(1024 + mantissa, exponent - 25);
            must(eqi_f32_bits(got) == eqi_f32_bits(sign * (float)want));
            must(eqi_f32_to_f16(got) == h);
        }
        const float wide = eqi_bf16_to_f32((uint16_t)h);
        must(eqi_f32_bits(wide) == h << 16);
        if (!isnan(wide)) must(eqi_f32_to_bf16(wide) == h);
    }
}
END_TEST

/* Between two neighbours: the middle goes to the even one, anything else to the nearer one. */
static void check_between(uint16_t (*narrow)(float), float (*widen)(uint16_t), uint16_t low,
                          float middle, uint16_t high)
{
    const uint16_t even = low & 1 ? high : low;
    must(narrow(middle) == even);
    must(narrow(nextafterf(middle, 0)) == low);
    must(narrow(nextafterf(middle, INFINITY)) == high);
    must(narrow(-middle) == (even | 0x8000));
    must(widen(low) < middle);
}

static uint16_t to_f16(float f) { return eqi_f32_to_f16(f); }
static uint16_t to_bf16(float f) { return eqi_f32_to_bf16(f); }
static float from_f16(uint16_t h) { return eqi_f16_to_f32(h); }
static float from_bf16(uint16_t h) { return eqi_bf16_to_f32(h); }

START_TEST(rounds_to_nearest_even)
{
    for (uint16_t h = 0; h < 0x7bff; h++) {
        const double middle = ((double)eqi_f16_to_f32(h) + eqi_f16_to_f32((uint16_t)(h + 1))) / 2;
        check_between(to_f16, from_f16, h, (float)middle, (uint16_t)(h + 1));
    }
    for (uint16_t h = 0; h < 0x7f7f; h++) {
        const double middle = ((double)eqi_bf16_to_f32(h) + eqi_bf16_to_f32((uint16_t)(h + 1))) / 2;
        check_between(to_bf16, from_bf16, h, (float)middle, (uint16_t)(h + 1));
    }
}
END_TEST

START_TEST(overflows_to_infinity_and_keeps_nan)
{
    ck_assert_uint_eq(eqi_f32_to_f16(65519.996f), 0x7bff);
    ck_assert_uint_eq(eqi_f32_to_f16(65520.0f), 0x7c00);
    ck_assert_uint_eq(eqi_f32_to_f16(-1e30f), 0xfc00);
    ck_assert_uint_eq(eqi_f32_to_f16(INFINITY), 0x7c00);
    ck_assert_uint_eq(eqi_f32_to_bf16(eqi_f32_from_bits(0x7f7fffffu)), 0x7f80);
    ck_assert_uint_eq(eqi_f32_to_bf16(-INFINITY), 0xff80);
    const uint32_t nans[] = {0x7f800001u, 0x7fc00000u, 0xffffffffu, 0xff800001u, 0x7f80ffffu};
    for (size_t i = 0; i < sizeof nans / sizeof nans[0]; i++) {
        const float f = eqi_f32_from_bits(nans[i]);
        ck_assert(isnan(eqi_f16_to_f32(eqi_f32_to_f16(f))));
        ck_assert(isnan(eqi_bf16_to_f32(eqi_f32_to_bf16(f))));
        ck_assert_uint_eq(eqi_f32_to_f16(f) >> 15, nans[i] >> 31);
        ck_assert_uint_eq(eqi_f32_to_bf16(f) >> 15, nans[i] >> 31);
    }
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("half");
    tcase_add_test(c, widens_every_pattern);
    tcase_add_test(c, rounds_to_nearest_even);
    tcase_add_test(c, overflows_to_infinity_and_keeps_nan);
    return run_case("half", c, CK_FORK_GETENV);
}
