#include "cpu/vec/math.h"
#include "cpu/vec/rows.h"

static inline __attribute__((always_inline)) void forward(void *y, const void *gate, const void *up,
                                                          eqi_dtype dtype, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf g = vec_load(gate, dtype, i, step);
        vec_store(y, dtype, i, v_mul(v_mul(g, v_sigmoid(g)), vec_load(up, dtype, i, step)), step);
    }
}

void VEC(silu_mul)(void *y, const void *gate, const void *up, eqi_dtype dtype, int64_t n)
{
    if (dtype == EQI_F32)
        forward(y, gate, up, EQI_F32, n);
    else
        forward(y, gate, up, EQI_BF16, n);
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
                                                           eqi_dtype dtype, int64_t n)
{
    vf one = v_set1(1.0f);
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf d = vec_load(dy, dtype, i, step), g = vec_load(gate, dtype, i, step),
           u = vec_load(up, dtype, i, step);
        vf rest, s = logistic(g, &rest), slope = v_mul(s, v_fma(g, rest, one));
        vec_store(dgate, dtype, i, v_mul(v_mul(d, u), slope), step);
        vec_store(dup, dtype, i, v_mul(v_mul(d, g), s), step);
    }
}

void VEC(silu_mul_bwd)(void *dgate, void *dup, const void *dy, const void *gate, const void *up,
                       eqi_dtype dtype, int64_t n)
{
    if (dtype == EQI_F32)
        backward(dgate, dup, dy, gate, up, EQI_F32, n);
    else
        backward(dgate, dup, dy, gate, up, EQI_BF16, n);
}
