/* Allocation and free, in the order of a stream or at once. */
#include "fault.h"
#include "memory.h"
#include "result.h"
#include "settings.h"

#include <string.h>

namespace hostcuda
{

static size_t rounded(size_t size) { return (size + 255) / 256 * 256; }

/* The buffer that begins there and may be freed. */
static buffer *owned(const void *at, memory_kind kind)
{
    buffer *b = find(at);
    bool begins = b && b->begin == (uintptr_t)at && b->kind == kind;
    return begins && !b->free_queued ? b : nullptr;
}

static buffer *allocate(size_t size, int device)
{
    if (allocation_fails()) return nullptr;
    if (rounded(size) > asked().memory - memory_used(device)) return nullptr;
    buffer *b = memory_alloc(DEVICE, size, device);
    if (b) memory_count(device, (long long)rounded(size));
    return b;
}

static void count_free(buffer *b)
{
    b->free_queued = true;
    if (b->kind == DEVICE) memory_count(b->device, -(long long)rounded(b->end - b->begin));
}

/* Everything that used the buffer must be ordered before its free. */
static void run_free(buffer *b)
{
    if (!covers(running_clock(), b->alloc_slot, b->alloc_number))
        fault("frees device memory without order after its allocation");
    if (!covers(running_clock(), b->used))
        fault("frees device memory without order after its last use (use after free)");
    memory_free(b);
}

} // namespace hostcuda

using namespace hostcuda;

cudaError_t cudaMalloc(void **at, size_t size)
{
    HOSTCUDA_ENTER;
    if (!at) return result(cudaErrorInvalidValue);
    *at = nullptr;
    if (!size) return result(cudaSuccess);
    buffer *b = allocate(size, current_device());
    if (!b) return result(cudaErrorMemoryAllocation);
    *at = (void *)b->begin;
    return result(cudaSuccess);
}

cudaError_t cudaMallocAsync(void **at, size_t size, cudaStream_t in)
{
    HOSTCUDA_ENTER;
    stream *s = stream_of(in);
    if (!at) return result(cudaErrorInvalidValue);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    *at = nullptr;
    if (!size) return result(cudaSuccess);
    buffer *b = allocate(size, device_of(s));
    if (!b) return result(cudaErrorMemoryAllocation);
    enqueue(s, "cudaMallocAsync", [] {});
    b->alloc_slot = slot_of(s);
    b->alloc_number = number_of(s);
    *at = (void *)b->begin;
    return result(cudaSuccess);
}

cudaError_t cudaFree(void *at)
{
    HOSTCUDA_ENTER_ANYWAY;
    if (!at) return result(unusable());
    buffer *b = owned(at, DEVICE);
    if (!b) return result(cudaErrorInvalidValue);
    wait_for_all("cudaFree");
    count_free(b);
    memory_free(b);
    return result(cudaSuccess);
}

cudaError_t cudaFreeAsync(void *at, cudaStream_t in)
{
    HOSTCUDA_ENTER_ANYWAY;
    stream *s = stream_of(in);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    if (!at) return result(cudaSuccess);
    buffer *b = owned(at, DEVICE);
    if (!b) return result(cudaErrorInvalidValue);
    count_free(b);
    enqueue(s, "cudaFreeAsync", [b] { run_free(b); });
    return result(cudaSuccess);
}

cudaError_t cudaHostAlloc(void **at, size_t size, unsigned)
{
    HOSTCUDA_ENTER;
    if (!at) return result(cudaErrorInvalidValue);
    *at = nullptr;
    if (!size) return result(cudaSuccess);
    would_wait_for_all("cudaHostAlloc");
    buffer *b = pinning_fails() ? nullptr : memory_alloc(PINNED, size, current_device());
    if (!b) return result(cudaErrorMemoryAllocation);
    *at = (void *)b->begin;
    return result(cudaSuccess);
}

cudaError_t cudaFreeHost(void *at)
{
    HOSTCUDA_ENTER_ANYWAY;
    if (!at) return result(cudaSuccess);
    buffer *b = owned(at, PINNED);
    if (!b) return result(cudaErrorInvalidValue);
    wait_for_all("cudaFreeHost");
    count_free(b);
    memory_free(b);
    return result(cudaSuccess);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *out, const void *at)
{
    HOSTCUDA_ENTER;
    if (!out) return result(cudaErrorInvalidValue);
    buffer *b = find(at);
    bool inside = b && !b->free_queued && (uintptr_t)at < b->end;
    *out = {cudaMemoryTypeUnregistered, -2, nullptr, (void *)at};
    if (!inside) return result(cudaSuccess);
    out->device = b->device;
    out->devicePointer = (void *)at;
    out->type = b->kind == DEVICE ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
    if (b->kind == DEVICE) out->hostPointer = nullptr;
    return result(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    HOSTCUDA_ENTER;
    if (!free || !total) return result(cudaErrorInvalidValue);
    *total = asked().memory;
    *free = *total - memory_used(current_device());
    return result(cudaSuccess);
}

/* ---- pools keep nothing: what was freed is free for all ---- */
namespace hostcuda
{
struct pool {
    uint64_t threshold;
};
static pool pools[64];
} // namespace hostcuda

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *out, int device)
{
    HOSTCUDA_ENTER;
    if (!out) return result(cudaErrorInvalidValue);
    if (device < 0 || device >= asked().devices || device >= 64)
        return result(cudaErrorInvalidDevice);
    *out = &pools[device];
    return result(cudaSuccess);
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void *value)
{
    HOSTCUDA_ENTER;
    if (!pool || !value || attribute != cudaMemPoolAttrReleaseThreshold)
        return result(cudaErrorInvalidValue);
    memcpy(&pool->threshold, value, sizeof pool->threshold);
    return result(cudaSuccess);
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t)
{
    HOSTCUDA_ENTER;
    return result(pool ? cudaSuccess : cudaErrorInvalidValue);
}
