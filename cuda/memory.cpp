/* Memory of the device. */
#include <unistd.h>

#include "backend.h"

static cudaError_t try_alloc(eqi_ctx *ctx, eqi_cuda *cuda, void **out, size_t size)
{
    cudaError_t error = cudaMallocAsync(out, size, cuda->stream);
    if (error != cudaErrorMemoryAllocation) return error;
    (void)cudaGetLastError();
    (void)eqi_seat_of(ctx)->services->reclaim(ctx);
    /* What was freed comes back to the pool when the stream gets there. */
    error = cudaStreamSynchronize(cuda->stream);
    if (error == cudaSuccess) error = cudaMemPoolTrimTo(cuda->pool, 0);
    if (error == cudaSuccess) error = cudaMallocAsync(out, size, cuda->stream);
    return error;
}

static bool fits(const eqi_cuda *cuda, size_t size)
{
    return !cuda->limit || (size <= cuda->limit && cuda->used <= cuda->limit - size);
}

static eqat_status keep_limit(eqi_ctx *ctx, const eqi_cuda *cuda, size_t size, const char *what)
{
    const eqi_services *services = eqi_seat_of(ctx)->services;
    if (fits(cuda, size) || (services->reclaim(ctx) && fits(cuda, size))) return EQAT_OK;
    return services->fail(
        ctx, EQAT_OUT_OF_MEMORY,
        "out of memory on %s: %zu bytes for %s; %zu are in use here, device_memory is %llu",
        cuda->name, size, what, cuda->used, static_cast<unsigned long long>(cuda->limit));
}

eqat_status eqi_cuda_take(eqi_ctx *ctx, void **out, size_t size, const char *what)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    *out = nullptr;
    EQI_CUDA_TRY(eqi_cuda_ready(ctx));
    EQI_CUDA_TRY(keep_limit(ctx, cuda, size, what));
    cudaError_t error = try_alloc(ctx, cuda, out, size ? size : 1);
    if (error == cudaErrorMemoryAllocation) {
        size_t free = 0, total = 0;
        (void)cudaGetLastError();
        (void)cudaMemGetInfo(&free, &total);
        return eqi_seat_of(ctx)->services->fail(
            ctx, EQAT_OUT_OF_MEMORY,
            "out of memory on %s: %zu bytes for %s; %zu are in use here, %zu of %zu are free",
            cuda->name, size, what, cuda->used, free, total);
    }
    EQI_CUDA_TRY(eqi_cuda_check(ctx, "cudaMallocAsync", error));
    cuda->used += size;
    if (cuda->used > cuda->peak) cuda->peak = cuda->used;
    return EQAT_OK;
}

void eqi_cuda_give(eqi_ctx *ctx, void *data, size_t size)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    if (!data) return;
    cuda->used -= size;
    (void)cudaSetDevice(cuda->device);
    if (cudaFreeAsync(data, cuda->stream) != cudaSuccess) (void)cudaGetLastError();
}

void *eqi_cuda_alloc(eqi_ctx *ctx, size_t size)
{
    void *data = nullptr;
    return eqi_cuda_take(ctx, &data, size, "a tensor") == EQAT_OK ? data : nullptr;
}

void eqi_cuda_free(eqi_ctx *ctx, void *data, size_t size)
{
    /* A forked child only forgets. */
    if (eqi_cuda_ready(ctx) == EQAT_OK || eqi_cuda_of(ctx)->lost[0]) eqi_cuda_give(ctx, data, size);
}

eqat_status eqi_cuda_scratch(eqi_ctx *ctx, eqi_cuda_slot slot, size_t size, void **out)
{
    auto &scratch = eqi_cuda_of(ctx)->scratch[slot];
    if (size > scratch.size || !scratch.data) {
        eqi_cuda_give(ctx, scratch.data, scratch.size);
        scratch.data = nullptr;
        scratch.size = 0;
        EQI_CUDA_TRY(eqi_cuda_take(ctx, &scratch.data, size, "scratch memory of the kernels"));
        scratch.size = size;
    }
    *out = scratch.data;
    return EQAT_OK;
}

eqat_status eqi_cuda_download(eqi_ctx *ctx, void *dst, const void *src, size_t n)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    EQI_CUDA_TRY(eqi_cuda_ready(ctx));
    if (n)
        EQI_CUDA_TRY(
            eqi_cuda_check(ctx, "cudaMemcpyAsync",
                           cudaMemcpyAsync(dst, src, n, cudaMemcpyDeviceToHost, cuda->stream)));
    return eqi_cuda_wait(ctx);
}

eqat_status eqi_cuda_synchronize(eqi_ctx *ctx)
{
    EQI_CUDA_TRY(eqi_cuda_ready(ctx));
    return eqi_cuda_wait(ctx);
}

eqat_status eqi_cuda_memory(eqi_ctx *ctx, eqi_memory *out)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    *out = eqi_memory{};
    out->used = cuda->used;
    out->peak = cuda->peak;
    /* A lost device and a forked child have nothing to ask. */
    if (cuda->lost[0] || cuda->pid != getpid()) return EQAT_OK;
    EQI_CUDA_TRY(eqi_cuda_ready(ctx));
    EQI_CUDA_TRY(eqi_cuda_check(ctx, "cudaMemGetInfo", cudaMemGetInfo(&out->free, &out->total)));
    if (!cuda->limit) return EQAT_OK;
    size_t left = cuda->limit > cuda->used ? cuda->limit - cuda->used : 0;
    if (left < out->free) out->free = left;
    if (cuda->limit < out->total) out->total = cuda->limit;
    return EQAT_OK;
}

void eqi_cuda_reset_peak(eqi_ctx *ctx)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    cuda->peak = cuda->used;
}

bool eqi_cuda_reaches(eqi_ctx *ctx, const void *p)
{
    cudaPointerAttributes a;
    if (!p || eqi_cuda_ready(ctx) != EQAT_OK) return false;
    if (cudaPointerGetAttributes(&a, p) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    return a.type == cudaMemoryTypeManaged ||
        (a.type == cudaMemoryTypeDevice && a.device == eqi_cuda_of(ctx)->device);
}
