/* Conversions between f32 and the two 16-bit float types, on their bit patterns. Widening is exact
 * for every pattern, NaN payloads included. Narrowing rounds to nearest even, subnormals included;
 * what is too large becomes infinity; a NaN stays a NaN, made quiet, with the upper part of its
 * payload. The results do not depend on the rounding mode or on flush-to-zero. */
#ifndef EQI_BASE_HALF_H
#define EQI_BASE_HALF_H

#include <stdint.h>
#include <string.h>

#include "base/dtype.h"

static inline uint32_t eqi_f32_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float eqi_f32_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline float eqi_bf16_to_f32(uint16_t b) { return eqi_f32_from_bits((uint32_t)b << 16); }

static inline uint16_t eqi_f32_to_bf16(float f)
{
    uint32_t u = eqi_f32_bits(f);
    uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    uint32_t nan = (u >> 16) | 0x40u;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

static inline float eqi_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    /* A subnormal is a whole number of 2^-24, and a normal float. */
    uint32_t small = eqi_f32_bits((float)(int32_t)rest * 5.9604644775390625e-8f);
    uint32_t normal = (rest << 13) + (112u << 23);
    uint32_t special = (rest << 13) | 0x7f800000u;
    return eqi_f32_from_bits(sign | (rest < 0x400u ? small : rest < 0x7c00u ? normal : special));
}

static inline uint16_t eqi_f32_to_f16(float f)
{
    uint32_t u = eqi_f32_bits(f), sign = (u >> 16) & 0x8000u, x = u & 0x7fffffffu;
    if (x > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((x >> 13) & 0x3ffu));
    if (x >= 0x47800000u) return (uint16_t)(sign | 0x7c00u);
    /* A carry out of the mantissa moves on into the exponent, and from 65504 into infinity. */
    if (x >= 0x38800000u)
        return (uint16_t)(sign | ((x - (112u << 23) + 0xfffu + ((x >> 13) & 1u)) >> 13));
    if (x <= 0x33000000u) return (uint16_t)sign;
    uint32_t shift = 126u - (x >> 23), m = (x & 0x7fffffu) | 0x800000u;
    return (uint16_t)(sign | ((m + (1u << (shift - 1)) - 1u + ((m >> shift) & 1u)) >> shift));
}

/* ---- arrays; dtypes F32, BF16, F16 ---- */
/* y is BF16 or F16. */
void eqi_narrow(const float *restrict x, int64_t n, eqi_dtype dtype, uint16_t *restrict y);
float eqi_element(const void *values, int64_t i, eqi_dtype dtype);
/* Index of the first value that is not finite, or n. */
int64_t eqi_first_bad(const void *values, int64_t n, eqi_dtype dtype);
/* Index of the first value that is `end` or more from 0, or NaN, or n. */
int64_t eqi_first_from(const float *values, int64_t n, float end);

#endif
