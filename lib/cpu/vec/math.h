/* Exponentials on vectors, within two units in the last place. */
#ifndef EQI_CPU_VEC_MATH_H
#define EQI_CPU_VEC_MATH_H

#include "cpu/vec/vec.h"

#define VEC_LOG2E 1.44269504088896340736f
#define VEC_LN2 0.69314718055994530942f

/* A NaN stays one; -infinity gives 0. The polynomial is that of least relative error for 2^r, 0 <=
 * r < 1: 8e-8. */
static inline vf v_exp2(vf x)
{
    vf n, r = v_fraction(x, &n);
    vf p = v_set1(1.877576765658015e-3f);
    p = v_fma(p, r, v_set1(8.9893398765987358e-3f));
    p = v_fma(p, r, v_set1(5.5826318231683377e-2f));
    p = v_fma(p, r, v_set1(2.4015361698272358e-1f));
    p = v_fma(p, r, v_set1(6.9315307320709623e-1f));
    p = v_fma(p, r, v_set1(9.9999992506375993e-1f));
    return v_scale(p, n);
}

static inline vf v_exp(vf x)
{
    x = v_min(v_set1(89.5f), v_max(v_set1(-105.0f), x));
    vf n = v_rint(v_mul(x, v_set1(VEC_LOG2E)));
    /* ln 2 in two parts, the first of few bits, so that its multiples are exact. */
    vf r = v_fma(n, v_set1(-0.693359375f), x);
    r = v_fma(n, v_set1(2.12194440e-4f), r);
    vf p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_add(v_fma(v_mul(p, r), r, r), v_set1(1.0f));
    return v_scale(p, n);
}

static inline vf v_sigmoid(vf x)
{
    return v_div(v_set1(1.0f), v_add(v_set1(1.0f), v_exp(v_sub(v_zero(), x))));
}

/* Small arguments by the odd series, because 1 - 2 / (e^2x + 1) would cancel. */
static inline vf v_tanh(vf x)
{
    vf e = v_exp(v_add(x, x));
    vf large = v_sub(v_set1(1.0f), v_div(v_set1(2.0f), v_add(e, v_set1(1.0f))));
    vf s = v_mul(x, x), p = v_set1(-5.70498872745e-3f);
    p = v_fma(p, s, v_set1(2.06390887954e-2f));
    p = v_fma(p, s, v_set1(-5.37397155531e-2f));
    p = v_fma(p, s, v_set1(1.33314422036e-1f));
    p = v_fma(p, s, v_set1(-3.33332819422e-1f));
    return v_sel(v_lt(s, v_set1(0.390625f)), v_fma(v_mul(p, s), x, x), large);
}

#endif
