/* The sources in this folder are compiled once per instruction set: EQI_SIMD_HEADER brings the
 * vector type, EQI_SIMD_NAME the suffix that keeps the symbols apart. */
#ifndef EQI_CPU_VEC_VEC_H
#define EQI_CPU_VEC_VEC_H

#include EQI_SIMD_HEADER

#include "cpu/vec/table.h"

#define EQI_PASTE_(a, b) a##_##b
#define EQI_PASTE(a, b) EQI_PASTE_(a, b)
#define VEC(name) EQI_PASTE(eqi_vec_##name, EQI_SIMD_NAME)

#ifndef EQI_SIMD_BF16
#define EQI_SIMD_BF16 0
#endif
#ifndef EQI_SIMD_AMX
#define EQI_SIMD_AMX 0
#endif

/* n is VL but for the last vector of a row. */
static inline vf vec_load(const void *p, eqi_dtype dtype, int64_t at, int n)
{
    const float *f = (const float *)p + at;
    const uint16_t *h = (const uint16_t *)p + at;
    if (n == VL)
        return dtype == EQI_F32 ? v_load(f) : dtype == EQI_BF16 ? v_load_bf16(h) : v_load_f16(h);
    return dtype == EQI_F32 ? v_load_n(f, n)
        : dtype == EQI_BF16 ? v_load_bf16_n(h, n)
                            : v_load_f16_n(h, n);
}

static inline void vec_store(void *p, eqi_dtype dtype, int64_t at, vf v, int n)
{
    float *f = (float *)p + at;
    uint16_t *h = (uint16_t *)p + at;
    if (dtype == EQI_F32) {
        if (n == VL)
            v_store(f, v);
        else
            v_store_n(f, v, n);
    } else if (dtype == EQI_BF16) {
        if (n == VL)
            v_store_bf16(h, v);
        else
            v_store_bf16_n(h, v, n);
    } else {
        if (n == VL)
            v_store_f16(h, v);
        else
            v_store_f16_n(h, v, n);
    }
}

static inline int vec_step(int64_t left) { return left < VL ? (int)left : VL; }

static inline int64_t eqi_min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

#endif
