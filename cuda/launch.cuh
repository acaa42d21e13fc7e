/* The one way to launch a kernel. */
#ifndef EQI_CUDA_LAUNCH_CUH
#define EQI_CUDA_LAUNCH_CUH

#include "backend.h"

/* Threads of a block, for kernels that do not say otherwise. */
constexpr int EQI_BLOCK = 256;
/* What every device gives a block without being asked. */
constexpr size_t EQI_SHARED_PLAIN = 48 * 1024;

/* Blocks for n items of which a block takes `per`; kernels stride over the grid. */
inline unsigned eqi_grid(int64_t n, int64_t per)
{
    int64_t blocks = (n + per - 1) / per;
    return static_cast<unsigned>(blocks < 65535 ? blocks : 65535);
}

/* Threads of a block that works on one row of n elements: warps, no more than there is work for. */
inline unsigned eqi_row_block(int64_t n)
{
    unsigned threads = 32;
    while (threads < static_cast<unsigned>(EQI_BLOCK) && threads < n) threads *= 2;
    return threads;
}

/* What a kernel gets for an argument: views have four dimensions there, so that no kernel asks how
 * many (an index that is not known when compiling would put them into slow memory). */
template <class T> inline T eqi_pass(const T &argument) { return argument; }
template <> inline eqi_view eqi_pass(const eqi_view &v)
{
    eqi_view wide = {v.data, v.dtype, EQI_MAX_DIMS, {1, 1, 1, 1}, {0, 0, 0, 0}};
    for (int d = 0; d < v.ndim; d++) {
        wide.shape[EQI_MAX_DIMS - v.ndim + d] = v.shape[d];
        wide.stride[EQI_MAX_DIMS - v.ndim + d] = v.stride[d];
    }
    return wide;
}

/* Asks for the kernel on the context's stream. Nothing to do for an empty grid. */
template <class... P, class... A>
eqat_status eqi_launch(eqi_ctx *ctx, const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
                       size_t shared, A... args)
{
    EQI_CUDA_TRY(eqi_cuda_ready(ctx));
    if (!grid.x || !grid.y || !grid.z) return EQAT_OK;
    if (shared > EQI_SHARED_PLAIN)
        EQI_CUDA_TRY(
            eqi_cuda_check(ctx, name,
                           cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                                cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                static_cast<int>(shared))));
#ifndef __CUDACC__
    hostcuda::name_next_launch(name);
#endif
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = eqi_cuda_of(ctx)->stream;
    return eqi_cuda_check(
        ctx, name, cudaLaunchKernelEx(&config, kernel, eqi_pass<P>(static_cast<P>(args))...));
}

#endif
