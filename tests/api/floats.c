#include <fenv.h>
#include <math.h>

#include "api.h"

/* Enough elements that every thread of the pool has some. */
enum { N = 1 << 18, ROWS = 64, WIDTH = 256 };

static float values[ROWS * WIDTH]; /* not computed under the modes that are tested */

static void make_values(void)
{
    for (int i = 0; i < ROWS * WIDTH; i++) values[i] = sinf((float)i);
}

/* Products that are subnormal, and sums that a rounding mode would move. */
static void compute(eqat_context *ctx, float *out)
{
    eqat_tape *tape;
    eqat_tensor *a = vector(ctx, N, 3e-30), *b = vector(ctx, N, 1e-10), *y, *x, *w, *z, *loss;
    OK(eqat_tape_create(ctx, &tape));
    OK(eqat_op_mul(tape, a, b, &y));
    OK(eqat_tensor_read(y, out, N * sizeof *out));
    OK(eqat_tensor_create(ctx, &x, EQAT_F32, 2, (int64_t[]){ROWS, WIDTH}, values));
    OK(eqat_tensor_create(ctx, &w, EQAT_F32, 2, (int64_t[]){ROWS, WIDTH}, values));
    OK(eqat_tensor_set_requires_grad(w, true));
    OK(eqat_op_linear(tape, x, w, NULL, &z));
    OK(eqat_op_mse(tape, z, z, &loss));
    OK(eqat_tensor_read(z, out + N, ROWS * ROWS * sizeof *out));
    eqat_tensor *all[] = {a, b, y, x, w, z, loss};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) eqat_tensor_free(all[i]);
    eqat_tape_free(tape);
}

enum { RESULTS = N + ROWS * ROWS };

#if defined(__x86_64__)
enum { FLUSH = 0x8040 };
static unsigned control(void) { return __builtin_ia32_stmxcsr() & 0xffc0u; }
static void set_flush(void) { __builtin_ia32_ldmxcsr(__builtin_ia32_stmxcsr() | FLUSH); }
#else
static unsigned control(void) { return 0; }
static void set_flush(void) {}
#endif

START_TEST(the_hosts_rounding_changes_nothing)
{
    static float expected[RESULTS], found[RESULTS];
    eqat_context_options o = defaults();
    eqat_context *ctx = open_context(&o);
    compute(ctx, expected);
    ck_assert(expected[0] > 0 && expected[0] < 1e-38f); /* or nothing is tested */

    ck_assert_int_eq(fesetround(FE_UPWARD), 0);
    set_flush();
    unsigned before = control();
    eqat_context *born_so = open_context(&o); /* its threads are born with the host's modes */
    compute(ctx, found);
    ck_assert_mem_eq(found, expected, sizeof found);
    compute(born_so, found);
    ck_assert_mem_eq(found, expected, sizeof found);
    ck_assert_int_eq(fegetround(), FE_UPWARD);
    ck_assert_uint_eq(control(), before);
    eqat_context_free(ctx);
    eqat_context_free(born_so);
    ck_assert_int_eq(fegetround(), FE_UPWARD);
    ck_assert_uint_eq(control(), before);
}
END_TEST

#if defined(__GLIBC__) /* other C libraries have no functions that set traps */
START_TEST(the_hosts_traps_do_not_spring)
{
    static float found[RESULTS];
    eqat_context_options o = defaults();
    feenableexcept(FE_INEXACT | FE_UNDERFLOW | FE_INVALID | FE_DIVBYZERO);
    int before = fegetexcept();
    eqat_context *ctx = open_context(&o);
    compute(ctx, found);
    eqat_context_free(ctx);
    ck_assert_int_eq(fegetexcept(), before);
    fedisableexcept(FE_ALL_EXCEPT);
}
END_TEST
#endif

START_TEST(options_read_numbers_the_same_way)
{
    eqat_optimizer_options a, b;
    eqat_optimizer_options_init(&a, sizeof a);
    eqat_optimizer_options_init(&b, sizeof b);
    OK(eqat_options_set(NULL, "optimizer", &a, "eps", "1e-9"));
    fesetround(FE_UPWARD);
    OK(eqat_options_set(NULL, "optimizer", &b, "eps", "1e-9"));
    ck_assert_mem_eq(&a, &b, sizeof a);
    ck_assert_int_eq(fegetround(), FE_UPWARD);
}
END_TEST

TCase *floats_case(void)
{
    TCase *c = tcase_create("floats");
    tcase_add_checked_fixture(c, make_values, NULL);
    tcase_add_test(c, the_hosts_rounding_changes_nothing);
#if defined(__GLIBC__)
    tcase_add_test(c, the_hosts_traps_do_not_spring);
#endif
    tcase_add_test(c, options_read_numbers_the_same_way);
    return c;
}
