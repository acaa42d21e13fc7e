/* Copies and fills: late, like everything in a stream. */
#include "memory.h"
#include "result.h"
#include "shadow.h"

#include <memory>
#include <string.h>
#include <vector>

namespace hostcuda
{

/* `height` rows of `width` bytes. */
struct shape {
    size_t to_pitch, from_pitch, width, height;
};

static bool is_kind(const void *p, memory_kind kind)
{
    const buffer *b = find(p);
    return b && b->kind == kind;
}

/* What cudaMemcpyDefault means; false: the pointers are not of the kind. */
static bool resolve(const void *to, const void *from, cudaMemcpyKind *kind)
{
    bool to_device = is_kind(to, DEVICE), from_device = is_kind(from, DEVICE);
    cudaMemcpyKind found = to_device
        ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice)
        : (from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
    if (*kind != cudaMemcpyDefault && *kind != found) return false;
    *kind = found;
    return true;
}

static void copy_rows(void *to, const void *from, shape c, bool between_devices)
{
    for (size_t i = 0; i < c.height; i++) {
        unsigned char *d = (unsigned char *)to + i * c.to_pitch;
        const unsigned char *s = (const unsigned char *)from + i * c.from_pitch;
        if (between_devices) {
            range_copy(d, s, c.width);
        } else {
            range_read(s, c.width);
            range_write(d, c.width);
        }
        memmove(d, s, c.width);
    }
}

/* The bytes of pageable memory as they are now, rows without gaps. */
static std::shared_ptr<std::vector<unsigned char>> staged(const void *from, shape c)
{
    auto bytes = std::make_shared<std::vector<unsigned char>>(c.width * c.height);
    for (size_t i = 0; i < c.height; i++)
        memcpy(bytes->data() + i * c.width, (const unsigned char *)from + i * c.from_pitch,
               c.width);
    return bytes;
}

static const char *copy_name(cudaMemcpyKind kind)
{
    static const char *const names[] = {"a copy from host to host", "a copy from host to device",
                                        "a copy from device to host",
                                        "a copy from device to device"};
    return names[kind];
}

static cudaError_t copy(void *to, const void *from, shape c, cudaMemcpyKind kind, cudaStream_t in)
{
    stream *s = stream_of(in);
    if (!s) return cudaErrorInvalidResourceHandle;
    if (!c.width || !c.height) return cudaSuccess;
    if (!to || !from) return cudaErrorInvalidValue;
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
        return cudaErrorInvalidMemcpyDirection;
    if (!resolve(to, from, &kind)) return cudaErrorInvalidValue;
    if (kind == cudaMemcpyHostToDevice && !is_kind(from, PINNED)) {
        would_wait_for(s, "a copy from pageable memory");
        auto bytes = staged(from, c);
        c.from_pitch = c.width;
        enqueue(s, copy_name(kind), [=] { copy_rows(to, bytes->data(), c, false); });
        return cudaSuccess;
    }
    bool between_devices = kind == cudaMemcpyDeviceToDevice;
    enqueue(s, copy_name(kind), [=] { copy_rows(to, from, c, between_devices); });
    bool waits =
        kind == cudaMemcpyHostToHost || (kind == cudaMemcpyDeviceToHost && !is_kind(to, PINNED));
    if (waits) wait_for(s, "a copy to pageable memory");
    return cudaSuccess;
}

} // namespace hostcuda

using namespace hostcuda;

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind kind,
                            cudaStream_t in)
{
    HOSTCUDA_ENTER;
    return result(copy(to, from, {size, size, size, 1}, kind, in));
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t in)
{
    HOSTCUDA_ENTER;
    if (width > to_pitch || width > from_pitch) return result(cudaErrorInvalidPitchValue);
    return result(copy(to, from, {to_pitch, from_pitch, width, height}, kind, in));
}

cudaError_t cudaMemsetAsync(void *at, int value, size_t size, cudaStream_t in)
{
    HOSTCUDA_ENTER;
    stream *s = stream_of(in);
    if (!s) return result(cudaErrorInvalidResourceHandle);
    if (!size) return result(cudaSuccess);
    if (!is_kind(at, DEVICE)) return result(cudaErrorInvalidValue);
    enqueue(s, "cudaMemsetAsync", [=] {
        range_write(at, size);
        memset(at, value, size);
    });
    return result(cudaSuccess);
}
