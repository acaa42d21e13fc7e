/* Words of the language, dim3 and the short vectors. */
#ifndef HOSTCUDA_TYPES_H
#define HOSTCUDA_TYPES_H

#define CUDART_VERSION 13000

#define __global__
#define __device__
#define __host__
#define __constant__ const
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define HOSTCUDA_HIDDEN __attribute__((visibility("hidden")))

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

/* A struct of n equal members with its alignment, and the function that makes one. */
#define HOSTCUDA_VECTOR2(name, type, alignment) \
    struct alignas(alignment) name {            \
        type x, y;                              \
    };                                          \
    inline name make_##name(type x, type y) { return {x, y}; }
#define HOSTCUDA_VECTOR4(name, type, alignment) \
    struct alignas(alignment) name {            \
        type x, y, z, w;                        \
    };                                          \
    inline name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }
HOSTCUDA_VECTOR2(float2, float, 8)
HOSTCUDA_VECTOR2(int2, int, 8)
HOSTCUDA_VECTOR2(uint2, unsigned, 8)
HOSTCUDA_VECTOR2(double2, double, 16)
HOSTCUDA_VECTOR2(ushort2, unsigned short, 4)
HOSTCUDA_VECTOR4(float4, float, 16)
HOSTCUDA_VECTOR4(int4, int, 16)
HOSTCUDA_VECTOR4(uint4, unsigned, 16)
HOSTCUDA_VECTOR4(ushort4, unsigned short, 8)
HOSTCUDA_VECTOR4(uchar4, unsigned char, 4)
#undef HOSTCUDA_VECTOR2
#undef HOSTCUDA_VECTOR4

#endif
