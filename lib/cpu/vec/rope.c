#include "cpu/vec/rows.h"

static inline __attribute__((always_inline)) void rotate(void *y, const void *x, const float *cos,
                                                         const float *sin, float sign,
                                                         eqi_dtype dtype, int64_t half)
{
    vf s = v_set1(sign);
    for (int64_t i = 0; i < half; i += VL) {
        int step = vec_step(half - i);
        vf c = vec_load(cos, EQI_F32, i, step), n = v_mul(s, vec_load(sin, EQI_F32, i, step));
        vf lo = vec_load(x, dtype, i, step), hi = vec_load(x, dtype, half + i, step);
        vec_store(y, dtype, i, v_sub(v_mul(lo, c), v_mul(hi, n)), step);
        vec_store(y, dtype, half + i, v_add(v_mul(hi, c), v_mul(lo, n)), step);
    }
}

void VEC(rope)(void *y, const void *x, const float *cos, const float *sin, float sign,
               eqi_dtype dtype, int64_t half)
{
    if (dtype == EQI_F32)
        rotate(y, x, cos, sin, sign, EQI_F32, half);
    else
        rotate(y, x, cos, sin, sign, EQI_BF16, half);
}
