#include "cpu/vec/rows.h"

static inline __attribute__((always_inline)) void finish(void *out, eqi_dtype dtype,
                                                         const float *sum, const float *bias,
                                                         int64_t n, bool acc)
{
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf v = vec_load(sum, EQI_F32, i, step);
        if (bias) v = v_add(v, vec_load(bias, EQI_F32, i, step));
        if (acc) v = v_add(v, vec_load(out, dtype, i, step));
        vec_store(out, dtype, i, v, step);
    }
}

void VEC(finish)(void *out, eqi_dtype dtype, const float *sum, const float *bias, int64_t n,
                 bool acc)
{
    if (dtype == EQI_F32)
        finish(out, EQI_F32, sum, bias, n, acc);
    else
        finish(out, EQI_BF16, sum, bias, n, acc);
}
