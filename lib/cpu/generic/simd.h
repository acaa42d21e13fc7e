/* Vectors of 4 floats in plain C with the compiler's vector types: any processor. */
#ifndef EQI_CPU_GENERIC_SIMD_H
#define EQI_CPU_GENERIC_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/half.h"

#define VL 4
#define V_FMA 0 /* v_fma rounds twice */
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));
typedef vi vm; /* lanes of all ones or all zeros */
typedef double vd __attribute__((vector_size(32)));
typedef vd vd_anywhere __attribute__((aligned(8), may_alias));

#define V_EACH for (int v_i = 0; v_i < VL; v_i++)

static inline vf v_set1(float x) { return (vf){x, x, x, x}; }
static inline vf v_zero(void) { return v_set1(0.0f); }
static inline vf v_load_n(const float *p, int n)
{
    vf v = v_zero();
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
}
static inline vf v_load(const float *p) { return v_load_n(p, VL); }
static inline void v_store_n(float *p, vf v, int n) { memcpy(p, &v, (size_t)n * sizeof *p); }
/* The first n lanes, then zeros. */
static inline vf v_head(vf v, int n)
{
    V_EACH if (v_i >= n) v[v_i] = 0.0f;
    return v;
}
static inline void v_store(float *p, vf v) { v_store_n(p, v, VL); }

static inline vf v_load_bf16_n(const uint16_t *p, int n)
{
    vf v = v_zero();
    for (int i = 0; i < n; i++) v[i] = eqi_bf16_to_f32(p[i]);
    return v;
}
static inline vf v_load_bf16(const uint16_t *p) { return v_load_bf16_n(p, VL); }
static inline vf v_load_f16_n(const uint16_t *p, int n)
{
    vf v = v_zero();
    for (int i = 0; i < n; i++) v[i] = eqi_f16_to_f32(p[i]);
    return v;
}
static inline vf v_load_f16(const uint16_t *p) { return v_load_f16_n(p, VL); }
static inline void v_store_bf16_n(uint16_t *p, vf v, int n)
{
    for (int i = 0; i < n; i++) p[i] = eqi_f32_to_bf16(v[i]);
}
static inline void v_store_bf16(uint16_t *p, vf v) { v_store_bf16_n(p, v, VL); }
static inline void v_store_bf16_exact(uint16_t *p, vf v) { v_store_bf16(p, v); }
static inline void v_store_bf16_exact_n(uint16_t *p, vf v, int n) { v_store_bf16_n(p, v, n); }
static inline void v_store_f16_n(uint16_t *p, vf v, int n)
{
    for (int i = 0; i < n; i++) p[i] = eqi_f32_to_f16(v[i]);
}
static inline void v_store_f16(uint16_t *p, vf v) { v_store_f16_n(p, v, VL); }
static inline vf v_round_bf16(vf v)
{
    V_EACH v[v_i] = eqi_bf16_to_f32(eqi_f32_to_bf16(v[v_i]));
    return v;
}
static inline vf v_round_f16(vf v)
{
    V_EACH v[v_i] = eqi_f16_to_f32(eqi_f32_to_f16(v[v_i]));
    return v;
}

static inline vm v_lt(vf a, vf b) { return a < b; }
static inline vm v_le(vf a, vf b) { return a <= b; }
static inline vm v_eq(vf a, vf b) { return a == b; }
static inline vm vm_and(vm a, vm b) { return a & b; }
static inline vm vm_not(vm a) { return ~a; }
static inline unsigned vm_bits(vm a)
{
    unsigned m = 0;
    V_EACH m |= (a[v_i] ? 1u : 0u) << v_i;
    return m;
}
static inline vf v_sel(vm m, vf a, vf b) { return (vf)((m & (vi)a) | (~m & (vi)b)); }
static inline vf v_only(vm m, vf a) { return (vf)(m & (vi)a); }

static inline vf v_add(vf a, vf b) { return a + b; }
static inline vf v_sub(vf a, vf b) { return a - b; }
static inline vf v_mul(vf a, vf b) { return a * b; }
static inline vf v_div(vf a, vf b) { return a / b; }
static inline vf v_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf v_sqrt(vf a)
{
    V_EACH a[v_i] = sqrtf(a[v_i]);
    return a;
}
/* Adding 2^23 leaves no fraction; what is larger has none (and NaN stays). */
static inline vf v_rint(vf a)
{
    vi sign = (vi)a & (vi){INT32_MIN, INT32_MIN, INT32_MIN, INT32_MIN};
    vf magnitude = (vf)((vi)a ^ sign), big = v_set1(8388608.0f);
    vf r = (vf)((vi)((magnitude + big) - big) | sign);
    return v_sel(magnitude < big, r, a);
}
static inline vf v_min(vf a, vf b) { return v_sel(a < b, a, b); }
static inline vf v_max(vf a, vf b) { return v_sel(a > b, a, b); }

static inline vi vi_set1(int32_t x) { return (vi){x, x, x, x}; }
static inline vi vi_load(const void *p)
{
    vi v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void vi_store(void *p, vi v) { memcpy(p, &v, sizeof v); }
static inline vi vi_iota(void) { return (vi){0, 1, 2, 3}; }
static inline vi vi_and(vi a, vi b) { return a & b; }
static inline vi vi_or(vi a, vi b) { return a | b; }
static inline vi vi_add(vi a, vi b) { return (vi)((vu)a + (vu)b); }
static inline vi vi_sub(vi a, vi b) { return (vi)((vu)a - (vu)b); }
static inline vi vi_mul(vi a, vi b) { return (vi)((vu)a * (vu)b); }
static inline vi vi_shr(vi a, vi n)
{
    V_EACH a[v_i] = n[v_i] < 32 ? (int32_t)((uint32_t)a[v_i] >> n[v_i]) : 0;
    return a;
}
static inline vi vi_shl(vi a, vi n)
{
    V_EACH a[v_i] = n[v_i] < 32 ? (int32_t)((uint32_t)a[v_i] << n[v_i]) : 0;
    return a;
}
static inline vi vi_sel(vm m, vi a, vi b) { return (m & a) | (~m & b); }
static inline vi vi_max(vi a, vi b) { return vi_sel(a > b, a, b); }
static inline vi vi_max_unsigned(vi a, vi b) { return vi_sel((vm)((vu)a > (vu)b), a, b); }
static inline vm vi_gt(vi a, vi b) { return a > b; }
static inline vm vi_eq(vi a, vi b) { return a == b; }
static inline vf v_from_i(vi a) { return __builtin_convertvector(a, vf); }
/* Of whole numbers in the range of int32_t. */
static inline vi v_to_i(vf a) { return __builtin_convertvector(v_rint(a), vi); }
static inline vi v_bits(vf a) { return (vi)a; }
static inline vf v_from_bits(vi a) { return (vf)a; }
static inline vf v_load_u8(const uint8_t *p)
{
    return (vf){(float)p[0], (float)p[1], (float)p[2], (float)p[3]};
}

/* What exp2 needs: x less the whole number below it, and that number, within what v_scale takes. */
static inline vf v_fraction(vf x, vf *n)
{
    x = v_min(v_set1(129.0f), v_max(v_set1(-151.0f), x));
    vf r = v_rint(x);
    *n = r - v_only(r > x, v_set1(1.0f));
    return x - *n;
}
/* a 2^n for whole n from -151 to 129. */
static inline vf v_scale(vf a, vf n)
{
    V_EACH
    {
        /* A NaN has no whole n; a is one too. */
        int whole = n[v_i] == n[v_i] ? (int)n[v_i] : 0, half = whole / 2;
        a[v_i] *= eqi_f32_from_bits((uint32_t)(half + 127) << 23);
        a[v_i] *= eqi_f32_from_bits((uint32_t)(whole - half + 127) << 23);
    }
    return a;
}

/* 4 VL numbers, saturated to 0..255. */
static inline void vi_store_u8(uint8_t *p, const vi a[4])
{
    for (int i = 0; i < 4; i++)
        V_EACH p[i * VL + v_i] = (uint8_t)(a[i][v_i] < 0 ? 0 : a[i][v_i] > 255 ? 255 : a[i][v_i]);
}
static inline float v_sum(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }
static inline float v_hmax(vf a)
{
    float x = a[0] > a[2] ? a[0] : a[2], y = a[1] > a[3] ? a[1] : a[3];
    return x > y ? x : y;
}

/* Macros: how a 32-byte vector is passed would depend on the processor. */
#define vd_zero() ((vd){0.0, 0.0, 0.0, 0.0})
#define vd_of(a) __builtin_convertvector((a), vd)
#define vd_add(a, b) ((a) + (b))
#define vd_sub(a, b) ((a) - (b))
#define vd_mul(a, b) ((a) * (b))
#define vd_sum(a) (((a)[0] + (a)[2]) + ((a)[1] + (a)[3]))
#define vd_load(p) (*(const vd_anywhere *)(const void *)(p))
#define vd_store(p, a) memcpy((p), &(a), sizeof(vd))

static inline void vi_transpose(vi r[VL])
{
    vi t[VL];
    memcpy(t, r, sizeof t);
    for (int i = 0; i < VL; i++)
        for (int j = 0; j < VL; j++) r[i][j] = t[j][i];
}

#endif
