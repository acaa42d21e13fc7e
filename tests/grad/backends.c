#include "grad.h"

/* The fast backend against the reference, gradient by gradient; kernel by kernel is the conformance
 * suite's. */

static void compare(const grad_case *c, eqi_dtype dtype, int how, double tolerance)
{
    static const char *const devices[2] = {"ref", "cpu"};
    eqi_ctx *ctx[2];
    sample s[2];
    eqi_tensor *grads[2][INPUTS];
    for (int d = 0; d < 2; d++) {
        ctx[d] = open_ctx(devices[d]);
        sample_make(&s[d], ctx[d], c, dtype, DENSE);
        sample_gradients(&s[d], how, grads[d]);
    }
    for (int i = 0; i < INPUTS; i++) {
        if (!grads[0][i]) continue;
        double found = relative(grads[0][i], grads[1][i]);
        ck_assert_msg(found <= tolerance, "%s %s: gradient of input %d differs by %.3g rms",
                      c->name, eqi_dtype_name(dtype), i, found);
    }
    for (int d = 0; d < 2; d++) {
        free_all(grads[d]);
        sample_free(&s[d]);
        eqi_ctx_unref(ctx[d]);
    }
}

START_TEST(same_as_the_reference)
{
    const grad_case *c = &grad_cases[_i];
    static const int uses[] = {ONCE, TWICE, THROUGH, THROUGH | TWICE};
    for (size_t i = 0; i < EQI_COUNT(uses); i++) {
        compare(c, EQI_F32, uses[i], 1e-4);
        /* A few units in the last place of 8 bits. */
        if (!c->no_bf16) compare(c, EQI_BF16, uses[i], 0.08);
    }
}
END_TEST

TCase *case_backends(void)
{
    TCase *t = tcase_create("backends");
    tcase_add_loop_test(t, same_as_the_reference, 0, (int)grad_case_count);
    return t;
}
