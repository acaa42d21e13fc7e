/* Functions of vectors, within two units in the last place of f32. */
#ifndef EQI_CPU_VEC_MATH_H
#define EQI_CPU_VEC_MATH_H

#include "cpu/vec/vec.h"

/* e^x = 2^n e^r with |r| <= ln(2)/2; beyond +-88 it stays at the last value, a NaN stays one. */
static inline vf v_exp(vf x)
{
    vf c = v_min(v_max(x, v_set1(-87.3f)), v_set1(88.0f));
    vf n = v_rint(v_mul(c, v_set1(1.44269504088896341f)));
    /* ln 2 in two parts: the first has few bits, so that n times it is exact */
    vf r = v_fma(n, v_set1(-0.693359375f), c);
    r = v_fma(n, v_set1(2.12194440e-4f), r);
    vf p = v_set1(1.9875691500e-4f);
    p = v_fma(p, r, v_set1(1.3981999507e-3f));
    p = v_fma(p, r, v_set1(8.3334519073e-3f));
    p = v_fma(p, r, v_set1(4.1665795894e-2f));
    p = v_fma(p, r, v_set1(1.6666665459e-1f));
    p = v_fma(p, r, v_set1(5.0000001201e-1f));
    p = v_add(v_fma(p, v_mul(r, r), r), v_set1(1.0f));
    vf scale = v_from_bits(vi_shl(vi_add(v_to_i(n), vi_set1(127)), vi_set1(23)));
    return v_sel(v_eq(x, x), v_mul(p, scale), x);
}

static inline vf v_sigmoid(vf x)
{
    return v_div(v_set1(1.0f), v_add(v_set1(1.0f), v_exp(v_sub(v_zero(), x))));
}

#endif
