#include "base/half.h"

#include <math.h>

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

int64_t eqi_first_from(const float *values, int64_t n, float end)
{
    int64_t bad = 0;
    for (int64_t i = 0; i < n; i++) bad += !(fabsf(values[i]) < end);
    if (!bad) return n;
    int64_t i = 0;
    while (fabsf(values[i]) < end) i++;
    return i;
}
