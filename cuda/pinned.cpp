/* Copies that the host does not wait for. The driver copies from and to pinned memory in the order
 * of the stream; from other memory it would first wait until the stream is done.
 *
 * Uploads are packed into stages, buffers of EQI_CUDA_STAGE_BYTES in a ring. A full one gets an
 * event; it is filled again when that has passed. While the oldest has not, the ring grows up to
 * EQI_CUDA_STAGES, then the host waits: it is that many bytes ahead of the device. */
#include <algorithm>
#include <cstring>
#include <unistd.h>

#include "backend.h"

cudaError_t eqi_cuda_pinned_take(eqi_ctx *ctx, void **out, size_t size)
{
    cudaError_t error = cudaHostAlloc(out, size, cudaHostAllocDefault);
    if (error == cudaSuccess) eqi_seat_of(ctx)->services->count(ctx, static_cast<ptrdiff_t>(size));
    return error;
}

void eqi_cuda_pinned_give(eqi_ctx *ctx, void *data, size_t size)
{
    if (!data) return;
    if (cudaFreeHost(data) != cudaSuccess) (void)cudaGetLastError();
    eqi_seat_of(ctx)->services->count(ctx, -static_cast<ptrdiff_t>(size));
}

/* ---- uploads ---- */

static cudaError_t make_stage(eqi_ctx *ctx, eqi_cuda_stage *stage)
{
    void *data = nullptr;
    cudaError_t error = eqi_cuda_pinned_take(ctx, &data, EQI_CUDA_STAGE_BYTES);
    if (error != cudaSuccess) return error;
    error = cudaEventCreateWithFlags(&stage->left, cudaEventDisableTiming);
    if (error != cudaSuccess) {
        eqi_cuda_pinned_give(ctx, data, EQI_CUDA_STAGE_BYTES);
        return error;
    }
    stage->data = static_cast<unsigned char *>(data);
    return cudaSuccess;
}

/* A new one in front of the oldest; false: there is no room, or no memory. */
static bool grow(eqi_ctx *ctx)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    eqi_cuda_stage made = {};
    int at = cuda->stage_count ? cuda->stage + 1 : 0;
    if (cuda->stage_count == EQI_CUDA_STAGES) return false;
    if (make_stage(ctx, &made) != cudaSuccess) {
        (void)cudaGetLastError();
        return false;
    }
    for (int i = cuda->stage_count++; i > at; i--) cuda->stages[i] = cuda->stages[i - 1];
    cuda->stages[at] = made;
    cuda->stage = at;
    cuda->filled = 0;
    return true;
}

/* The stage to fill has room; or there is none at all. */
static cudaError_t turn(eqi_ctx *ctx)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    if (!cuda->stage_count) {
        (void)grow(ctx);
        return cudaSuccess;
    }
    if (cuda->filled < EQI_CUDA_STAGE_BYTES) return cudaSuccess;
    cudaError_t error = cudaEventRecord(cuda->stages[cuda->stage].left, cuda->stream);
    if (error != cudaSuccess) return error;
    int oldest = (cuda->stage + 1) % cuda->stage_count;
    error = cudaEventQuery(cuda->stages[oldest].left);
    if (error == cudaErrorNotReady) {
        (void)cudaGetLastError();
        if (grow(ctx)) return cudaSuccess;
        error = cudaEventSynchronize(cuda->stages[oldest].left);
    }
    if (error != cudaSuccess) return error;
    cuda->stage = oldest;
    cuda->filled = 0;
    return cudaSuccess;
}

static eqat_status send(eqi_ctx *ctx, void *dst, const void *src, size_t n)
{
    return eqi_cuda_check(
        ctx, "cudaMemcpyAsync",
        cudaMemcpyAsync(dst, src, n, cudaMemcpyHostToDevice, eqi_cuda_of(ctx)->stream));
}

eqat_status eqi_cuda_upload(eqi_ctx *ctx, void *dst, const void *src, size_t n)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    unsigned char *to = static_cast<unsigned char *>(dst);
    const unsigned char *from = static_cast<const unsigned char *>(src);
    EQI_CUDA_TRY(eqi_cuda_ready(ctx));
    while (n) {
        EQI_CUDA_TRY(eqi_cuda_check(ctx, "a kernel or copy", turn(ctx)));
        if (!cuda->stage_count) { /* no pinned memory */
            EQI_CUDA_TRY(send(ctx, to, from, n));
            return eqi_cuda_wait(ctx);
        }
        size_t now = std::min(n, EQI_CUDA_STAGE_BYTES - cuda->filled);
        unsigned char *at = cuda->stages[cuda->stage].data + cuda->filled;
        std::memcpy(at, from, now);
        EQI_CUDA_TRY(send(ctx, to, at, now));
        size_t next = (cuda->filled + now + 63) / 64 * 64; /* as tensors are aligned */
        cuda->filled = std::min(next, EQI_CUDA_STAGE_BYTES);
        to += now;
        from += now;
        n -= now;
    }
    return EQAT_OK;
}

/* ---- late copies ---- */
static constexpr size_t CARGO_BYTES = EQI_LATE_COUNT * sizeof(eqi_cuda_cargo);

void *eqi_cuda_pin(eqi_ctx *ctx, size_t size)
{
    void *data = nullptr;
    if (eqi_cuda_ready(ctx) != EQAT_OK) return nullptr;
    cudaError_t error = eqi_cuda_pinned_take(ctx, &data, size ? size : 1);
    if (error == cudaSuccess) return data;
    if (error != cudaErrorMemoryAllocation) {
        (void)eqi_cuda_check(ctx, "cudaHostAlloc", error);
        return nullptr;
    }
    (void)cudaGetLastError();
    (void)eqi_seat_of(ctx)->services->fail(
        ctx, EQAT_OUT_OF_MEMORY, "out of memory: %zu bytes of the host's, pinned for copies of %s",
        size, eqi_cuda_of(ctx)->name);
    return nullptr;
}

void eqi_cuda_unpin(eqi_ctx *ctx, void *data, size_t size)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    if (!data || cuda->pid != getpid()) return; /* a forked child only forgets */
    (void)cudaSetDevice(cuda->device);
    (void)cudaStreamSynchronize(cuda->stream); /* which may still write there */
    eqi_cuda_pinned_give(ctx, data, size ? size : 1);
}

static eqat_status make_cargo(eqi_ctx *ctx, eqi_cuda *cuda)
{
    if (!cuda->cargo) cuda->cargo = static_cast<eqi_cuda_cargo *>(eqi_cuda_pin(ctx, CARGO_BYTES));
    return cuda->cargo ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

static cudaError_t fetch(eqi_cuda *cuda, void *dst, const void *src, size_t n)
{
    return n ? cudaMemcpyAsync(dst, src, n, cudaMemcpyDeviceToHost, cuda->stream) : cudaSuccess;
}

static bool is_pinned(const void *p)
{
    cudaPointerAttributes a;
    if (cudaPointerGetAttributes(&a, p) == cudaSuccess) return a.type == cudaMemoryTypeHost;
    (void)cudaGetLastError();
    return false;
}

/* A ticket is a number and whether the copy goes to dst itself. */
static uint64_t ticket_of(uint64_t number, bool direct) { return number << 1 | (direct ? 1 : 0); }

eqat_status eqi_cuda_upload_late(eqi_ctx *ctx, void *dst, const void *src, size_t n)
{
    EQI_CUDA_TRY(eqi_cuda_ready(ctx));
    return n ? send(ctx, dst, src, n) : EQAT_OK;
}

eqat_status eqi_cuda_download_late(eqi_ctx *ctx, void *dst, const void *src, size_t n,
                                   uint64_t *ticket)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    EQI_CUDA_TRY(eqi_cuda_ready(ctx));
    if (!ticket) return eqi_cuda_check(ctx, "cudaMemcpyAsync", fetch(cuda, dst, src, n));
    EQI_CUDA_TRY(make_cargo(ctx, cuda));
    uint64_t number = cuda->ticket + 1;
    eqi_cuda_late *late = &cuda->late[number % EQI_LATE_COUNT];
    eqi_cuda_cargo *cargo = &cuda->cargo[number % EQI_LATE_COUNT];
    bool direct = is_pinned(dst);
    if (!late->arrived)
        EQI_CUDA_TRY(
            eqi_cuda_check(ctx, "cudaEventCreateWithFlags",
                           cudaEventCreateWithFlags(&late->arrived, cudaEventDisableTiming)));
    EQI_CUDA_TRY(
        eqi_cuda_check(ctx, "cudaMemcpyAsync", fetch(cuda, direct ? dst : cargo->bytes, src, n)));
    EQI_CUDA_TRY(eqi_cuda_check(ctx, "cudaMemcpyAsync",
                                fetch(cuda, &cargo->trouble, cuda->trouble, sizeof(eqi_trouble))));
    EQI_CUDA_TRY(
        eqi_cuda_check(ctx, "cudaEventRecord", cudaEventRecord(late->arrived, cuda->stream)));
    late->dst = dst;
    late->n = n;
    late->number = cuda->ticket = number;
    *ticket = ticket_of(number, direct);
    return EQAT_OK;
}

/* The place of a ticket may have gone to a later one, which is behind it in the stream, too. */
eqat_status eqi_cuda_arrive(eqi_ctx *ctx, uint64_t ticket)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    uint64_t number = ticket >> 1;
    bool direct = ticket & 1;
    const eqi_cuda_late *late = &cuda->late[number % EQI_LATE_COUNT];
    EQI_CUDA_TRY(eqi_cuda_ready(ctx));
    if (late->number < number || (late->number != number && !direct))
        return eqi_seat_of(ctx)->services->fail(
            ctx, EQAT_BACKEND, "late download %llu: found it gone, expected one of the last %d",
            static_cast<unsigned long long>(number), EQI_LATE_COUNT);
    EQI_CUDA_TRY(eqi_cuda_check(ctx, "a kernel or copy", cudaEventSynchronize(late->arrived)));
    if (late->number != number) return EQAT_OK;
    const eqi_cuda_cargo *cargo = &cuda->cargo[number % EQI_LATE_COUNT];
    if (!direct && late->n) std::memcpy(late->dst, cargo->bytes, late->n);
    return number <= cuda->told ? EQAT_OK : eqi_cuda_told(ctx, &cargo->trouble);
}

void eqi_cuda_pinned_close(eqi_ctx *ctx)
{
    eqi_cuda *cuda = eqi_cuda_of(ctx);
    for (int i = 0; i < cuda->stage_count; i++) {
        (void)cudaEventDestroy(cuda->stages[i].left);
        eqi_cuda_pinned_give(ctx, cuda->stages[i].data, EQI_CUDA_STAGE_BYTES);
    }
    for (eqi_cuda_late &late : cuda->late)
        if (late.arrived) (void)cudaEventDestroy(late.arrived);
    eqi_cuda_pinned_give(ctx, cuda->cargo, CARGO_BYTES);
    cuda->stage_count = 0;
    cuda->cargo = nullptr;
}
