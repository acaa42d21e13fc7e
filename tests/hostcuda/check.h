/* What the checks of the stand-in share. A scene runs in a process of its own, clean and with a
 * fault planted; the fault must be reported, or the numbers be wrong.
 */
#ifndef HOSTCUDA_CHECK_H
#define HOSTCUDA_CHECK_H

#include "cuda_runtime.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <vector>

struct scene {
    const char *name;
    void (*run)(bool planted);
    const char *words; /* of the message, one of them, with bars between; NULL: nothing to plant */
    const char *environment; /* NAME=value, or NULL */
};

extern const scene kernel_scenes[], order_scenes[], host_scenes[];

/* Ends the process like a fault does. */
#define MUST(condition)                                                                   \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "hostcuda: check: wrong: %s (%s:%d)\n", #condition, __FILE__, \
                    __LINE__);                                                            \
            _exit(86);                                                                    \
        }                                                                                 \
    } while (0)
#define OK(call) MUST((call) == cudaSuccess)

inline cudaStream_t new_stream()
{
    cudaStream_t s;
    OK(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking));
    return s;
}

inline cudaEvent_t new_event()
{
    cudaEvent_t e;
    OK(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
    return e;
}

template <class T> T *fresh(size_t n, cudaStream_t s)
{
    void *p;
    OK(cudaMallocAsync(&p, n * sizeof(T), s));
    return (T *)p;
}

/* Not ordered by a stream: there for all work. */
template <class T> T *lasting(size_t n)
{
    void *p;
    OK(cudaMalloc(&p, n * sizeof(T)));
    return (T *)p;
}

template <class T> T *sent(const std::vector<T> &v, cudaStream_t s)
{
    T *p = fresh<T>(v.size(), s);
    OK(cudaMemcpyAsync(p, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice, s));
    return p;
}

template <class T> std::vector<T> got(const T *p, size_t n, cudaStream_t s)
{
    std::vector<T> v(n);
    OK(cudaMemcpyAsync(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost, s));
    OK(cudaStreamSynchronize(s));
    return v;
}

/* n small whole numbers that differ. */
template <class T> std::vector<T> numbers(size_t n)
{
    std::vector<T> v(n);
    for (size_t i = 0; i < n; i++) v[i] = (T)((int)(i * 7919 % 61) - 30);
    return v;
}

#endif
