/* Opening and closing a device, and what has failed on it. */
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

#include "backend.h"

/* The oldest generation that this library has code for. */
#define OLDEST_MAJOR 7
#define OLDEST_MINOR 5

static eqat_status fail(eqi_ctx *ctx, eqat_status status, const char *what, const char *found,
                        const char *expected)
{
    return eqi_seat_of(ctx)->services->fail(ctx, status, "%s: found %s, expected %s", what, found,
                                            expected);
}

/* "cuda" is "cuda:0". */
static eqat_status parse(eqi_ctx *ctx, const char *device, int *out)
{
    const char *colon = std::strchr(device, ':');
    *out = 0;
    if (!colon) return EQAT_OK;
    char *end;
    long n = std::strtol(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end || n > 1024)
        return eqi_seat_of(ctx)->services->fail(
            ctx, EQAT_INVALID_ARGUMENT, "device: found \"%s\", expected cuda:N, N from 0", device);
    *out = static_cast<int>(n);
    return EQAT_OK;
}

static void version_text(char *text, size_t size, int version)
{
    std::snprintf(text, size, "%d.%d", version / 1000, version % 1000 / 10);
}

static eqat_status check_driver(eqi_ctx *ctx, const char *device)
{
    int driver = 0, runtime = 0;
    char found[64], expected[64], a[16], b[16];
    if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
    if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = 0;
    if (!driver) return fail(ctx, EQAT_UNSUPPORTED, device, "no NVIDIA driver", "one that runs");
    if (driver / 1000 >= runtime / 1000) return EQAT_OK;
    version_text(a, sizeof a, driver);
    version_text(b, sizeof b, runtime);
    std::snprintf(found, sizeof found, "a driver for CUDA %s", a);
    std::snprintf(expected, sizeof expected, "one for CUDA %s or later", b);
    return fail(ctx, EQAT_UNSUPPORTED, device, found, expected);
}

static eqat_status check_device(eqi_ctx *ctx, const char *device, int number, cudaDeviceProp *prop)
{
    int count = 0;
    char found[128], expected[64];
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || number >= count) {
        if (error != cudaSuccess && error != cudaErrorNoDevice)
            std::snprintf(found, sizeof found, "no device (%s)", cudaGetErrorString(error));
        else
            std::snprintf(found, sizeof found, "%d CUDA device%s", count, count == 1 ? "" : "s");
        (void)cudaGetLastError();
        std::snprintf(expected, sizeof expected, "at least %d", number + 1);
        return fail(ctx, EQAT_UNSUPPORTED, device, found, expected);
    }
    EQI_CUDA_TRY(
        eqi_cuda_check(ctx, "cudaGetDeviceProperties", cudaGetDeviceProperties(prop, number)));
    if (prop->major > OLDEST_MAJOR || (prop->major == OLDEST_MAJOR && prop->minor >= OLDEST_MINOR))
        return EQAT_OK;
    std::snprintf(found, sizeof found, "%.60s of compute capability %d.%d", prop->name, prop->major,
                  prop->minor);
    std::snprintf(expected, sizeof expected, "%d.%d or later", OLDEST_MAJOR, OLDEST_MINOR);
    return fail(ctx, EQAT_UNSUPPORTED, device, found, expected);
}

static eqat_status open_stream(eqi_ctx *ctx, eqi_cuda *cuda)
{
    cuda->stream = static_cast<cudaStream_t>(eqi_seat_of(ctx)->stream);
    if (!cuda->stream) {
        EQI_CUDA_TRY(
            eqi_cuda_check(ctx, "cudaStreamCreateWithFlags",
                           cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking)));
        cuda->own_stream = true;
    }
    EQI_CUDA_TRY(eqi_cuda_check(ctx, "cudaDeviceGetDefaultMemPool",
                                cudaDeviceGetDefaultMemPool(&cuda->pool, cuda->device)));
    void *pinned = nullptr, *trouble = nullptr;
    EQI_CUDA_TRY(eqi_cuda_check(ctx, "cudaHostAlloc",
                                eqi_cuda_pinned_take(ctx, &pinned, sizeof(eqi_trouble))));
    cuda->reported = static_cast<eqi_trouble *>(pinned);
    EQI_CUDA_TRY(eqi_cuda_take(ctx, &trouble, sizeof(eqi_trouble), "the report of kernels"));
    cuda->trouble = static_cast<eqi_trouble *>(trouble);
    return eqi_cuda_check(ctx, "cudaMemsetAsync",
                          cudaMemsetAsync(trouble, 0, sizeof(eqi_trouble), cuda->stream));
}

eqat_status eqi_cuda_open(eqi_ctx *ctx, const char *device)
{
    const eqi_services *services = eqi_seat_of(ctx)->services;
    int number = 0;
    cudaDeviceProp prop;
    EQI_CUDA_TRY(parse(ctx, device, &number));
    EQI_CUDA_TRY(check_driver(ctx, device));
    EQI_CUDA_TRY(check_device(ctx, device, number, &prop));
    void *raw = services->alloc(ctx, sizeof(eqi_cuda), "the CUDA backend");
    if (!raw) return EQAT_OUT_OF_MEMORY;
    eqi_cuda *cuda = static_cast<eqi_cuda *>(std::memset(raw, 0, sizeof(eqi_cuda)));
    cuda->device = number;
    cuda->processors = prop.multiProcessorCount;
    cuda->capability = prop.major * 10 + prop.minor;
    cuda->pid = getpid();
    cuda->limit = eqi_seat_of(ctx)->device_memory;
    std::snprintf(cuda->name, sizeof cuda->name, "cuda:%d", number);
    eqi_seat_of(ctx)->state = cuda;
    eqat_status st = eqi_cuda_check(ctx, "cudaSetDevice", cudaSetDevice(number));
    if (st == EQAT_OK) st = open_stream(ctx, cuda);
    if (st == EQAT_OK) st = eqi_cuda_blas_open(ctx);
    if (st != EQAT_OK) {
        eqi_cuda_close(ctx);
        return st;
    }
    services->log(ctx, 2, "device %s: %s, compute capability %d.%d, %.1f GiB", cuda->name,
                  prop.name, prop.major, prop.minor,
                  static_cast<double>(prop.totalGlobalMem) / (1 << 30));
    return EQAT_OK;
}

void eqi_cuda_close(eqi_ctx *ctx)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    if (!cuda) return;
    /* A forked child only forgets: the driver's state is its parent's. */
    if (cuda->pid == getpid()) {
        (void)cudaSetDevice(cuda->device);
        eqi_cuda_blas_close(ctx);
        for (int i = 0; i < EQI_CUDA_SLOTS; i++)
            eqi_cuda_give(ctx, cuda->scratch[i].data, cuda->scratch[i].size);
        eqi_cuda_give(ctx, cuda->trouble, sizeof(eqi_trouble));
        if (cuda->stream) {
            (void)cudaStreamSynchronize(cuda->stream);
            eqi_cuda_pinned_close(ctx);
            if (cuda->own_stream) (void)cudaStreamDestroy(cuda->stream);
        }
        eqi_cuda_pinned_give(ctx, cuda->reported, sizeof(eqi_trouble));
        (void)cudaGetLastError();
    }
    eqi_seat_of(ctx)->services->free(ctx, cuda);
    eqi_seat_of(ctx)->state = nullptr;
}

eqat_status eqi_cuda_ready(eqi_ctx *ctx)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    const eqi_services *services = eqi_seat_of(ctx)->services;
    if (cuda->lost[0]) return services->fail(ctx, EQAT_BACKEND, "%s", cuda->lost);
    if (cuda->pid != getpid())
        return services->fail(ctx, EQAT_BACKEND,
                              "%s: found a forked process, expected the one that made the context",
                              cuda->name);
    return eqi_cuda_check(ctx, "cudaSetDevice", cudaSetDevice(cuda->device));
}

/* After these the device computes nothing more for this process. */
static bool is_fault(cudaError_t error)
{
    switch (error) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorLaunchTimeout:
    case cudaErrorECCUncorrectable:
    case cudaErrorAssert: return true;
    default: return false;
    }
}

eqat_status eqi_cuda_check(eqi_ctx *ctx, const char *what, cudaError_t error)
{
    if (error == cudaSuccess) return EQAT_OK;
    (void)cudaGetLastError();
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    char line[256];
    std::snprintf(line, sizeof line, "%s: %s: %s (%s)", cuda ? cuda->name : "cuda", what,
                  cudaGetErrorString(error), cudaGetErrorName(error));
    if (cuda && is_fault(error)) std::memcpy(cuda->lost, line, sizeof line);
    return eqi_seat_of(ctx)->services->fail(ctx, EQAT_BACKEND, "%s", line);
}

static eqat_status complain(eqi_ctx *ctx, const eqi_trouble *t)
{
    static const char *const place[EQI_TROUBLE_COUNT] = {
        "embedding: found id", "rope: found position", "cross-entropy: found label",
        "rows: found row", "rows: found slot"};
    return eqi_seat_of(ctx)->services->fail(ctx, EQAT_INVALID_ARGUMENT,
                                            "%s %lld, expected 0 to %lld", place[t->where],
                                            t->value, t->limit - 1);
}

eqat_status eqi_cuda_wait(eqi_ctx *ctx)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    EQI_CUDA_TRY(eqi_cuda_check(ctx, "cudaMemcpyAsync",
                                cudaMemcpyAsync(cuda->reported, cuda->trouble, sizeof(eqi_trouble),
                                                cudaMemcpyDeviceToHost, cuda->stream)));
    EQI_CUDA_TRY(eqi_cuda_check(ctx, "a kernel or copy", cudaStreamSynchronize(cuda->stream)));
    return eqi_cuda_told(ctx, cuda->reported);
}

eqat_status eqi_cuda_told(eqi_ctx *ctx, const eqi_trouble *reported)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    if (!reported->claimed) return EQAT_OK;
    cuda->told = cuda->ticket;
    EQI_CUDA_TRY(
        eqi_cuda_check(ctx, "cudaMemsetAsync",
                       cudaMemsetAsync(cuda->trouble, 0, sizeof(eqi_trouble), cuda->stream)));
    return complain(ctx, reported);
}
