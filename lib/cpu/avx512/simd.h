/* Vectors of 16 floats. Compiled with or without AVX512_BF16 (EQI_SIMD_BF16). */
#ifndef EQI_CPU_AVX512_SIMD_H
#define EQI_CPU_AVX512_SIMD_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define VL 16
#define V_FMA 1 /* v_fma rounds once */
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;
typedef struct vd {
    __m512d lo, hi;
} vd;

static inline __mmask16 v_first(int n) { return (__mmask16)((1u << n) - 1u); }

static inline vf v_set1(float x) { return _mm512_set1_ps(x); }
static inline vf v_zero(void) { return _mm512_setzero_ps(); }
static inline vf v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline vf v_load_n(const float *p, int n) { return _mm512_maskz_loadu_ps(v_first(n), p); }
/* The first n lanes, then zeros. */
static inline vf v_head(vf v, int n) { return _mm512_maskz_mov_ps(v_first(n), v); }
static inline void v_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
static inline void v_store_n(float *p, vf v, int n) { _mm512_mask_storeu_ps(p, v_first(n), v); }

static inline vf v_widen(__m256i b)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
}
static inline vf v_load_bf16(const uint16_t *p)
{
    return v_widen(_mm256_loadu_si256((const __m256i *)p));
}
static inline vf v_load_bf16_n(const uint16_t *p, int n)
{
    return v_widen(_mm256_maskz_loadu_epi16(v_first(n), p));
}
static inline vf v_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline vf v_load_f16_n(const uint16_t *p, int n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(v_first(n), p));
}

/* Exact for every pattern, as eqi_f32_to_bf16. */
static inline __m256i v_bf16_exact(vf v)
{
    __m512i u = _mm512_castps_si512(v);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_srli_epi32(
        _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    __m512i nan = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(
        _mm512_mask_mov_epi32(r, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), nan));
}
/* The instruction takes subnormals for zero, which no product notices. */
static inline __m256i v_bf16(vf v)
{
#if EQI_SIMD_BF16
    return (__m256i)_mm512_cvtneps_pbh(v);
#else
    return v_bf16_exact(v);
#endif
}
static inline void v_store_bf16(uint16_t *p, vf v) { _mm256_storeu_si256((__m256i *)p, v_bf16(v)); }
static inline void v_store_bf16_n(uint16_t *p, vf v, int n)
{
    _mm256_mask_storeu_epi16(p, v_first(n), v_bf16(v));
}
static inline void v_store_bf16_exact(uint16_t *p, vf v)
{
    _mm256_storeu_si256((__m256i *)p, v_bf16_exact(v));
}
static inline void v_store_bf16_exact_n(uint16_t *p, vf v, int n)
{
    _mm256_mask_storeu_epi16(p, v_first(n), v_bf16_exact(v));
}
static inline void v_store_f16(uint16_t *p, vf v)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
static inline void v_store_f16_n(uint16_t *p, vf v, int n)
{
    _mm256_mask_storeu_epi16(p, v_first(n), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
/* Rounded through bf16, f16. */
static inline vf v_round_bf16(vf v) { return v_widen(v_bf16(v)); }
static inline vf v_round_f16(vf v)
{
    return _mm512_cvtph_ps(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

static inline vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf v_sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf v_rint(vf a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* The second operand when either is NaN. */
static inline vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }

static inline vm v_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vm v_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline vm v_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vm vm_and(vm a, vm b) { return (vm)(a & b); }
static inline vm vm_not(vm a) { return (vm)~a; }
static inline unsigned vm_bits(vm a) { return a; }
static inline vf v_sel(vm m, vf a, vf b) { return _mm512_mask_mov_ps(b, m, a); } /* m ? a : b */
static inline vf v_only(vm m, vf a) { return _mm512_maskz_mov_ps(m, a); }        /* m ? a : 0 */

static inline vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi vi_load(const void *p) { return _mm512_loadu_si512(p); }
static inline void vi_store(void *p, vi v) { _mm512_storeu_si512(p, v); }
static inline vi vi_iota(void)
{
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
static inline vi vi_and(vi a, vi b) { return _mm512_and_si512(a, b); }
static inline vi vi_or(vi a, vi b) { return _mm512_or_si512(a, b); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vi vi_mul(vi a, vi b) { return _mm512_mullo_epi32(a, b); }
static inline vi vi_shr(vi a, vi n) { return _mm512_srlv_epi32(a, n); }
static inline vi vi_shl(vi a, vi n) { return _mm512_sllv_epi32(a, n); }
static inline vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
static inline vi vi_max_unsigned(vi a, vi b) { return _mm512_max_epu32(a, b); }
static inline vm vi_gt(vi a, vi b) { return _mm512_cmpgt_epi32_mask(a, b); }
static inline vm vi_eq(vi a, vi b) { return _mm512_cmpeq_epi32_mask(a, b); }
/* The n <= 4 words that p points to, in every four lanes. */
static inline vi vi_load4(const uint32_t *p, int n)
{
    return _mm512_broadcast_i32x4(_mm_maskz_loadu_epi32((__mmask8)((1u << n) - 1u), p));
}
/* Bytes of each four lanes, by number. */
static inline vi vi_pick_bytes(vi a, vi number) { return _mm512_shuffle_epi8(a, number); }
static inline vf v_from_i(vi a) { return _mm512_cvtepi32_ps(a); }
static inline vi v_to_i(vf a) { return _mm512_cvtps_epi32(a); }
static inline vi v_bits(vf a) { return _mm512_castps_si512(a); }
static inline vf v_from_bits(vi a) { return _mm512_castsi512_ps(a); }
static inline vf v_load_u8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/* What exp2 needs: x less the whole number below it, and what v_scale takes for that number. */
static inline vf v_fraction(vf x, vf *n)
{
    *n = x; /* the scaling instruction rounds down itself */
    return _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
/* a 2^floor(n) */
static inline vf v_scale(vf a, vf n) { return _mm512_scalef_ps(a, n); }

/* 4 VL numbers, saturated to 0..255. */
static inline void vi_store_u8(uint8_t *p, const vi a[4])
{
    __m512i lo = _mm512_packs_epi32(a[0], a[1]), hi = _mm512_packs_epi32(a[2], a[3]);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(lo, hi)));
}
static inline float v_sum(vf a) { return _mm512_reduce_add_ps(a); }
static inline float v_hmax(vf a) { return _mm512_reduce_max_ps(a); }

static inline vd vd_zero(void) { return (vd){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
static inline vd vd_of(vf a)
{
    return (vd){_mm512_cvtps_pd(_mm512_castps512_ps256(a)),
                _mm512_cvtps_pd(_mm512_extractf32x8_ps(a, 1))};
}
static inline vd vd_add(vd a, vd b)
{
    return (vd){_mm512_add_pd(a.lo, b.lo), _mm512_add_pd(a.hi, b.hi)};
}
static inline vd vd_sub(vd a, vd b)
{
    return (vd){_mm512_sub_pd(a.lo, b.lo), _mm512_sub_pd(a.hi, b.hi)};
}
static inline vd vd_mul(vd a, vd b)
{
    return (vd){_mm512_mul_pd(a.lo, b.lo), _mm512_mul_pd(a.hi, b.hi)};
}
static inline double vd_sum(vd a) { return _mm512_reduce_add_pd(_mm512_add_pd(a.lo, a.hi)); }
static inline vd vd_load(const double *p)
{
    return (vd){_mm512_loadu_pd(p), _mm512_loadu_pd(p + 8)};
}
static inline void vd_store(double *p, vd a)
{
    _mm512_storeu_pd(p, a.lo);
    _mm512_storeu_pd(p + 8, a.hi);
}

#if EQI_SIMD_BF16
/* The same words as v_pairs makes, from f32. */
static inline void v_store_pairs(uint16_t *p, vf a, vf b)
{
    const __m512i order =
        _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                         21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    _mm512_storeu_si512(p, _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(b, a)));
}
static inline __m512bh v_pair_set1(const uint16_t *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return (__m512bh)_mm512_set1_epi32(pair);
}
/* 16 values, rounded, twice; and those of 32 such values that the low five bits of 16 name. */
static inline vi v_twice_bf16(vf v) { return _mm512_broadcast_i64x4(v_bf16(v)); }
static inline vi vi_lookup16(vi values, vi number)
{
    return _mm512_permutexvar_epi16(number, values);
}
static inline vi vi_shr16(vi a, vi n) { return _mm512_srlv_epi16(a, n); } /* every 16 bits */
static inline __m512bh v_pair_load(const uint16_t *p) { return (__m512bh)_mm512_loadu_si512(p); }
static inline vf v_pair_fma(__m512bh a, __m512bh b, vf c) { return _mm512_dpbf16_ps(c, a, b); }
#endif

/* VL x VL words. */
static inline void vi_transpose(vi r[VL])
{
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* Words whose lower half is lane i of a and whose upper half is lane i of b: 32 of them from 32
 * values each. */
static inline void v_pairs(const uint16_t *a, const uint16_t *b, vi out[2])
{
    __m512i x = _mm512_loadu_si512(a), y = _mm512_loadu_si512(b);
    __m512i lo = _mm512_unpacklo_epi16(x, y), hi = _mm512_unpackhi_epi16(x, y);
    out[0] = _mm512_permutex2var_epi64(lo, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), hi);
    out[1] = _mm512_permutex2var_epi64(lo, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), hi);
}

#endif
