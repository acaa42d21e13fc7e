/* Devices and errors. */
#include "memory.h"
#include "result.h"
#include "settings.h"

#include <stdio.h>
#include <string.h>

namespace hostcuda
{

static __thread int device_now __attribute__((tls_model("initial-exec")));
static __thread cudaError_t last __attribute__((tls_model("initial-exec")));

int current_device() { return device_now; }

cudaError_t unusable()
{
    if (asked().driver < CUDART_VERSION) return cudaErrorInsufficientDriver;
    if (asked().devices < 1) return cudaErrorNoDevice;
    return broken();
}

cudaError_t result(cudaError_t error)
{
    if (broken()) error = broken();
    if (error) last = error;
    return error;
}

static bool refuse(const char *what, long number, bool wanted)
{
    if (wanted) report_refusal(what, number);
    return wanted;
}

bool allocation_fails()
{
    static long count;
    count++;
    bool full = asked().full_at && count >= asked().full_at;
    return refuse("allocation", count, full || count == asked().fail_alloc);
}

bool pinning_fails()
{
    static long count;
    count++;
    return refuse("pinning", count, count == asked().fail_pin);
}

bool launch_breaks()
{
    static long count;
    return ++count == asked().fault_at;
}

} // namespace hostcuda

using namespace hostcuda;

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidPitchValue, "cudaErrorInvalidPitchValue", "invalid pitch argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection",
     "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable",
     "CUDA-capable device(s) is/are busy or unavailable"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorECCUncorrectable, "cudaErrorECCUncorrectable", "uncorrectable ECC error encountered"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources",
     "too many resources requested for launch"},
    {cudaErrorLaunchTimeout, "cudaErrorLaunchTimeout", "the launch timed out and was terminated"},
    {cudaErrorAssert, "cudaErrorAssert", "device-side assert triggered"},
    {cudaErrorHardwareStackError, "cudaErrorHardwareStackError", "hardware stack error"},
    {cudaErrorIllegalInstruction, "cudaErrorIllegalInstruction",
     "an illegal instruction was encountered"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorInvalidAddressSpace, "cudaErrorInvalidAddressSpace",
     "operation not supported on global/shared address space"},
    {cudaErrorInvalidPc, "cudaErrorInvalidPc", "invalid program counter"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorSystemDriverMismatch, "cudaErrorSystemDriverMismatch",
     "system has unsupported display driver / cuda driver combination"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const char *cudaGetErrorString(cudaError_t error)
{
    for (const auto &e : errors)
        if (e.error == error) return e.text;
    return "unrecognized error code";
}

const char *cudaGetErrorName(cudaError_t error)
{
    for (const auto &e : errors)
        if (e.error == error) return e.name;
    return "unrecognized error code";
}

cudaError_t cudaPeekAtLastError() { return broken() ? broken() : last; }

cudaError_t cudaGetLastError()
{
    cudaError_t error = cudaPeekAtLastError();
    last = cudaSuccess;
    return error;
}

cudaError_t cudaDriverGetVersion(int *version)
{
    if (!version) return result(cudaErrorInvalidValue);
    *version = asked().driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    if (!version) return result(cudaErrorInvalidValue);
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    if (count) *count = 0;
    HOSTCUDA_ENTER;
    if (!count) return result(cudaErrorInvalidValue);
    *count = asked().devices;
    return result(cudaSuccess);
}

static bool exists(int device) { return device >= 0 && device < asked().devices; }

cudaError_t cudaSetDevice(int device)
{
    HOSTCUDA_ENTER;
    if (!exists(device)) return result(cudaErrorInvalidDevice);
    device_now = device;
    return result(cudaSuccess);
}

cudaError_t cudaGetDevice(int *device)
{
    HOSTCUDA_ENTER;
    if (!device) return result(cudaErrorInvalidValue);
    *device = device_now;
    return result(cudaSuccess);
}

/* A device like those of its compute capability, but with few processors: grids are made for them.
 */
static cudaDeviceProp properties(int device)
{
    cudaDeviceProp p = {};
    snprintf(p.name, sizeof p.name, "hostcuda %d", device);
    p.totalGlobalMem = asked().memory;
    p.sharedMemPerBlock = 48 << 10;
    p.sharedMemPerBlockOptin = 227 << 10;
    p.warpSize = 32;
    p.maxThreadsPerBlock = 1024;
    p.major = asked().capability / 10;
    p.minor = asked().capability % 10;
    p.multiProcessorCount = 8;
    return p;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device)
{
    HOSTCUDA_ENTER;
    if (!prop) return result(cudaErrorInvalidValue);
    if (!exists(device)) return result(cudaErrorInvalidDevice);
    *prop = properties(device);
    return result(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device)
{
    HOSTCUDA_ENTER;
    if (!value) return result(cudaErrorInvalidValue);
    if (!exists(device)) return result(cudaErrorInvalidDevice);
    cudaDeviceProp p = properties(device);
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)p.sharedMemPerBlock; break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)p.sharedMemPerBlockOptin; break;
    case cudaDevAttrMemoryPoolsSupported: *value = 1; break;
    default: return result(cudaErrorInvalidValue);
    }
    return result(cudaSuccess);
}
