#include "base/half.h"

#include <math.h>

/* Without branches, so that compilers vectorize it: every weight of a GGUF file passes here. */
void eqi_round_f16(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = eqi_f32_bits(x[i]);
        int32_t a = (int32_t)(u & 0x7fffffffu);
        int32_t normal = (int32_t)(((uint32_t)a + 0xfffu + ((u >> 13) & 1u)) & ~0x1fffu);
        /* Below 2^-14 the step is 2^-24, which is that of floats from 0.5 on. */
        int32_t small = (int32_t)eqi_f32_bits((eqi_f32_from_bits((uint32_t)a) + 0.5f) - 0.5f);
        int32_t kept = a < 0x38800000 ? small : normal;
        kept = kept >= 0x47800000 ? 0x7f800000 : kept;
        x[i] = eqi_f32_from_bits((u & 0x80000000u) | (uint32_t)(a > 0x7f800000 ? a : kept));
    }
}

void eqi_narrow(const float *restrict x, int64_t n, eqi_dtype dtype, uint16_t *restrict y)
{
    if (dtype == EQI_BF16)
        for (int64_t i = 0; i < n; i++) y[i] = eqi_f32_to_bf16(x[i]);
    else
        for (int64_t i = 0; i < n; i++) y[i] = eqi_f32_to_f16(x[i]);
}

float eqi_element(const void *buffer, int64_t i, eqi_dtype dtype)
{
    if (dtype == EQI_F32) return ((const float *)buffer)[i];
    uint16_t h = ((const uint16_t *)buffer)[i];
    return dtype == EQI_BF16 ? eqi_bf16_to_f32(h) : eqi_f16_to_f32(h);
}

/* Exponent bits all set, in any of the three types. */
int64_t eqi_first_bad(const void *buffer, int64_t n, eqi_dtype dtype)
{
    int64_t bad = 0;
    uint32_t mask = dtype == EQI_F16 ? 0x7c00u : dtype == EQI_BF16 ? 0x7f80u : 0x7f800000u;
    if (dtype == EQI_F32)
        for (int64_t i = 0; i < n; i++) bad += (((const uint32_t *)buffer)[i] & mask) == mask;
    else
        for (int64_t i = 0; i < n; i++) bad += (((const uint16_t *)buffer)[i] & mask) == mask;
    if (!bad) return n;
    int64_t i = 0;
    while (isfinite(eqi_element(buffer, i, dtype))) i++;
    return i;
}
