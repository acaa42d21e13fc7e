/* Elements of views in kernels: read as f32, computed in f32, rounded once on storing. A view is
 * passed to a kernel by value; launching gives it four dimensions, the first ones of size 1 where
 * it had fewer. An absent one has no data. */
#ifndef EQI_CUDA_LOAD_CUH
#define EQI_CUDA_LOAD_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "backend.h"

/* In front of a loop over an array that is to lie in registers: its index must be known when
 * compiling. */
#ifdef __CUDACC__
#define EQI_UNROLL _Pragma("unroll")
#define EQI_ROLLED _Pragma("unroll 1")
#else
#define EQI_UNROLL
#define EQI_ROLLED
#endif

/* The view behind a pointer that may be NULL. */
inline eqi_view eqi_or_none(const eqi_view *v) { return v ? *v : eqi_view{}; }

/* Thread and stride of a loop over the grid. */
__device__ __forceinline__ int64_t grid_first()
{
    return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int64_t grid_step()
{
    return static_cast<int64_t>(gridDim.x) * blockDim.x;
}

/* The value at an offset counted in elements; whole numbers up to 2^24 are exact. */
__device__ __forceinline__ float get(const eqi_view &v, int64_t at)
{
    switch (v.dtype) {
    case EQI_BF16: return __bfloat162float(static_cast<const __nv_bfloat16 *>(v.data)[at]);
    case EQI_F16: return __half2float(static_cast<const __half *>(v.data)[at]);
    case EQI_I32: return static_cast<float>(static_cast<const int *>(v.data)[at]);
    case EQI_U8: return static_cast<float>(static_cast<const unsigned char *>(v.data)[at]);
    default: return static_cast<const float *>(v.data)[at];
    }
}

__device__ __forceinline__ int get_int(const eqi_view &v, int64_t at)
{
    return static_cast<const int *>(v.data)[at];
}

/* Clamps; a NaN stays NaN. */
__device__ __forceinline__ float clamp(float x, float lo, float hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

/* To whole numbers: half to even, saturated, NaN to 0. */
__device__ __forceinline__ void put(const eqi_view &v, int64_t at, float x)
{
    switch (v.dtype) {
    case EQI_BF16: static_cast<__nv_bfloat16 *>(v.data)[at] = __float2bfloat16_rn(x); break;
    case EQI_F16: static_cast<__half *>(v.data)[at] = __float2half_rn(x); break;
    case EQI_I32: {
        float r = rintf(x);
        static_cast<int *>(v.data)[at] = r != r ? 0
            : r >= 2147483648.0f                ? 2147483647
            : r <= -2147483648.0f               ? -2147483647 - 1
                                                : static_cast<int>(r);
        break;
    }
    case EQI_U8:
        static_cast<unsigned char *>(v.data)[at] =
            static_cast<unsigned char>(x != x ? 0.0f : clamp(rintf(x), 0.0f, 255.0f));
        break;
    default: static_cast<float *>(v.data)[at] = x;
    }
}

__device__ __forceinline__ void add(const eqi_view &v, int64_t at, float x, bool acc)
{
    put(v, at, acc ? get(v, at) + x : x);
}

/* What x becomes when a tensor of this float type holds it. */
__device__ __forceinline__ float as(eqi_dtype dtype, float x)
{
    switch (dtype) {
    case EQI_BF16: return __bfloat162float(__float2bfloat16_rn(x));
    case EQI_F16: return __half2float(__float2half_rn(x));
    default: return x;
    }
}

/* Size of the last dimension, and product of the others. */
__device__ __forceinline__ int64_t width(const eqi_view &v) { return v.shape[3]; }
__device__ __forceinline__ int64_t rows(const eqi_view &v)
{
    return v.shape[0] * v.shape[1] * v.shape[2];
}
__device__ __forceinline__ int64_t count(const eqi_view &v) { return rows(v) * width(v); }

/* Offset in a view of four dimensions. */
__device__ __forceinline__ int64_t at4(const eqi_view &v, int64_t a, int64_t b, int64_t c,
                                       int64_t d)
{
    return a * v.stride[0] + b * v.stride[1] + c * v.stride[2] + d * v.stride[3];
}

/* Offset of element j of row r, rows being counted over all dimensions but the last. */
__device__ __forceinline__ int64_t at(const eqi_view &v, int64_t r, int64_t j)
{
    int64_t of_two = r / v.shape[2];
    return at4(v, of_two / v.shape[1], of_two % v.shape[1], r % v.shape[2], j);
}

/* The same in a view with rows: two dimensions, so that nothing is divided. */
__device__ __forceinline__ int64_t at2(const eqi_view &v, int64_t r, int64_t j)
{
    return r * v.stride[2] + j * v.stride[3];
}

/* Offset of element i in row-major order. */
__device__ __forceinline__ int64_t elem(const eqi_view &v, int64_t i)
{
    return at(v, i / width(v), i % width(v));
}

/* Is id in [0, limit)? Else the first to say so is reported, and the caller leaves it out. */
__device__ __forceinline__ bool in_range(eqi_trouble *trouble, int where, int64_t id, int64_t limit)
{
    if (id >= 0 && id < limit) return true;
    if (atomicCAS(&trouble->claimed, 0, 1) == 0) {
        trouble->where = where;
        trouble->value = id;
        trouble->limit = limit;
    }
    return false;
}

#endif
