/* Stand-in: bfloat16 and its conversions. */
#ifndef HOSTCUDA_CUDA_BF16_H
#define HOSTCUDA_CUDA_BF16_H

#include "hostcuda/device.h"

struct __nv_bfloat16 {
    unsigned short bits;
};

__forceinline__ __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    return __nv_bfloat16{bits};
}
__forceinline__ unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) { return h.bits; }

__forceinline__ float __bfloat162float(__nv_bfloat16 h)
{
    return __uint_as_float((unsigned)h.bits << 16);
}

/* To the nearest, halves to even; NaN becomes 0x7fff. */
__forceinline__ __nv_bfloat16 __float2bfloat16_rn(float x)
{
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffff) > 0x7f800000) return __nv_bfloat16{0x7fff};
    return __nv_bfloat16{(unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
__forceinline__ __nv_bfloat16 __float2bfloat16(float x) { return __float2bfloat16_rn(x); }

#endif
