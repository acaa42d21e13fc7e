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

double VEC(expectation)(const void *p, eqi_dtype dtype, const float *x, int64_t n, double *mass)
{
    vd sum = vd_zero(), all = vd_zero();
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vd share = vd_of(vec_load(p, dtype, i, step));
        sum = vd_add(sum, vd_mul(share, vd_of(vec_load(x, EQI_F32, i, step))));
        all = vd_add(all, share);
    }
    *mass = vd_sum(all);
    return vd_sum(sum);
}

double VEC(divergence)(const float *x, const float *target, const float lse[2], int64_t n)
{
    vf of_p = v_set1(lse[0]), of_q = v_set1(lse[1]);
    vd sum = vd_zero();
    int64_t whole = n / VL * VL;
    for (int64_t i = 0; i < whole; i += VL) {
        vf ln_p = v_sub(v_load(target + i), of_p), ln_q = v_sub(v_load(x + i), of_q);
        sum = vd_add(sum, vd_mul(vd_of(v_exp(ln_p)), vd_of(v_sub(ln_p, ln_q))));
    }
    double total = vd_sum(sum);
    for (int64_t i = whole; i < n; i++) {
        float ln_p = target[i] - lse[0], ln_q = x[i] - lse[1];
        total += (double)__builtin_expf(ln_p) * (double)(ln_p - ln_q);
    }
    return total;
}

void VEC(divergence_bwd)(float *dx, const float *x, const float *target, const float lse[2],
                         float factor, int64_t n, bool acc)
{
    vf of_p = v_set1(lse[0]), of_q = v_set1(lse[1]), f = v_set1(factor);
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf p = v_exp(v_sub(vec_load(target, EQI_F32, i, step), of_p)),
           q = v_exp(v_sub(vec_load(x, EQI_F32, i, step), of_q)), g = v_mul(f, v_sub(q, p));
        if (acc) g = v_add(g, vec_load(dx, EQI_F32, i, step));
        vec_store(dx, EQI_F32, i, g, step);
    }
}
