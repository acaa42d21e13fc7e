#include "engine.h"

#include "base/half.h"
#include "base/rng.h"
#include "engine/engine.h"

static size_t offset(const eqi_view *v, int64_t i)
{
    int64_t at = 0;
    for (int d = v->ndim - 1; d >= 0; d--) {
        at += i % v->shape[d] * v->stride[d];
        i /= v->shape[d];
    }
    return (size_t)at;
}

/* One element on the host, whatever the device. */
typedef union element {
    float f;
    double d;
    uint16_t half;
    int32_t i;
    uint8_t byte;
    uint32_t u;
} element;

static void *place(const eqi_tensor *t, int64_t i)
{
    return (char *)t->v.data + offset(&t->v, i) * eqi_dtype_size(t->v.dtype);
}

double get(const eqi_tensor *t, int64_t i)
{
    element e;
    OK(t->ctx, t->ctx->backend->download(t->ctx, &e, place(t, i), eqi_dtype_size(t->v.dtype)));
    switch (t->v.dtype) {
    case EQI_F32: return e.f;
    case EQI_F64: return e.d;
    case EQI_BF16: return eqi_bf16_to_f32(e.half);
    case EQI_F16: return eqi_f16_to_f32(e.half);
    case EQI_I32: return e.i;
    case EQI_U8: return e.byte;
    case EQI_U32: return e.u;
    default: ck_abort_msg("dtype");
    }
    return 0;
}

void put(eqi_tensor *t, int64_t i, double value)
{
    element e;
    switch (t->v.dtype) {
    case EQI_F32: e.f = (float)value; break;
    case EQI_F64: e.d = value; break;
    case EQI_BF16: e.half = eqi_f32_to_bf16((float)value); break;
    case EQI_F16: e.half = eqi_f32_to_f16((float)value); break;
    case EQI_I32: e.i = (int32_t)value; break;
    case EQI_U8: e.byte = (uint8_t)value; break;
    case EQI_U32: e.u = (uint32_t)value; break;
    default: ck_abort_msg("dtype");
    }
    OK(t->ctx, t->ctx->backend->upload(t->ctx, place(t, i), &e, eqi_dtype_size(t->v.dtype)));
}

int64_t count(const eqi_tensor *t) { return eqi_view_count(&t->v); }

eqi_tensor *make(eqi_ctx *ctx, eqi_dtype dtype, dims shape)
{
    eqi_tensor *t;
    OK(ctx, eqi_tensor_create(ctx, &t, dtype, shape.n, shape.at));
    return t;
}

eqi_tensor *make_from(eqi_ctx *ctx, eqi_dtype dtype, dims shape, const double *values)
{
    eqi_tensor *t = make(ctx, dtype, shape);
    for (int64_t i = 0; i < count(t); i++) put(t, i, values[i]);
    return t;
}

eqi_tensor *make_random(eqi_ctx *ctx, eqi_dtype dtype, dims shape, uint32_t stream, double scale)
{
    eqi_tensor *t = make(ctx, dtype, shape);
    for (int64_t i = 0; i < count(t); i++)
        put(t, i, scale * eqi_rng_normal(7, stream, (uint64_t)i));
    return t;
}

eqi_tensor *scattered(eqi_tensor *t)
{
    dims wide = {.n = t->v.ndim};
    for (int i = 0; i < wide.n; i++) wide.at[i] = t->v.shape[i] + 3;
    eqi_ctx *ctx = eqi_tensor_ctx(t);
    eqi_tensor *view = make(ctx, t->v.dtype, wide);
    OK(ctx, eqi_tensor_fill(view, eqi_dtype_is_float(t->v.dtype) ? (double)NAN : 77));
    for (int i = 0; i < wide.n; i++) {
        eqi_tensor *next;
        OK(ctx, eqi_tensor_slice(view, &next, i, i + 1 < 3 ? i + 1 : 0, t->v.shape[i]));
        eqi_tensor_unref(view);
        view = next;
    }
    OK(ctx, eqi_tensor_copy(view, t));
    return view;
}

eqi_tensor *trainable(eqi_tensor *t)
{
    t->requires_grad = true;
    return t;
}

bool same_bits(const eqi_tensor *a, const eqi_tensor *b)
{
    if (a->v.dtype != b->v.dtype || !eqi_view_same_shape(&a->v, &b->v)) return false;
    for (int64_t i = 0; i < count(a); i++) {
        double x = get(a, i), y = get(b, i);
        if (memcmp(&x, &y, sizeof x) != 0) return false;
    }
    return true;
}

double relative(const eqi_tensor *a, const eqi_tensor *b)
{
    ck_assert(eqi_view_same_shape(&a->v, &b->v));
    double worst = 0, squares = 0;
    for (int64_t i = 0; i < count(a); i++) {
        double x = get(a, i), d = fabs(x - get(b, i));
        squares += x * x;
        if (!(d <= worst)) worst = d; /* a NaN stays */
    }
    double rms = sqrt(squares / (double)count(a));
    return worst == 0 ? 0 : worst / (rms > 1e-30 ? rms : 1e-30);
}
