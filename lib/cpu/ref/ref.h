/* Access to elements for the reference kernels: everything is read as f64, computed in f64 and
 * rounded once on storing. */
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
static inline double ref_clamp(double x, double lo, double hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

/* To an integer type: half to even, saturated, NaN to 0. */
static inline double ref_whole(double x, double lo, double hi)
{
    return isnan(x) ? 0.0 : ref_clamp(rint(x), lo, hi);
}

static inline void ref_put(const eqi_view *v, int64_t at, double x)
{
    switch (v->dtype) {
    case EQI_F32: ((float *)v->data)[at] = (float)x; break;
    case EQI_BF16: ((uint16_t *)v->data)[at] = eqi_f32_to_bf16((float)x); break;
    case EQI_F16: ((uint16_t *)v->data)[at] = eqi_f32_to_f16((float)x); break;
    case EQI_F64: ((double *)v->data)[at] = x; break;
    case EQI_I32:
        ((int32_t *)v->data)[at] = (int32_t)ref_whole(x, -2147483648.0, 2147483647.0);
        break;
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
static inline int64_t ref_width(const eqi_view *v)
{
    return v->ndim > 0 ? v->shape[v->ndim - 1] : 1;
}

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
static inline int64_t ref_elem(const eqi_view *v, int64_t i)
{
    return ref_at(v, i / ref_width(v), i % ref_width(v));
}

/* Offset in a view of four dimensions. */
static inline int64_t ref_at4(const eqi_view *v, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return a * v->stride[0] + b * v->stride[1] + c * v->stride[2] + d * v->stride[3];
}

/* The entries of the table, one file per op: eqi_ref_linear and the others. */
#define EQI_ENTRY(entry) eqi_##entry##_fn eqi_ref_##entry;
EQI_BACKEND_ENTRIES(EQI_ENTRY)
#undef EQI_ENTRY

#endif
