/* Scenes between streams, and between them and the host. */
#include "check.h"
#include "faults.h"

enum { N = 500 };

static void missing_event(bool planted)
{
    cudaStream_t s = new_stream(), copy = new_stream();
    cudaEvent_t e = new_event();
    std::vector<float> v = numbers<float>(N);
    float *y = sent(v, s), *x = lasting<float>(N);
    OK(cudaMemsetAsync(x, 0, N * sizeof(float), s));
    OK(cudaStreamSynchronize(s));
    OK(cudaMemcpyAsync(x, v.data(), N * sizeof(float), cudaMemcpyHostToDevice, copy));
    OK(cudaEventRecord(e, copy));
    if (!planted) OK(cudaStreamWaitEvent(s, e));
    OK(add(s, y, x, N));
    OK(cudaDeviceSynchronize());
}

static void two_readers(bool planted)
{
    cudaStream_t s[3] = {new_stream(), new_stream(), new_stream()};
    cudaEvent_t e[3] = {new_event(), new_event(), new_event()};
    float *x = sent(numbers<float>(N), s[0]);
    OK(cudaEventRecord(e[0], s[0]));
    for (int i = 1; i < 3; i++) {
        float *y = sent(numbers<float>(N), s[i]);
        OK(cudaStreamWaitEvent(s[i], e[0]));
        OK(add(s[i], y, x, N));
        OK(cudaEventRecord(e[i], s[i]));
    }
    for (int i = 1; i < (planted ? 2 : 3); i++) OK(cudaStreamWaitEvent(s[0], e[i]));
    OK(fill(s[0], x, 3, N));
    OK(cudaDeviceSynchronize());
}

static void reused_pinned(bool planted)
{
    cudaStream_t s = new_stream();
    void *p;
    OK(cudaHostAlloc(&p, N * sizeof(float), cudaHostAllocDefault));
    float *pinned = (float *)p, *x = fresh<float>(N, s);
    for (int i = 0; i < N; i++) pinned[i] = (float)i;
    OK(cudaMemcpyAsync(x, pinned, N * sizeof(float), cudaMemcpyHostToDevice, s));
    if (!planted) OK(cudaStreamSynchronize(s));
    pinned[9] = -1;
    MUST(got(x, N, s)[9] == 9);
}

static void unordered_pinned(bool planted)
{
    cudaStream_t s = new_stream(), t = new_stream();
    cudaEvent_t e = new_event();
    void *p;
    OK(cudaHostAlloc(&p, N * sizeof(float), cudaHostAllocDefault));
    float *x = sent(numbers<float>(N), s), *y = fresh<float>(N, t);
    OK(cudaMemcpyAsync(p, x, N * sizeof(float), cudaMemcpyDeviceToHost, s));
    OK(cudaEventRecord(e, s));
    if (!planted) OK(cudaStreamWaitEvent(t, e));
    OK(cudaMemcpyAsync(y, p, N * sizeof(float), cudaMemcpyHostToDevice, t));
    OK(cudaDeviceSynchronize());
    if (!planted) MUST(got(y, N, t) == numbers<float>(N));
}

static void host_reads_device(bool planted)
{
    cudaStream_t s = new_stream();
    float *x = sent(numbers<float>(N), s);
    OK(cudaStreamSynchronize(s));
    if (planted) MUST(*(volatile float *)x == 0);
}

static void use_after_free(bool planted)
{
    cudaStream_t s = new_stream();
    float *x = sent(numbers<float>(N), s), *y = sent(numbers<float>(N), s);
    if (planted) OK(cudaFreeAsync(x, s));
    OK(add(s, y, x, N));
    if (!planted) OK(cudaFreeAsync(x, s));
    OK(cudaStreamSynchronize(s));
}

static void free_elsewhere(bool planted)
{
    cudaStream_t s = new_stream(), t = new_stream();
    cudaEvent_t e = new_event();
    float *x = sent(numbers<float>(N), s), *y = sent(numbers<float>(N), s);
    OK(cudaStreamSynchronize(s));
    OK(add(s, y, x, N));
    OK(cudaEventRecord(e, s));
    if (!planted) OK(cudaStreamWaitEvent(t, e));
    OK(cudaFreeAsync(x, t));
    OK(cudaDeviceSynchronize());
}

static void before_allocation(bool planted)
{
    cudaStream_t s = new_stream(), t = new_stream();
    cudaEvent_t e = new_event();
    float *x = fresh<float>(N, s);
    OK(cudaEventRecord(e, s));
    if (!planted) OK(cudaStreamWaitEvent(t, e));
    OK(fill(t, x, 1, N));
    OK(cudaDeviceSynchronize());
}

static void default_stream(bool planted)
{
    cudaStream_t s;
    OK(cudaStreamCreateWithFlags(&s, planted ? cudaStreamNonBlocking : cudaStreamDefault));
    float *x = lasting<float>(N);
    OK(fill(s, x, 1, N)); /* a stream that does not block the default one is not ordered */
    OK(fill(nullptr, x, 2, N));
    OK(cudaDeviceSynchronize());
    MUST(got(x, N, nullptr)[3] == 2);
}

static void copy_too_long(bool planted)
{
    cudaStream_t s = new_stream();
    std::vector<float> v = numbers<float>(N + 1);
    float *x = fresh<float>(N, s);
    size_t size = (N + (planted ? 1 : 0)) * sizeof(float);
    OK(cudaMemcpyAsync(x, v.data(), size, cudaMemcpyDefault, s));
    OK(cudaStreamSynchronize(s));
}

/* Copies between device buffers take over what is not written; only the way out fails. */
static void padding(bool planted)
{
    cudaStream_t s = new_stream();
    std::vector<float> v = numbers<float>(N);
    float *x = fresh<float>(2 * N, s), *y = fresh<float>(2 * N, s);
    OK(cudaMemcpy2DAsync(x, 40, v.data(), 20, 20, N / 5, cudaMemcpyHostToDevice, s));
    OK(cudaMemcpyAsync(y, x, 2 * N * sizeof(float), cudaMemcpyDeviceToDevice, s));
    if (planted) got(y, 2 * N, s);
    std::vector<float> back(N);
    OK(cudaMemcpy2DAsync(back.data(), 20, y, 40, 20, N / 5, cudaMemcpyDeviceToHost, s));
    MUST(back == v);
}

/* A reader of its own stream keeps its turn through many launches, events and recycled slots. */
static void many_streams(bool)
{
    cudaStream_t main = new_stream();
    float *x = sent(numbers<float>(N), main);
    cudaEvent_t e = new_event(), back = new_event();
    for (int i = 0; i < 40; i++) {
        cudaStream_t s = new_stream();
        OK(cudaEventRecord(e, main));
        OK(cudaStreamWaitEvent(s, e));
        float *y = sent(numbers<float>(N), s);
        OK(add(s, x, y, N));
        OK(cudaFreeAsync(y, s));
        OK(cudaEventRecord(back, s));
        OK(cudaStreamWaitEvent(main, back));
        OK(cudaStreamDestroy(s));
        if (i % 10 == 9) OK(cudaEventSynchronize(back));
    }
    MUST(got(x, N, main)[1] == 41 * numbers<float>(N)[1]);
}

static void polling(bool)
{
    cudaStream_t s = new_stream();
    cudaEvent_t e = new_event();
    float *x = sent(numbers<float>(N), s);
    OK(fill(s, x, 4, N));
    OK(cudaEventRecord(e, s));
    MUST(cudaEventQuery(e) == cudaErrorNotReady || cudaEventQuery(e) == cudaErrorNotReady);
    while (cudaEventQuery(e) == cudaErrorNotReady)
        ;
    OK(cudaStreamQuery(s));
}

const scene order_scenes[] = {
    {"missing event wait", missing_event, "without order", nullptr},
    {"two readers, one waited for", two_readers, "without order", nullptr},
    {"reused pinned buffer", reused_pinned, "wrong: got(x, N, s)[9] == 9", nullptr},
    {"unordered pinned buffer", unordered_pinned, "without order", nullptr},
    {"host dereferences device memory", host_reads_device, "host dereferences", "HOSTCUDA_SEGV=1"},
    {"use after free", use_after_free, "after its free", nullptr},
    {"free without order", free_elsewhere, "after its free|its last use", nullptr},
    {"use before allocation", before_allocation, "allocation", nullptr},
    {"default stream", default_stream, "without order", nullptr},
    {"copy past the end", copy_too_long, "past the end", nullptr},
    {"copy of padding", padding, "nobody wrote", nullptr},
    {"many streams", many_streams, nullptr, nullptr},
    {"polling", polling, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr},
};
