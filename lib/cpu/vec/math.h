/* Exponentials on vectors, within two units in the last place. */
#ifndef EQI_CPU_VEC_MATH_H
#define EQI_CPU_VEC_MATH_H

#include "cpu/vec/vec.h"

#define VEC_LOG2E 1.44269504088896340736f
#define VEC_LN2 0.69314718055994530942f

/* 2^r for |r| <= 1/2. */
static inline vf v_exp2_part(vf r)
{
    vf p = v_set1(1.535336188319500e-4f);
    p = v_fma(p, r, v_set1(1.339887440266574e-3f));
    p = v_fma(p, r, v_set1(9.618437357674640e-3f));
    p = v_fma(p, r, v_set1(5.550332471162809e-2f));
    p = v_fma(p, r, v_set1(2.402264791363012e-1f));
    p = v_fma(p, r, v_set1(6.931472028550421e-1f));
    return v_fma(p, r, v_set1(1.0f));
}

/* A NaN stays one; -infinity gives 0. */
static inline vf v_exp2(vf x)
{
    x = v_min(v_set1(129.0f), v_max(v_set1(-151.0f), x));
    vf n = v_rint(x);
    return v_scale(v_exp2_part(v_sub(x, n)), n);
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

static inline vf v_sigmoid(vf x) { return v_div(v_set1(1.0f), v_add(v_set1(1.0f), v_exp(v_sub(v_zero(), x)))); }

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
