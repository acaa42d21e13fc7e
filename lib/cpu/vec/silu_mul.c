#include "cpu/vec/math.h"
#include "cpu/vec/rows.h"

static inline __attribute__((always_inline)) void forward(void *y, const void *gate, const void *up, eqi_dtype dtype, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf g = vec_load(gate, dtype, i, step);
        vec_store(y, dtype, i, v_mul(v_mul(g, v_sigmoid(g)), vec_load(up, dtype, i, step)), step);
    }
}

void VEC(silu_mul)(void *y, const void *gate, const void *up, eqi_dtype dtype, int64_t n)
{
    if (dtype == EQI_F32) forward(y, gate, up, EQI_F32, n);
    else forward(y, gate, up, EQI_BF16, n);
}

static inline __attribute__((always_inline)) void backward(void *dgate, void *dup, const void *dy, const void *gate, const void *up,
                                                           eqi_dtype dtype, int64_t n)
{
    vf one = v_set1(1.0f);
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf d = vec_load(dy, dtype, i, step), g = vec_load(gate, dtype, i, step), u = vec_load(up, dtype, i, step);
        vf s = v_sigmoid(g);
        vf slope = v_mul(s, v_add(one, v_mul(g, v_sub(one, s))));
        vec_store(dgate, dtype, i, v_mul(v_mul(d, u), slope), step);
        vec_store(dup, dtype, i, v_mul(v_mul(d, g), s), step);
    }
}

void VEC(silu_mul_bwd)(void *dgate, void *dup, const void *dy, const void *gate, const void *up, eqi_dtype dtype, int64_t n)
{
    if (dtype == EQI_F32) backward(dgate, dup, dy, gate, up, EQI_F32, n);
    else backward(dgate, dup, dy, gate, up, EQI_BF16, n);
}
