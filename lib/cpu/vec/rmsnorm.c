#include "cpu/vec/rows.h"

static inline __attribute__((always_inline)) float forward(void *y, const void *x,
                                                           const float *gain, eqi_dtype dtype,
                                                           int64_t n, float eps, float offset)
{
    vf sum = v_zero(), more = v_zero();
    int64_t i = 0;
    for (; i + 2 * VL <= n; i += 2 * VL) {
        vf a = vec_load(x, dtype, i, VL), b = vec_load(x, dtype, i + VL, VL);
        sum = v_fma(a, a, sum);
        more = v_fma(b, b, more);
    }
    for (; i < n; i += VL) {
        vf a = vec_load(x, dtype, i, vec_step(n - i));
        sum = v_fma(a, a, sum);
    }
    float rstd = 1.0f / __builtin_sqrtf(v_sum(v_add(sum, more)) / (float)n + eps);
    vf r = v_set1(rstd), shift = v_set1(offset);
    for (i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vec_store(y, dtype, i,
                  v_mul(v_mul(vec_load(x, dtype, i, step), r),
                        v_add(shift, vec_load(gain, EQI_F32, i, step))),
                  step);
    }
    return rstd;
}

float VEC(rmsnorm)(void *y, const void *x, const float *gain, eqi_dtype dtype, int64_t n, float eps,
                   float offset)
{
    return dtype == EQI_F32 ? forward(y, x, gain, EQI_F32, n, eps, offset)
                            : forward(y, x, gain, EQI_BF16, n, eps, offset);
}

static inline __attribute__((always_inline)) void backward(void *dx, float *dgain, const void *dy,
                                                           const void *x, const float *gain,
                                                           float rstd, float offset,
                                                           eqi_dtype dtype, int64_t n, bool acc_dx,
                                                           bool acc_dgain)
{
    vf r = v_set1(rstd), shift = v_set1(offset), mean = v_zero();
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf d = vec_load(dy, dtype, i, step), normal = v_mul(vec_load(x, dtype, i, step), r);
        vf product = v_mul(d, normal);
        if (dx) mean = v_fma(product, v_add(shift, vec_load(gain, EQI_F32, i, step)), mean);
        if (dgain)
            vec_store(dgain, EQI_F32, i,
                      acc_dgain ? v_add(product, vec_load(dgain, EQI_F32, i, step)) : product,
                      step);
    }
    if (!dx) return;
    vf m = v_set1(v_sum(mean) / (float)n);
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf g = v_mul(vec_load(dy, dtype, i, step), v_add(shift, vec_load(gain, EQI_F32, i, step)));
        vf v = v_mul(r, v_sub(g, v_mul(v_mul(vec_load(x, dtype, i, step), r), m)));
        if (acc_dx) v = v_add(v, vec_load(dx, dtype, i, step));
        vec_store(dx, dtype, i, v, step);
    }
}

void VEC(rmsnorm_bwd)(void *dx, float *dgain, const void *dy, const void *x, const float *gain,
                      float rstd, float offset, eqi_dtype dtype, int64_t n, bool acc_dx,
                      bool acc_dgain)
{
    if (dtype == EQI_F32)
        backward(dx, dgain, dy, x, gain, rstd, offset, EQI_F32, n, acc_dx, acc_dgain);
    else
        backward(dx, dgain, dy, x, gain, rstd, offset, EQI_BF16, n, acc_dx, acc_dgain);
}
