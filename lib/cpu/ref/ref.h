/* Access to elements for the reference kernels: everything is read as f64, computed in f64 and rounded once on storing. */
#ifndef EQI_CPU_REF_REF_H
#define EQI_CPU_REF_REF_H

#include <math.h>
#include <string.h>

#include "backend/backend.h"
#include "base/half.h"

/* The value at an offset counted in elements; integers are exact. */
static inline double ref_get(const eqi_view *v, int64_t at)
{
    switch (v->dtype) {
    case EQI_F32: return (double)((const float *)v->data)[at];
    case EQI_BF16: return (double)eqi_bf16_to_f32(((const uint16_t *)v->data)[at]);
    case EQI_F16: return (double)eqi_f16_to_f32(((const uint16_t *)v->data)[at]);
    case EQI_F64: return ((const double *)v->data)[at];
    case EQI_I32: return (double)((const int32_t *)v->data)[at];
    case EQI_U8: return (double)((const uint8_t *)v->data)[at];
    case EQI_U32: return (double)((const uint32_t *)v->data)[at];
    default: return (double)NAN;
    }
}

/* Clamps; a NaN stays NaN, as in torch. */
static inline double ref_clamp(double x, double lo, double hi) { return x < lo ? lo : x > hi ? hi : x; }

/* To an integer type: half to even, saturated, NaN to 0. */
static inline double ref_whole(double x, double lo, double hi) { return isnan(x) ? 0.0 : ref_clamp(rint(x), lo, hi); }

static inline void ref_put(const eqi_view *v, int64_t at, double x)
{
    switch (v->dtype) {
    case EQI_F32: ((float *)v->data)[at] = (float)x; break;
    case EQI_BF16: ((uint16_t *)v->data)[at] = eqi_f32_to_bf16((float)x); break;
    case EQI_F16: ((uint16_t *)v->data)[at] = eqi_f32_to_f16((float)x); break;
    case EQI_F64: ((double *)v->data)[at] = x; break;
    case EQI_I32: ((int32_t *)v->data)[at] = (int32_t)ref_whole(x, -2147483648.0, 2147483647.0); break;
    case EQI_U8: ((uint8_t *)v->data)[at] = (uint8_t)ref_whole(x, 0.0, 255.0); break;
    case EQI_U32: ((uint32_t *)v->data)[at] = (uint32_t)ref_whole(x, 0.0, 4294967295.0); break;
    default: break;
    }
}

static inline void ref_add(const eqi_view *v, int64_t at, double x, bool acc)
{
    ref_put(v, at, acc ? ref_get(v, at) + x : x);
}

/* What x becomes when a tensor of this float type holds it. */
static inline double ref_as(eqi_dtype dtype, double x)
{
    switch (dtype) {
    case EQI_F64: return x;
    case EQI_BF16: return (double)eqi_bf16_to_f32(eqi_f32_to_bf16((float)x));
    case EQI_F16: return (double)eqi_f16_to_f32(eqi_f32_to_f16((float)x));
    default: return (double)(float)x;
    }
}

/* Size of the last dimension. */
static inline int64_t ref_width(const eqi_view *v) { return v->ndim > 0 ? v->shape[v->ndim - 1] : 1; }

/* Offset of the first element of row r, rows being counted over all dimensions but the last. */
static inline int64_t ref_row(const eqi_view *v, int64_t r)
{
    int64_t at = 0;
    for (int d = v->ndim - 2; d >= 0; d--) {
        at += r % v->shape[d] * v->stride[d];
        r /= v->shape[d];
    }
    return at;
}

/* Offset of element j of row r. */
static inline int64_t ref_at(const eqi_view *v, int64_t r, int64_t j)
{
    return ref_row(v, r) + (v->ndim > 0 ? j * v->stride[v->ndim - 1] : 0);
}

/* Offset of element i in row-major order. */
static inline int64_t ref_elem(const eqi_view *v, int64_t i) { return ref_at(v, i / ref_width(v), i % ref_width(v)); }

/* Offset in a view of four dimensions. */
static inline int64_t ref_at4(const eqi_view *v, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return a * v->stride[0] + b * v->stride[1] + c * v->stride[2] + d * v->stride[3];
}

/* --- the entries of the table, one file per op ------------------------------------------------------------- */
eqat_status eqi_ref_open(eqi_ctx *ctx, const char *device);
void eqi_ref_close(eqi_ctx *ctx);
void *eqi_ref_alloc(eqi_ctx *ctx, size_t size);
void eqi_ref_free(eqi_ctx *ctx, void *data);
eqat_status eqi_ref_upload(eqi_ctx *ctx, void *dst, const void *src, size_t n);
eqat_status eqi_ref_download(eqi_ctx *ctx, void *dst, const void *src, size_t n);

eqat_status eqi_ref_fill(eqi_ctx *ctx, const eqi_view *y, double value);
eqat_status eqi_ref_copy(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x);
eqat_status eqi_ref_axpby(eqi_ctx *ctx, const eqi_view *y, double alpha, const eqi_view *a, double beta, const eqi_view *b);
eqat_status eqi_ref_mul(eqi_ctx *ctx, const eqi_view *y, const eqi_view *a, const eqi_view *b, bool acc);
eqat_status eqi_ref_scale_by(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *factor, bool acc);
eqat_status eqi_ref_ratio(eqi_ctx *ctx, const eqi_view *y, const eqi_view *a, const eqi_view *b);

eqat_status eqi_ref_embedding(eqi_ctx *ctx, const eqi_view *y, const eqi_view *ids, const eqi_view *table);
eqat_status eqi_ref_embedding_bwd(eqi_ctx *ctx, const eqi_view *dtable, const eqi_view *ids, const eqi_view *dy);

eqat_status eqi_ref_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *w, const eqi_view *bias);
eqat_status eqi_ref_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy, const eqi_view *w, bool acc);
eqat_status eqi_ref_linear_bwd_w(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *dy, const eqi_view *x, bool acc);
eqat_status eqi_ref_bias_bwd(eqi_ctx *ctx, const eqi_view *dbias, const eqi_view *dy, bool acc);

eqat_status eqi_ref_fakequant(eqi_ctx *ctx, const eqi_view *what, const eqi_view *w, const eqi_view *s, const eqi_view *z,
                              const eqi_quant_desc *q);
eqat_status eqi_ref_fakequant_bwd(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds, const eqi_view *dz, const eqi_view *dwhat,
                                  const eqi_view *w, const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q, bool acc);
eqat_status eqi_ref_fq_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *w, const eqi_view *s,
                              const eqi_view *z, const eqi_view *bias, const eqi_quant_desc *q);
eqat_status eqi_ref_fq_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy, const eqi_view *w, const eqi_view *s,
                                    const eqi_view *z, const eqi_quant_desc *q, bool acc);
eqat_status eqi_ref_fq_linear_bwd_w(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds, const eqi_view *dz, const eqi_view *dy,
                                    const eqi_view *x, const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                    const eqi_quant_desc *q, bool acc);
eqat_status eqi_ref_fq_linear_update(eqi_ctx *ctx, const eqi_update *u, const eqi_view *ds, const eqi_view *dz, const eqi_view *dy,
                                     const eqi_view *x, const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                     const eqi_quant_desc *q);

eqat_status eqi_ref_dequantize(eqi_ctx *ctx, const eqi_view *what, const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                               const eqi_quant_desc *q);
eqat_status eqi_ref_packed_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *codes, const eqi_view *s,
                                  const eqi_view *z, const eqi_view *bias, const eqi_quant_desc *q);
eqat_status eqi_ref_packed_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy, const eqi_view *codes,
                                        const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q, bool acc);
eqat_status eqi_ref_packed_linear_bwd_sz(eqi_ctx *ctx, const eqi_view *ds, const eqi_view *dz, const eqi_view *dy,
                                         const eqi_view *x, const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                         const eqi_quant_desc *q, bool acc);
eqat_status eqi_ref_quantize(eqi_ctx *ctx, const eqi_view *codes, const eqi_view *w, const eqi_view *s, const eqi_view *z,
                             const eqi_quant_desc *q);
eqat_status eqi_ref_init_minmax(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z, const eqi_view *w, const eqi_quant_desc *q);
eqat_status eqi_ref_init_mse(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z, const eqi_view *w, const eqi_quant_desc *q);

eqat_status eqi_ref_rmsnorm(eqi_ctx *ctx, const eqi_view *y, const eqi_view *rstd, const eqi_view *x, const eqi_view *gain,
                            double eps);
eqat_status eqi_ref_rmsnorm_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dgain, const eqi_view *dy, const eqi_view *x,
                                const eqi_view *gain, const eqi_view *rstd, bool acc_dx, bool acc_dgain);
eqat_status eqi_ref_rope(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *cos, const eqi_view *sin,
                         const eqi_view *pos, int sign);
eqat_status eqi_ref_attention(eqi_ctx *ctx, const eqi_view *o, const eqi_view *lse, const eqi_view *q, const eqi_view *k,
                              const eqi_view *v, const eqi_view *segments, const eqi_attention_desc *d);
eqat_status eqi_ref_attention_bwd(eqi_ctx *ctx, const eqi_view *dq, const eqi_view *dk, const eqi_view *dv, const eqi_view *d_o,
                                  const eqi_view *o, const eqi_view *lse, const eqi_view *q, const eqi_view *k, const eqi_view *v,
                                  const eqi_view *segments, const eqi_attention_desc *d);
eqat_status eqi_ref_silu_mul(eqi_ctx *ctx, const eqi_view *y, const eqi_view *gate, const eqi_view *up);
eqat_status eqi_ref_silu_mul_bwd(eqi_ctx *ctx, const eqi_view *dgate, const eqi_view *dup, const eqi_view *dy,
                                 const eqi_view *gate, const eqi_view *up);

eqat_status eqi_ref_mse(eqi_ctx *ctx, const eqi_view *loss, const eqi_view *x, const eqi_view *target);
eqat_status eqi_ref_mse_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dloss, const eqi_view *x, const eqi_view *target,
                            bool acc);
eqat_status eqi_ref_linear_cross_entropy(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *dx, const eqi_view *dw,
                                         const eqi_view *x, const eqi_view *w, const eqi_view *labels);

eqat_status eqi_ref_sum_squares(eqi_ctx *ctx, const eqi_view *sum, const eqi_view *g);
eqat_status eqi_ref_clip_factor(eqi_ctx *ctx, const eqi_view *norm, const eqi_view *factor, const eqi_view *sum, double max_norm,
                                double scale);
eqat_status eqi_ref_adamw(eqi_ctx *ctx, const eqi_view *p, const eqi_view *g, const eqi_view *m, const eqi_view *v,
                          const eqi_view *factor, const eqi_adamw_desc *d);

#endif
