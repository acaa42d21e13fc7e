/* The arithmetic of docs/numerics.md for one weight, and the packed layout. */
#ifndef EQI_CPU_REF_QUANT_H
#define EQI_CPU_REF_QUANT_H

#include "cpu/ref/ref.h"

/* One f32 operation: + - * / of two f32 values in f64, rounded to f32, give the bits of the f32
 * operation (53 >= 2 * 24 + 2), so one text serves f32 and f64 tensors. */
static inline double ref_f(bool wide, double x) { return wide ? x : (double)(float)x; }

static inline bool ref_is_wide(const eqi_view *v) { return v->dtype == EQI_F64; }

static inline double ref_top(const eqi_quant_desc *q) { return (double)((1 << q->bits) - 1); }

/* z' = clamp(rne(z), 0, Q) of weight (n, k) */
static inline double ref_zero(const eqi_view *z, const eqi_quant_desc *q, int64_t n, int64_t k)
{
    return ref_clamp(rint(ref_get(z, ref_at(z, n, k / q->group))), 0.0, ref_top(q));
}

/* s of weight (n, k) as it is */
static inline double ref_scale(const eqi_view *s, const eqi_quant_desc *q, int64_t n, int64_t k)
{
    return ref_get(s, ref_at(s, n, k / q->group));
}

/* s' of weight (n, k): for fake quantization alone */
static inline double ref_scale_clamped(const eqi_view *s, const eqi_quant_desc *q, int64_t n,
                                       int64_t k)
{
    double x = ref_scale(s, q, n, k);
    return q->clamp ? ref_clamp(x, (double)EQI_SCALE_MIN, (double)EQI_SCALE_MAX) : x;
}

typedef struct ref_fq {
    double t;     /* w / s' */
    double r;     /* rne(t) */
    double q;     /* the code, NaN when anything is */
    double value; /* w^ */
    bool inside;
} ref_fq;

static inline ref_fq ref_fake(bool wide, double w, double s, double z, double top)
{
    ref_fq f;
    f.t = ref_f(wide, w / s);
    f.r = rint(f.t);
    double u = ref_f(wide, f.r + z);
    f.inside = u >= 0.0 && u <= top;
    f.q = ref_clamp(u, 0.0, top);
    f.value = ref_f(wide, (f.q - z) * s);
    return f;
}

/* Code k of row n. */
static inline uint32_t ref_code(const eqi_view *codes, int bits, int64_t n, int64_t k)
{
    const uint32_t *word = (const uint32_t *)codes->data + ref_at(codes, n, k / 32 * bits);
    int first = (int)(k % 32) * bits;
    uint32_t code = 0;
    for (int b = 0; b < bits; b++) code |= (word[(first + b) / 32] >> ((first + b) % 32) & 1u) << b;
    return code;
}

static inline double ref_dequant(const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                 const eqi_quant_desc *q, int64_t n, int64_t k)
{
    double code = (double)ref_code(codes, q->bits, n, k);
    return ref_f(ref_is_wide(s), (code - ref_zero(z, q, n, k)) * ref_scale(s, q, n, k));
}

/* Takes the gradient of row n of w^ through the fake quantization; dw, ds, dz may each be NULL. */
void eqi_ref_fakequant_bwd_row(const double *grad, const eqi_view *dw, const eqi_view *ds,
                               const eqi_view *dz, const eqi_view *w, const eqi_view *s,
                               const eqi_view *z, const eqi_quant_desc *q, bool acc, int64_t n);

#endif
