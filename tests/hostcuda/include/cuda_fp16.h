/* Stand-in: the 16-bit float of IEEE 754 and its conversions. */
#ifndef HOSTCUDA_CUDA_FP16_H
#define HOSTCUDA_CUDA_FP16_H

#include "hostcuda/device.h"

struct __half {
    unsigned short bits;
};
typedef __half half;

__forceinline__ __half __ushort_as_half(unsigned short bits) { return __half{bits}; }
__forceinline__ unsigned short __half_as_ushort(__half h) { return h.bits; }

__forceinline__ float __half2float(__half h)
{
    unsigned sign = (unsigned)(h.bits & 0x8000) << 16, rest = (unsigned)(h.bits & 0x7fff) << 13;
    unsigned exponent = rest & 0x0f800000;
    if (exponent == 0x0f800000) return __uint_as_float(sign | rest | 0x7f800000);
    if (exponent) return __uint_as_float(sign | (rest + 0x38000000));
    /* Subnormal: rest counts units of 2^-24, 13 bits up. */
    float tiny = (float)(rest >> 13) * 0x1p-24f;
    return __uint_as_float(sign | __float_as_uint(tiny));
}

/* To the nearest, halves to even; NaN becomes 0x7fff. */
__forceinline__ __half __float2half_rn(float x)
{
    unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return __half{0x7fff};
    if (rest >= 0x477ff000) return __half{(unsigned short)(sign | 0x7c00)};
    if (rest < 0x38800000) { /* a subnormal, or zero: adding 1/2 rounds at 2^-24 */
        unsigned low = __float_as_uint(__uint_as_float(rest) + 0.5f) - __float_as_uint(0.5f);
        return __half{(unsigned short)(sign | low)};
    }
    rest += 0xfff + (rest >> 13 & 1);
    return __half{(unsigned short)(sign | ((rest - 0x38000000) >> 13))};
}
__forceinline__ __half __float2half(float x) { return __float2half_rn(x); }

#endif
