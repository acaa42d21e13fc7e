/* 16 bytes at a time: several elements of a contiguous tensor at an address that 16 divides, which
 * the host has made sure of (eqi_cuda_packs). */
#ifndef EQI_CUDA_WIDE_CUH
#define EQI_CUDA_WIDE_CUH

#include "load.cuh"

/* Elements in 16 bytes of F32 or BF16. */
template <eqi_dtype dtype> constexpr int WIDE = dtype == EQI_F32 ? 4 : 8;

/* x[n] = elements first to first + n, n and first multiples of 4 */
template <int n>
__device__ __forceinline__ void get_wide(float *x, const float *from, int64_t first)
{
    EQI_UNROLL
    for (int i = 0; i < n; i += 4) {
        float4 v = *reinterpret_cast<const float4 *>(from + first + i);
        x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
}

__device__ __forceinline__ void put_wide(float *to, int64_t first, const float *x)
{
    *reinterpret_cast<float4 *>(to + first) = make_float4(x[0], x[1], x[2], x[3]);
}

__device__ __forceinline__ unsigned two_bf16(float low, float high)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(low)) |
        static_cast<unsigned>(__bfloat16_as_ushort(__float2bfloat16_rn(high))) << 16;
}

__device__ __forceinline__ void put_wide(__nv_bfloat16 *to, int64_t first, const float *x)
{
    *reinterpret_cast<uint4 *>(to + first) = make_uint4(two_bf16(x[0], x[1]), two_bf16(x[2], x[3]),
                                                        two_bf16(x[4], x[5]), two_bf16(x[6], x[7]));
}

/* The type of elements. */
template <eqi_dtype dtype> struct element {
    using type = float;
};
template <> struct element<EQI_BF16> {
    using type = __nv_bfloat16;
};

#endif
