/* Vectors of 8 floats: AVX2, FMA, F16C. */
#ifndef EQI_CPU_AVX2_SIMD_H
#define EQI_CPU_AVX2_SIMD_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define VL 8
#define V_FMA 1 /* v_fma rounds once */
typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm; /* lanes of all ones or all zeros */
typedef struct vd {
    __m256d lo, hi;
} vd;

static inline __m256i v_first(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf v_set1(float x) { return _mm256_set1_ps(x); }
static inline vf v_zero(void) { return _mm256_setzero_ps(); }
static inline vf v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline vf v_load_n(const float *p, int n) { return _mm256_maskload_ps(p, v_first(n)); }
/* The first n lanes, then zeros. */
static inline vf v_head(vf v, int n) { return _mm256_and_ps(_mm256_castsi256_ps(v_first(n)), v); }
static inline void v_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
static inline void v_store_n(float *p, vf v, int n) { _mm256_maskstore_ps(p, v_first(n), v); }

static inline __m128i v_load_u16_n(const uint16_t *p, int n)
{
    uint16_t t[8] = {0};
    memcpy(t, p, (size_t)n * sizeof *t);
    return _mm_loadu_si128((const __m128i *)t);
}
static inline void v_store_u16_n(uint16_t *p, __m128i v, int n)
{
    uint16_t t[8];
    _mm_storeu_si128((__m128i *)t, v);
    memcpy(p, t, (size_t)n * sizeof *t);
}
static inline vf v_widen(__m128i b)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(b), 16));
}
static inline vf v_load_bf16(const uint16_t *p)
{
    return v_widen(_mm_loadu_si128((const __m128i *)p));
}
static inline vf v_load_bf16_n(const uint16_t *p, int n) { return v_widen(v_load_u16_n(p, n)); }
static inline vf v_load_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
static inline vf v_load_f16_n(const uint16_t *p, int n)
{
    return _mm256_cvtph_ps(v_load_u16_n(p, n));
}

static inline __m256i v_bf16_words(vf v)
{
    __m256i u = _mm256_castps_si256(v);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(
        _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    __m256i nan = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
    return _mm256_blendv_epi8(r, nan, _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)));
}
static inline __m128i v_bf16(vf v)
{
    __m256i w = v_bf16_words(v);
    return _mm_packus_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
}
static inline void v_store_bf16(uint16_t *p, vf v) { _mm_storeu_si128((__m128i *)p, v_bf16(v)); }
static inline void v_store_bf16_n(uint16_t *p, vf v, int n) { v_store_u16_n(p, v_bf16(v), n); }
static inline void v_store_bf16_exact(uint16_t *p, vf v) { v_store_bf16(p, v); }
static inline void v_store_bf16_exact_n(uint16_t *p, vf v, int n) { v_store_bf16_n(p, v, n); }
static inline void v_store_f16(uint16_t *p, vf v)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
static inline void v_store_f16_n(uint16_t *p, vf v, int n)
{
    v_store_u16_n(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT), n);
}
static inline vf v_round_bf16(vf v)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(v_bf16_words(v), 16));
}
static inline vf v_round_f16(vf v)
{
    return _mm256_cvtph_ps(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

static inline vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf v_sqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf v_rint(vf a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }

static inline vm v_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline vm v_le(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
static inline vm v_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline vm vm_and(vm a, vm b) { return _mm256_and_ps(a, b); }
static inline vm vm_not(vm a)
{
    return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1)));
}
static inline unsigned vm_bits(vm a) { return (unsigned)_mm256_movemask_ps(a); }
static inline vf v_sel(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
static inline vf v_only(vm m, vf a) { return _mm256_and_ps(m, a); }

static inline vi vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
static inline vi vi_load(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline void vi_store(void *p, vi v) { _mm256_storeu_si256((__m256i *)p, v); }
static inline vi vi_iota(void) { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
static inline vi vi_and(vi a, vi b) { return _mm256_and_si256(a, b); }
static inline vi vi_or(vi a, vi b) { return _mm256_or_si256(a, b); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
static inline vi vi_mul(vi a, vi b) { return _mm256_mullo_epi32(a, b); }
static inline vi vi_shr(vi a, vi n) { return _mm256_srlv_epi32(a, n); }
static inline vi vi_shl(vi a, vi n) { return _mm256_sllv_epi32(a, n); }
static inline vi vi_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
static inline vi vi_max_unsigned(vi a, vi b) { return _mm256_max_epu32(a, b); }
static inline vm vi_gt(vi a, vi b) { return _mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b)); }
static inline vm vi_eq(vi a, vi b) { return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)); }
/* The n <= 4 words that p points to, in every four lanes. */
static inline vi vi_load4(const uint32_t *p, int n)
{
    __m128i first = _mm_cmpgt_epi32(_mm_set1_epi32(n), _mm_setr_epi32(0, 1, 2, 3));
    return _mm256_broadcastsi128_si256(_mm_maskload_epi32((const int *)p, first));
}
/* Bytes of each four lanes, by number. */
static inline vi vi_pick_bytes(vi a, vi number) { return _mm256_shuffle_epi8(a, number); }
static inline vf v_from_i(vi a) { return _mm256_cvtepi32_ps(a); }
static inline vi v_to_i(vf a) { return _mm256_cvtps_epi32(a); }
static inline vi v_bits(vf a) { return _mm256_castps_si256(a); }
static inline vf v_from_bits(vi a) { return _mm256_castsi256_ps(a); }
static inline vf v_load_u8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

/* What exp2 needs: x less the whole number below it, and that number, within what v_scale takes. */
static inline vf v_fraction(vf x, vf *n)
{
    x = _mm256_min_ps(_mm256_set1_ps(129.0f), _mm256_max_ps(_mm256_set1_ps(-151.0f), x));
    *n = _mm256_floor_ps(x);
    return _mm256_sub_ps(x, *n);
}
/* a 2^n for whole n from -151 to 129. */
static inline vf v_scale(vf a, vf n)
{
    /* In two steps, because one exponent field does not reach that far. */
    __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1),
            bias = _mm256_set1_epi32(127);
    __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(a, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}

/* 4 VL numbers, saturated to 0..255. */
static inline void vi_store_u8(uint8_t *p, const vi a[4])
{
    __m256i lo = _mm256_packs_epi32(a[0], a[1]), hi = _mm256_packs_epi32(a[2], a[3]);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((__m256i *)p,
                        _mm256_permutevar8x32_epi32(_mm256_packus_epi16(lo, hi), order));
}
static inline float v_sum(vf a)
{
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(t, _mm_shuffle_ps(t, t, 1)));
}
static inline float v_hmax(vf a)
{
    __m128 t = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    t = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(t, _mm_shuffle_ps(t, t, 1)));
}

static inline vd vd_zero(void) { return (vd){_mm256_setzero_pd(), _mm256_setzero_pd()}; }
static inline vd vd_of(vf a)
{
    return (vd){_mm256_cvtps_pd(_mm256_castps256_ps128(a)),
                _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1))};
}
static inline vd vd_add(vd a, vd b)
{
    return (vd){_mm256_add_pd(a.lo, b.lo), _mm256_add_pd(a.hi, b.hi)};
}
static inline vd vd_sub(vd a, vd b)
{
    return (vd){_mm256_sub_pd(a.lo, b.lo), _mm256_sub_pd(a.hi, b.hi)};
}
static inline vd vd_mul(vd a, vd b)
{
    return (vd){_mm256_mul_pd(a.lo, b.lo), _mm256_mul_pd(a.hi, b.hi)};
}
static inline vd vd_load(const double *p)
{
    return (vd){_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)};
}
static inline void vd_store(double *p, vd a)
{
    _mm256_storeu_pd(p, a.lo);
    _mm256_storeu_pd(p + 4, a.hi);
}
static inline double vd_sum(vd a)
{
    double t[4];
    _mm256_storeu_pd(t, _mm256_add_pd(a.lo, a.hi));
    return (t[0] + t[2]) + (t[1] + t[3]);
}

static inline void vi_transpose(vi r[VL])
{
    __m256i t[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    __m256i u[8];
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x20);
        r[i + 4] = _mm256_permute2x128_si256(u[i], u[i + 4], 0x31);
    }
}

#endif
