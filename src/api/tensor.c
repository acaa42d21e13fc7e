#include "eqat/tensor.h"

#include "autograd/grad.h"
#include "backend/backend.h"
#include "base/entry.h"
#include "tensor/tensor.h"

_Static_assert((int)EQAT_F32 == (int)EQI_F32 && (int)EQAT_BF16 == (int)EQI_BF16 &&
                   (int)EQAT_F16 == (int)EQI_F16 && (int)EQAT_F64 == (int)EQI_F64 &&
                   (int)EQAT_I32 == (int)EQI_I32 && (int)EQAT_U8 == (int)EQI_U8 &&
                   (int)EQAT_U32 == (int)EQI_U32 && EQAT_MAX_DIMS == EQI_MAX_DIMS,
               "the engine's dtypes are the public ones");

size_t eqat_dtype_size(eqat_dtype dtype)
{
    return (unsigned)dtype < EQI_DTYPE_COUNT ? eqi_dtype_size((eqi_dtype)dtype) : 0;
}

const char *eqat_dtype_name(eqat_dtype dtype)
{
    return (unsigned)dtype < EQI_DTYPE_COUNT ? eqi_dtype_name((eqi_dtype)dtype) : "unknown dtype";
}

static eqat_status check_kind(eqi_ctx *ctx, eqat_dtype dtype, int32_t ndim)
{
    if ((unsigned)dtype >= EQI_DTYPE_COUNT)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "tensor: found dtype %d, expected 0 to %d",
                        (int)dtype, EQI_DTYPE_COUNT - 1);
    if (dtype == EQAT_F64 && !ctx->backend->f64)
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "tensor: found f64 on device %s, expected device ref", ctx->device);
    if (ndim < 1 || ndim > EQAT_MAX_DIMS)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "tensor: found %d dimensions, expected 1 to %d",
                        ndim, EQAT_MAX_DIMS);
    return EQAT_OK;
}

eqat_status eqat_tensor_create(eqat_context *ctx, eqat_tensor **out, eqat_dtype dtype, int32_t ndim,
                               const int64_t *shape, const void *data)
{
    if (out) *out = NULL;
    EQI_ENTER(ctx);
    EQI_NEED(ctx, out, shape);
    EQI_RETURN_IF(check_kind(ctx, dtype, ndim));
    if (!data) return eqi_tensor_zeros(ctx, out, (eqi_dtype)dtype, ndim, shape);
    EQI_RETURN_IF(eqi_tensor_create(ctx, out, (eqi_dtype)dtype, ndim, shape));
    eqat_status st = eqi_tensor_upload(
        *out, data, (size_t)eqi_view_count(&(*out)->v) * eqi_dtype_size((eqi_dtype)dtype));
    if (st != EQAT_OK) {
        eqi_tensor_unref(*out);
        *out = NULL;
    }
    return st;
}

eqat_status eqat_tensor_wrap(eqat_context *ctx, eqat_tensor **out, eqat_dtype dtype, int32_t ndim,
                             const int64_t *shape, const int64_t *stride, void *data, size_t bytes,
                             void (*release)(void *user, void *data), void *user)
{
    if (out) *out = NULL;
    EQI_ENTER(ctx);
    EQI_NEED(ctx, out, shape);
    EQI_RETURN_IF(check_kind(ctx, dtype, ndim));
    return eqi_tensor_wrap(ctx, out, (eqi_dtype)dtype, ndim, shape, stride, data, bytes, release,
                           user);
}

eqat_tensor *eqat_tensor_ref(eqat_tensor *t)
{
    if (!t) return NULL;
    EQI_GUARD(t->ctx);
    return eqi_tensor_ref(t);
}

static void unref(void *tensor) { eqi_tensor_unref(tensor); }

void eqat_tensor_free(eqat_tensor *t)
{
    if (t) eqi_handle_free(t->ctx, &t->handle, unref, t);
}

static bool has_dim(const eqat_tensor *t, int32_t dim) { return t && dim >= 0 && dim < t->v.ndim; }

eqat_dtype eqat_tensor_dtype(const eqat_tensor *t) { return t ? (eqat_dtype)t->v.dtype : EQAT_F32; }
int32_t eqat_tensor_ndim(const eqat_tensor *t) { return t ? t->v.ndim : 0; }
int64_t eqat_tensor_size(const eqat_tensor *t, int32_t dim)
{
    return has_dim(t, dim) ? t->v.shape[dim] : 0;
}
int64_t eqat_tensor_stride(const eqat_tensor *t, int32_t dim)
{
    return has_dim(t, dim) ? t->v.stride[dim] : 0;
}
int64_t eqat_tensor_count(const eqat_tensor *t) { return t ? eqi_view_count(&t->v) : 0; }
void *eqat_tensor_data(eqat_tensor *t) { return t ? t->v.data : NULL; }

eqat_status eqat_tensor_reshape(eqat_tensor *t, int32_t ndim, const int64_t *shape,
                                eqat_tensor **out)
{
    if (out) *out = NULL;
    EQI_ENTER_OF(t);
    EQI_NEED(t->ctx, out, shape);
    if (ndim < 1 || ndim > EQAT_MAX_DIMS) return check_kind(t->ctx, eqat_tensor_dtype(t), ndim);
    return eqi_tensor_reshape(t, out, ndim, shape);
}

eqat_status eqat_tensor_slice(eqat_tensor *t, int32_t dim, int64_t start, int64_t length,
                              eqat_tensor **out)
{
    if (out) *out = NULL;
    EQI_ENTER_OF(t);
    EQI_NEED(t->ctx, out);
    return eqi_tensor_slice(t, out, dim, start, length);
}

eqat_status eqat_tensor_write(eqat_tensor *t, const void *src, size_t bytes)
{
    EQI_ENTER_OF(t);
    if (bytes) EQI_NEED(t->ctx, src);
    return eqi_tensor_upload(t, src, bytes);
}

eqat_status eqat_tensor_read(const eqat_tensor *t, void *dst, size_t bytes)
{
    EQI_ENTER_OF(t);
    if (bytes) EQI_NEED(t->ctx, dst);
    return eqi_tensor_download(t, dst, bytes);
}

eqat_status eqat_tensor_fill(eqat_tensor *t, double value)
{
    EQI_ENTER_OF(t);
    return eqi_tensor_fill(t, value);
}

eqat_status eqat_tensor_copy(eqat_tensor *dst, const eqat_tensor *src)
{
    EQI_ENTER_OF(dst);
    EQI_NEED(dst->ctx, src);
    return eqi_tensor_copy(dst, src);
}

eqat_status eqat_tensor_set_requires_grad(eqat_tensor *t, bool trainable)
{
    EQI_ENTER_OF(t);
    eqi_ctx *ctx = eqi_tensor_ctx(t);
    if (trainable && t->v.dtype != EQI_F32 && t->v.dtype != EQI_F64)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "trainable tensor: found %s, expected f32",
                        eqi_dtype_name(t->v.dtype));
    if (t->on_tape)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "trainable tensor: found the output of a recorded op, expected a leaf");
    t->requires_grad = trainable;
    return EQAT_OK;
}

bool eqat_tensor_requires_grad(const eqat_tensor *t) { return t && t->requires_grad; }
eqat_tensor *eqat_tensor_grad(eqat_tensor *t) { return t ? t->grad : NULL; }

void eqat_tensor_zero_grad(eqat_tensor *t)
{
    if (!t) return;
    EQI_GUARD(t->ctx);
    eqi_tensor_zero_grad(t);
}
