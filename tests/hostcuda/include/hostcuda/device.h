/* What kernels call. Sites are source lines: threads that meet must meet at the same line. */
#ifndef HOSTCUDA_DEVICE_H
#define HOSTCUDA_DEVICE_H

#include "hostcuda/types.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

namespace hostcuda
{

/* Constant members: gcc does not instrument their loads, and for one thread they are constant. */
struct index3 {
    const unsigned x, y, z;
    operator dim3() const { return dim3(x, y, z); }
};

/* For models of instructions: their loads and stores are not checked, nor is what they call. */
#define HOSTCUDA_UNCHECKED __attribute__((no_sanitize("thread"), noinline))

/* What one lane gives to an exchange. */
struct shot {
    uint64_t v[8];
};

enum combine { NOTHING, OR, AND, COUNT };

/* The barrier of the block; gives back the values of its threads combined. */
HOSTCUDA_HIDDEN int barrier(combine how, int value, int site);
/* Waits for the lanes of `mask`, and orders their accesses to memory. */
HOSTCUDA_HIDDEN void sync_warp(unsigned mask, int site);
/* The n bytes (at most 64) of every lane of `mask`, at its lane's place; valid up to the caller's
 * next warp operation. Like all warp operations but sync_warp, it does not order memory. */
HOSTCUDA_HIDDEN const shot *exchange(unsigned mask, const void *value, size_t n,
                                     int site = __builtin_LINE());
/* The bits that lane `from` gives; -1: the caller's own. */
HOSTCUDA_HIDDEN uint64_t shuffle(unsigned mask, uint64_t bits, int from, int site);
/* A bit for each lane of `mask`: whether its value is true. */
HOSTCUDA_HIDDEN unsigned vote(unsigned mask, bool value, int site);
/* The place of the calling thread in its warp. */
HOSTCUDA_HIDDEN int lane();
/* The block's dynamic shared memory. */
HOSTCUDA_HIDDEN void *dynamic_shared();

template <class T> inline __attribute__((always_inline)) uint64_t to_bits(T v)
{
    static_assert(sizeof(T) <= 8, "a lane gives at most 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    return bits;
}

template <class T> inline __attribute__((always_inline)) T from_bits(uint64_t bits)
{
    T v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

} // namespace hostcuda

extern HOSTCUDA_HIDDEN const hostcuda::index3 threadIdx, blockIdx, blockDim, gridDim;
static constexpr int warpSize = 32;

/* ---- barriers ---- */
__forceinline__ void __syncthreads(int site = __builtin_LINE())
{
    hostcuda::barrier(hostcuda::NOTHING, 0, site);
}
__forceinline__ int __syncthreads_or(int value, int site = __builtin_LINE())
{
    return hostcuda::barrier(hostcuda::OR, value, site);
}
__forceinline__ int __syncthreads_and(int value, int site = __builtin_LINE())
{
    return hostcuda::barrier(hostcuda::AND, value, site);
}
__forceinline__ int __syncthreads_count(int value, int site = __builtin_LINE())
{
    return hostcuda::barrier(hostcuda::COUNT, value, site);
}
__forceinline__ void __syncwarp(unsigned mask = 0xffffffffu, int site = __builtin_LINE())
{
    hostcuda::sync_warp(mask, site);
}
/* Blocks may exchange values by atomics alone: a fence orders nothing that is checked. */
__forceinline__ void __threadfence() {}

/* ---- warps; the width is 32 ---- */
template <class T>
__forceinline__ T __shfl_sync(unsigned mask, T v, int from, int = 32, int site = __builtin_LINE())
{
    return hostcuda::from_bits<T>(hostcuda::shuffle(mask, hostcuda::to_bits(v), from & 31, site));
}
template <class T>
__forceinline__ T __shfl_xor_sync(unsigned mask, T v, int x, int = 32, int site = __builtin_LINE())
{
    return hostcuda::from_bits<T>(
        hostcuda::shuffle(mask, hostcuda::to_bits(v), hostcuda::lane() ^ (x & 31), site));
}
template <class T>
__forceinline__ T __shfl_down_sync(unsigned mask, T v, unsigned by, int = 32,
                                   int site = __builtin_LINE())
{
    int from = hostcuda::lane() + (int)by;
    return hostcuda::from_bits<T>(
        hostcuda::shuffle(mask, hostcuda::to_bits(v), from < 32 ? from : -1, site));
}
template <class T>
__forceinline__ T __shfl_up_sync(unsigned mask, T v, unsigned by, int = 32,
                                 int site = __builtin_LINE())
{
    int from = hostcuda::lane() - (int)by;
    return hostcuda::from_bits<T>(
        hostcuda::shuffle(mask, hostcuda::to_bits(v), from >= 0 ? from : -1, site));
}
__forceinline__ unsigned __ballot_sync(unsigned mask, int value, int site = __builtin_LINE())
{
    return hostcuda::vote(mask, value != 0, site);
}
__forceinline__ int __any_sync(unsigned mask, int value, int site = __builtin_LINE())
{
    return hostcuda::vote(mask, value != 0, site) != 0;
}
__forceinline__ int __all_sync(unsigned mask, int value, int site = __builtin_LINE())
{
    return hostcuda::vote(mask, value == 0, site) == 0;
}

/* ---- atomics ---- */
HOSTCUDA_HIDDEN int atomicAdd(int *at, int value);
HOSTCUDA_HIDDEN unsigned atomicAdd(unsigned *at, unsigned value);
HOSTCUDA_HIDDEN unsigned long long atomicAdd(unsigned long long *at, unsigned long long value);
HOSTCUDA_HIDDEN int atomicCAS(int *at, int expected, int value);
HOSTCUDA_HIDDEN unsigned atomicCAS(unsigned *at, unsigned expected, unsigned value);
HOSTCUDA_HIDDEN int atomicMax(int *at, int value);
HOSTCUDA_HIDDEN int atomicExch(int *at, int value);

/* ---- numbers ---- */
template <class T> __forceinline__ T __ldg(const T *at) { return *at; }
template <class T> __forceinline__ void __stwb(T *at, T value) { *at = value; }

__forceinline__ unsigned __float_as_uint(float x)
{
    return hostcuda::from_bits<unsigned>(hostcuda::to_bits(x));
}
__forceinline__ float __uint_as_float(unsigned x) { return hostcuda::from_bits<float>(x); }
__forceinline__ int __float_as_int(float x) { return (int)__float_as_uint(x); }
__forceinline__ float __int_as_float(int x) { return __uint_as_float((unsigned)x); }

__forceinline__ float __fadd_rn(float a, float b) { return a + b; }
__forceinline__ float __fsub_rn(float a, float b) { return a - b; }
__forceinline__ float __fmul_rn(float a, float b) { return a * b; }
__forceinline__ float __fdiv_rn(float a, float b) { return a / b; }
__forceinline__ float __frcp_rn(float a) { return 1.0f / a; }
__forceinline__ float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
__forceinline__ float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
__forceinline__ double __dadd_rn(double a, double b) { return a + b; }
__forceinline__ double __dsub_rn(double a, double b) { return a - b; }
__forceinline__ double __dmul_rn(double a, double b) { return a * b; }
__forceinline__ double __ddiv_rn(double a, double b) { return a / b; }
__forceinline__ double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
/* Some C libraries have functions of these names. */
#define rsqrtf hostcuda_rsqrtf
#define rsqrt hostcuda_rsqrt
__forceinline__ float rsqrtf(float x) { return (float)(1.0 / __builtin_sqrt((double)x)); }
__forceinline__ double rsqrt(double x) { return 1.0 / __builtin_sqrt(x); }

/* To the nearest integer, halves to even; what does not fit saturates, NaN becomes 0. */
__forceinline__ int __float2int_rn(float x)
{
    if (x != x) return 0;
    if (x >= 2147483648.0f) return 2147483647;
    if (x <= -2147483648.0f) return -2147483647 - 1;
    return (int)__builtin_rintf(x);
}

__forceinline__ int __popc(unsigned x) { return __builtin_popcount(x); }
__forceinline__ int __ffs(int x) { return __builtin_ffs(x); }
__forceinline__ int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }

#define HOSTCUDA_MIN_MAX(type)                                         \
    __forceinline__ type min(type a, type b) { return b < a ? b : a; } \
    __forceinline__ type max(type a, type b) { return a < b ? b : a; }
HOSTCUDA_MIN_MAX(int)
HOSTCUDA_MIN_MAX(unsigned)
HOSTCUDA_MIN_MAX(long)
HOSTCUDA_MIN_MAX(unsigned long)
HOSTCUDA_MIN_MAX(long long)
HOSTCUDA_MIN_MAX(unsigned long long)
#undef HOSTCUDA_MIN_MAX
__forceinline__ float min(float a, float b) { return __builtin_fminf(a, b); }
__forceinline__ float max(float a, float b) { return __builtin_fmaxf(a, b); }
__forceinline__ double min(double a, double b) { return __builtin_fmin(a, b); }
__forceinline__ double max(double a, double b) { return __builtin_fmax(a, b); }

#endif
