#include "cpu/vec/math.h"
#include "cpu/vec/rows.h"

double VEC(log_sum_exp)(const float *x, int64_t n)
{
    vf max = v_set1(-3.4e38f);
    int64_t whole = n / VL * VL;
    for (int64_t i = 0; i < whole; i += VL) max = v_max(v_load(x + i), max);
    float m = v_hmax(max);
    for (int64_t i = whole; i < n; i++) m = x[i] > m ? x[i] : m;
    vd sum = vd_zero();
    vf top = v_set1(m);
    for (int64_t i = 0; i < whole; i += VL)
        sum = vd_add(sum, vd_of(v_exp(v_sub(v_load(x + i), top))));
    double total = vd_sum(sum);
    for (int64_t i = whole; i < n; i++) total += (double)__builtin_expf(x[i] - m);
    return (double)m + __builtin_log(total);
}

void VEC(softmax)(void *out, eqi_dtype dtype, const float *x, float lse, int64_t n)
{
    vf l = v_set1(lse);
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vec_store(out, dtype, i, v_exp(v_sub(vec_load(x, EQI_F32, i, step), l)), step);
    }
}
