#include "cpu/vec/rows.h"

void VEC(axpby)(void *y, eqi_dtype ty, float alpha, const void *a, eqi_dtype ta, float beta,
                const void *b, eqi_dtype tb, int64_t n)
{
    vf va = v_set1(alpha), vb = v_set1(beta);
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf v = v_mul(va, vec_load(a, ta, i, step));
        if (b) v = v_add(v, v_mul(vb, vec_load(b, tb, i, step)));
        vec_store(y, ty, i, v, step);
    }
}

void VEC(mul)(void *y, eqi_dtype ty, const void *a, eqi_dtype ta, const void *b, eqi_dtype tb,
              int64_t n, bool acc)
{
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf v = v_mul(vec_load(a, ta, i, step), vec_load(b, tb, i, step));
        if (acc) v = v_add(v, vec_load(y, ty, i, step));
        vec_store(y, ty, i, v, step);
    }
}

/* Between F32, BF16 and F16. */
void VEC(convert)(void *y, eqi_dtype ty, const void *x, eqi_dtype tx, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vec_store(y, ty, i, vec_load(x, tx, i, step), step);
    }
}

/* sum[n] (+)= x[n] */
void VEC(sum_rows)(float *sum, const void *x, eqi_dtype dtype, int64_t n, bool acc)
{
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf v = vec_load(x, dtype, i, step);
        if (acc) v = v_add(v, vec_load(sum, EQI_F32, i, step));
        vec_store(sum, EQI_F32, i, v, step);
    }
}

double VEC(dot)(const void *a, const void *b, eqi_dtype dtype, int64_t n)
{
    vd sum = vd_zero();
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        sum = vd_add(
            sum, vd_mul(vd_of(vec_load(a, dtype, i, step)), vd_of(vec_load(b, dtype, i, step))));
    }
    return vd_sum(sum);
}

double VEC(sum_squares)(const float *g, int64_t n)
{
    vd sum = vd_zero();
    for (int64_t i = 0; i < n; i += VL) {
        vd v = vd_of(vec_load(g, EQI_F32, i, vec_step(n - i)));
        sum = vd_add(sum, vd_mul(v, v));
    }
    return vd_sum(sum);
}

/* The exponent of what is not finite is all ones: no other is larger. */
bool VEC(is_finite)(const void *x, eqi_dtype dtype, int64_t n)
{
    const int64_t whole = n / (2 * VL) * (2 * VL);
    vi high = vi_set1(0), low = vi_set1(0);
    if (dtype == EQI_BF16)
        for (int64_t i = 0; i < whole; i += 2 * VL) {
            const vi two = vi_load((const uint16_t *)x + i);
            high = vi_max(high, vi_and(two, vi_set1(0x7f800000)));
            low = vi_max(low, vi_and(two, vi_set1(0x7f80)));
        }
    else
        for (int64_t i = 0; i < whole; i += VL)
            high = vi_max(high, vi_and(vi_load((const uint32_t *)x + i), vi_set1(0x7f800000)));
    if (vm_bits(vi_eq(high, vi_set1(0x7f800000))) || vm_bits(vi_eq(low, vi_set1(0x7f80))))
        return false;
    bool finite = true;
    for (int64_t i = whole; i < n; i++)
        finite &= dtype == EQI_BF16 ? (((const uint16_t *)x)[i] & 0x7f80) != 0x7f80
                                    : (((const uint32_t *)x)[i] & 0x7f800000) != 0x7f800000;
    return finite;
}

double VEC(squared_error)(const void *x, const void *target, eqi_dtype dtype,
                          eqi_dtype target_dtype, int64_t n)
{
    vd sum = vd_zero();
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vd e = vd_sub(vd_of(vec_load(x, dtype, i, step)),
                      vd_of(vec_load(target, target_dtype, i, step)));
        sum = vd_add(sum, vd_mul(e, e));
    }
    return vd_sum(sum);
}

void VEC(squared_error_bwd)(void *dx, eqi_dtype tdx, const void *x, eqi_dtype tx,
                            const void *target, eqi_dtype tt, float factor, int64_t n, bool acc)
{
    vf f = v_set1(factor);
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        vf v = v_mul(f, v_sub(vec_load(x, tx, i, step), vec_load(target, tt, i, step)));
        if (acc) v = v_add(v, vec_load(dx, tdx, i, step));
        vec_store(dx, tdx, i, v, step);
    }
}
