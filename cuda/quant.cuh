/* The arithmetic of docs/numerics.md for one weight, f32 operation by f32 operation, and the packed
 * layout. */
#ifndef EQI_CUDA_QUANT_CUH
#define EQI_CUDA_QUANT_CUH

#include "load.cuh"

__device__ __forceinline__ float quant_top(const eqi_quant_desc &q)
{
    return static_cast<float>((1 << q.bits) - 1);
}

/* z' = clamp(rne(z), 0, Q) of weight (n, k) */
__device__ __forceinline__ float quant_zero(const eqi_view &z, const eqi_quant_desc &q, int64_t n,
                                            int64_t k)
{
    return clamp(rintf(get(z, at(z, n, k / q.group))), 0.0f, quant_top(q));
}

/* s of weight (n, k) as it is, and s' for fake quantization */
__device__ __forceinline__ float quant_scale(const eqi_view &s, const eqi_quant_desc &q, int64_t n,
                                             int64_t k)
{
    return get(s, at(s, n, k / q.group));
}
__device__ __forceinline__ float clamped_scale(float s, const eqi_quant_desc &q)
{
    return q.clamp ? clamp(s, EQI_SCALE_MIN, EQI_SCALE_MAX) : s;
}
__device__ __forceinline__ float quant_scale_clamped(const eqi_view &s, const eqi_quant_desc &q,
                                                     int64_t n, int64_t k)
{
    return clamped_scale(quant_scale(s, q, n, k), q);
}

struct fake {
    float t;     /* w / s' */
    float r;     /* rne(t) */
    float code;  /* NaN when anything is */
    float value; /* w^ */
    bool inside;
};

__device__ __forceinline__ fake fake_quantize(float w, float s, float z, float top)
{
    fake f;
    f.t = __fdiv_rn(w, s);
    f.r = rintf(f.t);
    float u = __fadd_rn(f.r, z);
    f.inside = u >= 0.0f && u <= top;
    f.code = clamp(u, 0.0f, top);
    f.value = __fmul_rn(__fsub_rn(f.code, z), s);
    return f;
}

/* Code k of row n: at most two words hold it. */
__device__ __forceinline__ unsigned packed_code(const eqi_view &codes, int bits, int64_t n,
                                                int64_t k)
{
    const unsigned *word = static_cast<const unsigned *>(codes.data) + at(codes, n, k / 32 * bits);
    int first = static_cast<int>(k % 32) * bits, in = first / 32, shift = first % 32;
    unsigned code = word[in] >> shift;
    if (shift + bits > 32) code |= word[in + 1] << (32 - shift);
    return code & ((1u << bits) - 1u);
}

__device__ __forceinline__ float packed_value(const eqi_view &codes, const eqi_view &s,
                                              const eqi_view &z, const eqi_quant_desc &q, int64_t n,
                                              int64_t k)
{
    float code = static_cast<float>(packed_code(codes, q.bits, n, k));
    return __fmul_rn(__fsub_rn(code, quant_zero(z, q, n, k)), quant_scale(s, q, n, k));
}

#endif
