/* The host's side: streams, events, memory, launches. Numbers are those of the documentation. Work
 * runs late: when somebody waits for it, and then in an order that the seed draws.
 */
#ifndef HOSTCUDA_HOST_H
#define HOSTCUDA_HOST_H

#include "hostcuda/types.h"

#include <stddef.h>
#include <stdint.h>
#include <tuple>
#include <type_traits>
#include <utility>

enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidPitchValue = 12,
    cudaErrorInvalidMemcpyDirection = 21,
    cudaErrorInsufficientDriver = 35,
    cudaErrorDevicesUnavailable = 46,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorECCUncorrectable = 214,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchOutOfResources = 701,
    cudaErrorLaunchTimeout = 702,
    cudaErrorAssert = 710,
    cudaErrorMisalignedAddress = 716,
    cudaErrorLaunchFailure = 719,
    cudaErrorNotSupported = 801,
    cudaErrorSystemDriverMismatch = 803,
    cudaErrorUnknown = 999
};
typedef enum cudaError cudaError_t;

namespace hostcuda
{
struct stream;
struct event;
struct pool;
} // namespace hostcuda
typedef hostcuda::stream *cudaStream_t;
typedef hostcuda::event *cudaEvent_t;
typedef hostcuda::pool *cudaMemPool_t;

enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };
enum { cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
enum { cudaEventWaitDefault = 0 };
enum {
    cudaHostAllocDefault = 0,
    cudaHostAllocPortable = 1,
    cudaHostAllocMapped = 2,
    cudaHostAllocWriteCombined = 4
};

enum cudaMemcpyKind {
    cudaMemcpyHostToHost = 0,
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3,
    cudaMemcpyDefault = 4
};

enum cudaMemoryType {
    cudaMemoryTypeUnregistered = 0,
    cudaMemoryTypeHost = 1,
    cudaMemoryTypeDevice = 2,
    cudaMemoryTypeManaged = 3
};
struct cudaPointerAttributes {
    enum cudaMemoryType type;
    int device;
    void *devicePointer, *hostPointer;
};

enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrWarpSize = 10,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
    cudaDevAttrMemoryPoolsSupported = 115
};
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    size_t sharedMemPerBlock;
    size_t sharedMemPerBlockOptin;
    int warpSize;
    int maxThreadsPerBlock;
    int major, minor;
    int multiProcessorCount;
};

enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9
};

struct cudaLaunchAttribute; /* none is supported */
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};

#define HOSTCUDA_API HOSTCUDA_HIDDEN

/* ---- devices ---- */
HOSTCUDA_API cudaError_t cudaGetDeviceCount(int *count);
HOSTCUDA_API cudaError_t cudaSetDevice(int device);
HOSTCUDA_API cudaError_t cudaGetDevice(int *device);
HOSTCUDA_API cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device);
HOSTCUDA_API cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
HOSTCUDA_API cudaError_t cudaDriverGetVersion(int *version);
HOSTCUDA_API cudaError_t cudaRuntimeGetVersion(int *version);
HOSTCUDA_API cudaError_t cudaDeviceSynchronize();

/* ---- errors ---- */
HOSTCUDA_API cudaError_t cudaGetLastError();
HOSTCUDA_API cudaError_t cudaPeekAtLastError();
HOSTCUDA_API const char *cudaGetErrorString(cudaError_t error);
HOSTCUDA_API const char *cudaGetErrorName(cudaError_t error);

/* ---- streams and events ---- */
HOSTCUDA_API cudaError_t cudaStreamCreate(cudaStream_t *stream);
HOSTCUDA_API cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
HOSTCUDA_API cudaError_t cudaStreamDestroy(cudaStream_t stream);
HOSTCUDA_API cudaError_t cudaStreamSynchronize(cudaStream_t stream);
/* Runs a little of what is queued, now and then: who polls gets there. */
HOSTCUDA_API cudaError_t cudaStreamQuery(cudaStream_t stream);
HOSTCUDA_API cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event,
                                             unsigned flags = 0);
HOSTCUDA_API cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
HOSTCUDA_API cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = nullptr);
HOSTCUDA_API cudaError_t cudaEventSynchronize(cudaEvent_t event);
HOSTCUDA_API cudaError_t cudaEventQuery(cudaEvent_t event);
HOSTCUDA_API cudaError_t cudaEventDestroy(cudaEvent_t event);

/* ---- memory ---- */
HOSTCUDA_API cudaError_t cudaMalloc(void **at, size_t size);
HOSTCUDA_API cudaError_t cudaFree(void *at);
HOSTCUDA_API cudaError_t cudaMallocAsync(void **at, size_t size, cudaStream_t stream);
HOSTCUDA_API cudaError_t cudaFreeAsync(void *at, cudaStream_t stream);
HOSTCUDA_API cudaError_t cudaHostAlloc(void **at, size_t size, unsigned flags);
HOSTCUDA_API cudaError_t cudaFreeHost(void *at);
HOSTCUDA_API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *out, const void *at);
HOSTCUDA_API cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
HOSTCUDA_API cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device);
HOSTCUDA_API cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute,
                                                 void *value);
HOSTCUDA_API cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t keep);

/* Pinned memory is read and written when the copy runs; pageable sources are staged at the call,
 * pageable destinations make the call wait. */
HOSTCUDA_API cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size,
                                         cudaMemcpyKind kind, cudaStream_t stream = nullptr);
HOSTCUDA_API cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from,
                                           size_t from_pitch, size_t width, size_t height,
                                           cudaMemcpyKind kind, cudaStream_t stream = nullptr);
HOSTCUDA_API cudaError_t cudaMemsetAsync(void *at, int value, size_t size,
                                         cudaStream_t stream = nullptr);

template <class T> inline cudaError_t cudaMalloc(T **at, size_t size)
{
    return cudaMalloc((void **)at, size);
}
template <class T> inline cudaError_t cudaMallocAsync(T **at, size_t size, cudaStream_t stream)
{
    return cudaMallocAsync((void **)at, size, stream);
}
template <class T> inline cudaError_t cudaHostAlloc(T **at, size_t size, unsigned flags)
{
    return cudaHostAlloc((void **)at, size, flags);
}

/* ---- launches ---- */
namespace hostcuda
{

/* The name that messages give to the next launch of this thread. */
HOSTCUDA_API void name_next_launch(const char *name);

/* A call of a kernel with its parameters in one block of memory. */
typedef void (*invoke)(const void *kernel, const void *params);

/* Copies the parameters and queues the launch. `documented` is their size as CUDA lays them out. */
HOSTCUDA_API cudaError_t launch(const cudaLaunchConfig_t *config, const void *kernel, invoke call,
                                const void *params, size_t size, size_t documented);

template <class... P> void invoke_kernel(const void *kernel, const void *params)
{
    std::apply((void (*)(P...))kernel, *(const std::tuple<P...> *)params);
}

template <class... P> constexpr size_t parameter_bytes()
{
    size_t n = 0;
    ((n = (n + alignof(P) - 1) / alignof(P) * alignof(P) + sizeof(P)), ...);
    return n;
}

} // namespace hostcuda

template <class... P, class... A>
inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(P...),
                                      A &&...a)
{
    static_assert((std::is_trivially_copyable_v<P> && ...), "parameters are copied as bytes");
    std::tuple<P...> params(static_cast<P>(std::forward<A>(a))...);
    return hostcuda::launch(config, (const void *)kernel, hostcuda::invoke_kernel<P...>, &params,
                            sizeof params, hostcuda::parameter_bytes<P...>());
}

HOSTCUDA_API cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute,
                                              int value);
template <class... P>
inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute,
                                        int value)
{
    return cudaFuncSetAttribute((const void *)kernel, attribute, value);
}

#endif
