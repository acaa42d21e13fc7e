#include "cpu/vec/math.h"
#include "cpu/vec/rows.h"

#define GELU 1.5957691216057308f /* 2 sqrt(2 / pi) */

/* Every activation is x times a logistic function of this; the hyperbolic tangent is one:
 * (1 + tanh(t)) / 2 = 1 / (1 + exp(-2t)). */
static inline vf exponent(eqi_activation activation, vf x)
{
    if (activation == EQI_SILU) return x;
    const vf square = v_mul(x, x), a = v_set1(GELU), b = v_set1(0.044715f * GELU);
    return v_mul(x, v_fma(square, b, a));
}

/* x times the slope of it. At 32 the logistic function has none left, so that a larger x need not
 * overflow here. */
static inline vf exponent_slope(eqi_activation activation, vf x)
{
    if (activation == EQI_SILU) return x;
    x = v_min(v_set1(32.0f), v_max(v_set1(-32.0f), x));
    const vf square = v_mul(x, x), a = v_set1(GELU), b = v_set1(3.0f * 0.044715f * GELU);
    return v_mul(x, v_fma(square, b, a));
}

static inline __attribute__((always_inline)) void forward(void *y, const void *gate, const void *up,
                                                          eqi_activation activation,
                                                          eqi_dtype dtype, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf g = vec_load(gate, dtype, i, step), s = v_sigmoid(exponent(activation, g));
        vec_store(y, dtype, i, v_mul(v_mul(g, s), vec_load(up, dtype, i, step)), step);
    }
}

void VEC(gated)(void *y, const void *gate, const void *up, eqi_activation activation,
                eqi_dtype dtype, int64_t n)
{
    if (activation == EQI_SILU && dtype == EQI_F32)
        forward(y, gate, up, EQI_SILU, EQI_F32, n);
    else if (activation == EQI_SILU)
        forward(y, gate, up, EQI_SILU, EQI_BF16, n);
    else if (dtype == EQI_F32)
        forward(y, gate, up, EQI_GELU_TANH, EQI_F32, n);
    else
        forward(y, gate, up, EQI_GELU_TANH, EQI_BF16, n);
}

/* 1 / (1 + exp(-x)), and what it lacks of 1 without the cancellation of a difference. */
static inline vf logistic(vf x, vf *rest)
{
    const vf one = v_set1(1.0f), minus = v_sub(v_zero(), x);
    const vf e = v_exp(v_sub(v_zero(), v_max(minus, x))), large = v_div(one, v_add(one, e)),
             small = v_mul(e, large);
    const vm negative = v_lt(x, v_zero());
    *rest = v_sel(negative, large, small);
    return v_sel(negative, small, large);
}

static inline __attribute__((always_inline)) void backward(void *dgate, void *dup, const void *dy,
                                                           const void *gate, const void *up,
                                                           eqi_activation activation,
                                                           eqi_dtype dtype, int64_t n)
{
    vf one = v_set1(1.0f);
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf d = vec_load(dy, dtype, i, step), g = vec_load(gate, dtype, i, step),
           u = vec_load(up, dtype, i, step);
        vf rest, s = logistic(exponent(activation, g), &rest);
        vf slope = v_mul(s, v_fma(exponent_slope(activation, g), rest, one));
        vec_store(dgate, dtype, i, v_mul(v_mul(d, u), slope), step);
        vec_store(dup, dtype, i, v_mul(v_mul(d, g), s), step);
    }
}

void VEC(gated_bwd)(void *dgate, void *dup, const void *dy, const void *gate, const void *up,
                    eqi_activation activation, eqi_dtype dtype, int64_t n)
{
    if (activation == EQI_SILU && dtype == EQI_F32)
        backward(dgate, dup, dy, gate, up, EQI_SILU, EQI_F32, n);
    else if (activation == EQI_SILU)
        backward(dgate, dup, dy, gate, up, EQI_SILU, EQI_BF16, n);
    else if (dtype == EQI_F32)
        backward(dgate, dup, dy, gate, up, EQI_GELU_TANH, EQI_F32, n);
    else
        backward(dgate, dup, dy, gate, up, EQI_GELU_TANH, EQI_BF16, n);
}
