#include "cpu/vec/rows.h"

static float dot_f32(const float *a, const float *b, int64_t n)
{
    vf sum[4] = {v_zero(), v_zero(), v_zero(), v_zero()};
    for (int64_t i = 0; i < n; i += 4 * VL)
        for (int k = 0; k < 4; k++)
            sum[k] = v_fma(v_load(a + i + k * VL), v_load(b + i + k * VL), sum[k]);
    return v_sum(v_add(v_add(sum[0], sum[1]), v_add(sum[2], sum[3])));
}

#if EQI_SIMD_BF16
static float dot_bf16(const uint16_t *a, const uint16_t *b, int64_t n)
{
    vf even = v_zero(), odd = v_zero();
    for (int64_t i = 0; i < n; i += 4 * VL) {
        even = v_pair_fma(v_pair_load(a + i), v_pair_load(b + i), even);
        odd = v_pair_fma(v_pair_load(a + i + 2 * VL), v_pair_load(b + i + 2 * VL), odd);
    }
    return v_sum(v_add(even, odd));
}
#endif

void VEC(dots)(float *sums, eqi_elem elem, const void *w, const void *x, int64_t m, int64_t n)
{
    for (int64_t i = 0; i < m; i++) {
#if EQI_SIMD_BF16
        if (elem == EQI_ELEM_BF16) {
            sums[i] = dot_bf16(w, (const uint16_t *)x + i * n, n);
            continue;
        }
#endif
        sums[i] = dot_f32(w, (const float *)x + i * n, n);
    }
    (void)elem;
}
