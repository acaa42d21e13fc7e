/* Shared memory: one struct for each kernel, its size given at the launch. */
#ifndef EQI_CUDA_SHARED_CUH
#define EQI_CUDA_SHARED_CUH

#include <cuda_runtime.h>

#ifdef __CUDACC__
template <class T> __device__ __forceinline__ T *block_memory()
{
    extern __shared__ __align__(16) unsigned char eqi_block_memory[];
    return reinterpret_cast<T *>(eqi_block_memory);
}
#else
template <class T> inline T *block_memory() { return static_cast<T *>(hostcuda::dynamic_shared()); }
#endif

#endif
