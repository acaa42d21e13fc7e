/* Packed codes by blocks of 32, each of which fills `bits` words, for kernels that know the number
 * of bits when compiling. Weights are those of packed_value (quant.cuh), bit for bit. */
#ifndef EQI_CUDA_PACKED_CUH
#define EQI_CUDA_PACKED_CUH

#include "quant.cuh"

template <int bits> struct code_block {
    unsigned word[bits];
};

/* What a block's address is a multiple of, so that read_block may take several words at once. */
constexpr size_t eqi_code_alignment(int bits) { return bits % 4 == 0 ? 16 : bits % 2 == 0 ? 8 : 4; }

template <int bits> __device__ __forceinline__ code_block<bits> read_block(const unsigned *at)
{
    code_block<bits> b;
    EQI_UNROLL
    for (int i = 0; i < bits; i++) {
        if constexpr (bits % 4 == 0) {
            if (i % 4) continue;
            uint4 v = reinterpret_cast<const uint4 *>(at)[i / 4];
            b.word[i] = v.x, b.word[i + 1] = v.y, b.word[i + 2] = v.z, b.word[i + 3] = v.w;
        } else if constexpr (bits % 2 == 0) {
            if (i % 2) continue;
            uint2 v = reinterpret_cast<const uint2 *>(at)[i / 2];
            b.word[i] = v.x, b.word[i + 1] = v.y;
        } else
            b.word[i] = at[i];
    }
    return b;
}

/* Code i, i known when compiling. */
template <int bits> __device__ __forceinline__ unsigned code_of(const code_block<bits> &b, int i)
{
    int in = i * bits / 32, shift = i * bits % 32;
    unsigned code = b.word[in] >> shift;
    if (shift + bits > 32) code |= b.word[in + 1] << (32 - shift);
    return code & ((1u << bits) - 1u);
}

/* Drops the first n codes, whose bits fill less than a word: a loop over a block goes on so, rather
 * than with an index that moves. */
template <int bits, int n> __device__ __forceinline__ void drop_codes(code_block<bits> *b)
{
    EQI_UNROLL
    for (int i = 0; i < bits; i++) {
        b->word[i] >>= n * bits;
        if (i + 1 < bits) b->word[i] |= b->word[i + 1] << (32 - n * bits);
    }
}

/* n codes that lie within a block of 32, from code `first` of the tensor on, the first of them
 * lowest: 64 bits at most, in up to three words. */
template <int n>
__device__ __forceinline__ unsigned long long codes_from(const unsigned *codes, int bits,
                                                         int64_t first)
{
    int in = static_cast<int>(first % 32) * bits, shift = in % 32;
    const unsigned *word = codes + first / 32 * bits + in / 32;
    unsigned long long held = word[0] >> shift;
    if (shift + n * bits > 32) held |= static_cast<unsigned long long>(word[1]) << (32 - shift);
    if (shift + n * bits > 64) held |= static_cast<unsigned long long>(word[2]) << (64 - shift);
    return held;
}

/* A float of 2^23 and a code in its last bits: 2^23 + code. What is taken from it is exact. */
constexpr unsigned EQI_CODE_BASE = 0x4b000000u;

/* What the weights of a group have in common. */
struct code_terms {
    float below; /* 2^23 + z' */
    float scale;
};

/* Of group `at` of the tensor; s is F32, z F32 or U8, both contiguous. */
__device__ __forceinline__ code_terms terms_of(const eqi_view &s, const eqi_view &z, int64_t at,
                                               float top)
{
    float zero = z.dtype == EQI_U8 ? static_cast<const unsigned char *>(z.data)[at]
                                   : static_cast<const float *>(z.data)[at];
    zero = clamp(rintf(zero), 0.0f, top);
    return {__fadd_rn(__uint_as_float(EQI_CODE_BASE), zero),
            static_cast<const float *>(s.data)[at]};
}

/* code - z', and w^ */
__device__ __forceinline__ float offset_of(unsigned code, const code_terms &t)
{
    return __fsub_rn(__uint_as_float(EQI_CODE_BASE | code), t.below);
}
__device__ __forceinline__ float value_of(unsigned code, const code_terms &t)
{
    return __fmul_rn(offset_of(code, t), t.scale);
}

#endif
