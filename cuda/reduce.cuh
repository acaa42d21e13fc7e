/* Sums and maxima in a fixed order: a warp by butterflies, a block by its warps, several blocks by
 * a second kernel over their results. All threads of the block take part, and all get the result.
 */
#ifndef EQI_CUDA_REDUCE_CUH
#define EQI_CUDA_REDUCE_CUH

#include "shared.cuh"

constexpr int EQI_WARP = 32;
constexpr unsigned EQI_FULL = 0xffffffffu;

__device__ __forceinline__ float larger(float a, float b) { return a > b || a != a ? a : b; }

template <class T> __device__ __forceinline__ T warp_sum(T v)
{
    for (int m = EQI_WARP / 2; m; m >>= 1) v += __shfl_xor_sync(EQI_FULL, v, m);
    return v;
}

__device__ __forceinline__ float warp_max(float v)
{
    for (int m = EQI_WARP / 2; m; m >>= 1) v = larger(v, __shfl_xor_sync(EQI_FULL, v, m));
    return v;
}

template <class T> __device__ __forceinline__ T warp_min(T v)
{
    for (int m = EQI_WARP / 2; m; m >>= 1) {
        T other = __shfl_xor_sync(EQI_FULL, v, m);
        v = other < v ? other : v;
    }
    return v;
}

/* `part` has room for one value of each warp (blockDim.x, a multiple of 32, at most 1024). */
template <class T> __device__ __forceinline__ T block_sum(T v, T *part)
{
    v = warp_sum(v);
    __syncthreads(); /* the last use of part may not be over */
    if (threadIdx.x % EQI_WARP == 0) part[threadIdx.x / EQI_WARP] = v;
    __syncthreads();
    T total = part[0];
    for (unsigned i = 1; i < blockDim.x / EQI_WARP; i++) total += part[i];
    return total;
}

/* NaN when any is. */
__device__ __forceinline__ float block_max(float v, float *part)
{
    v = warp_max(v);
    __syncthreads();
    if (threadIdx.x % EQI_WARP == 0) part[threadIdx.x / EQI_WARP] = v;
    __syncthreads();
    float most = part[0];
    for (unsigned i = 1; i < blockDim.x / EQI_WARP; i++) most = larger(most, part[i]);
    return most;
}

#endif
