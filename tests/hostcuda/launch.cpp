#include "fibers.h"
#include "memory.h"
#include "result.h"
#include "shadow.h"

#include <dlfcn.h>
#include <memory>
#include <new>
#include <set>
#include <string.h>
#include <string>
#include <unordered_map>

namespace hostcuda
{

static const size_t SHARED_DEFAULT = 48 << 10, SHARED_MOST = 227 << 10, PARAMS_MOST = 4096;
static std::unordered_map<const void *, size_t> shared_limits;
static thread_local std::string next_name;

void name_next_launch(const char *name) { next_name = name ? name : ""; }

/* Names are kept: messages tell them long after. */
static const char *take_name(const void *kernel)
{
    static std::set<std::string> names;
    if (next_name.empty()) {
        Dl_info info;
        next_name = dladdr(kernel, &info) && info.dli_sname ? info.dli_sname : "a kernel";
    }
    const char *name = names.insert(next_name).first->c_str();
    next_name.clear();
    return name;
}

static size_t shared_limit(const void *kernel)
{
    auto at = shared_limits.find(kernel);
    return at == shared_limits.end() ? SHARED_DEFAULT : at->second;
}

static cudaError_t check_limits(const cudaLaunchConfig_t *c, const void *kernel, size_t params)
{
    dim3 g = c->gridDim, b = c->blockDim;
    if (!g.x || !g.y || !g.z || !b.x || !b.y || !b.z) return cudaErrorInvalidConfiguration;
    if (g.x > 0x7fffffff || g.y > 65535 || g.z > 65535) return cudaErrorInvalidConfiguration;
    if (b.x > 1024 || b.y > 1024 || b.z > 64 || (uint64_t)b.x * b.y * b.z > 1024)
        return cudaErrorInvalidConfiguration;
    if (c->dynamicSmemBytes > shared_limit(kernel)) return cudaErrorInvalidValue;
    if (params > PARAMS_MOST) return cudaErrorInvalidValue;
    return c->numAttrs ? cudaErrorNotSupported : cudaSuccess;
}

cudaError_t launch(const cudaLaunchConfig_t *config, const void *kernel, invoke call,
                   const void *params, size_t size, size_t documented)
{
    HOSTCUDA_ENTER;
    if (!config || !kernel) return result(cudaErrorInvalidValue);
    const char *name = take_name(kernel);
    cudaError_t error = check_limits(config, kernel, documented);
    stream *s = stream_of(config->stream);
    if (!error && !s) error = cudaErrorInvalidResourceHandle;
    if (error) return result(error);
    auto bytes = std::make_shared<std::unique_ptr<unsigned char[]>>(new unsigned char[size]);
    memcpy(bytes->get(), params, size);
    cudaLaunchConfig_t c = *config;
    bool breaks = launch_breaks();
    enqueue(s, name, [=] {
        if (breaks) return break_device(cudaErrorIllegalAddress);
        readable_params(bytes->get(), size);
        run_grid({c.gridDim, c.blockDim, c.dynamicSmemBytes, kernel, call, bytes->get()});
    });
    return result(cudaSuccess);
}

} // namespace hostcuda

using namespace hostcuda;

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value)
{
    HOSTCUDA_ENTER;
    if (!kernel) return result(cudaErrorInvalidDeviceFunction);
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return result(cudaSuccess);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        (size_t)value > SHARED_MOST)
        return result(cudaErrorInvalidValue);
    shared_limits[kernel] = (size_t)value;
    return result(cudaSuccess);
}
