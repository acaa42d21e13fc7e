#include "eqat/tensor.h"

#include "autograd/tape.h"
#include "backend/backend.h"
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

static eqat_status check_shape(eqi_ctx *ctx, eqat_dtype dtype, int32_t ndim, const int64_t *shape)
{
    if ((unsigned)dtype >= EQI_DTYPE_COUNT)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "tensor: found dtype %d, expected 0 to %d",
                        (int)dtype, EQI_DTYPE_COUNT - 1);
    if (dtype == EQAT_F64 && !ctx->backend->f64)
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "tensor: found f64 on device %s, expected device ref", ctx->device);
    if (ndim < 1 || ndim > EQAT_MAX_DIMS || !shape)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "tensor: found %d dimensions, expected 1 to %d",
                        ndim, EQAT_MAX_DIMS);
    return EQAT_OK;
}

eqat_status eqat_tensor_create(eqat_context *ctx, eqat_tensor **out, eqat_dtype dtype, int32_t ndim,
                               const int64_t *shape, const void *data)
{
    *out = NULL;
    EQI_RETURN_IF(check_shape(ctx, dtype, ndim, shape));
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
    *out = NULL;
    EQI_RETURN_IF(check_shape(ctx, dtype, ndim, shape));
    return eqi_tensor_wrap(ctx, out, (eqi_dtype)dtype, ndim, shape, stride, data, bytes, release,
                           user);
}

eqat_tensor *eqat_tensor_ref(eqat_tensor *t) { return eqi_tensor_ref(t); }
void eqat_tensor_free(eqat_tensor *t) { eqi_tensor_unref(t); }
eqat_dtype eqat_tensor_dtype(const eqat_tensor *t) { return (eqat_dtype)t->v.dtype; }
int32_t eqat_tensor_ndim(const eqat_tensor *t) { return t->v.ndim; }
int64_t eqat_tensor_size(const eqat_tensor *t, int32_t dim)
{
    return dim >= 0 && dim < t->v.ndim ? t->v.shape[dim] : 0;
}
int64_t eqat_tensor_stride(const eqat_tensor *t, int32_t dim)
{
    return dim >= 0 && dim < t->v.ndim ? t->v.stride[dim] : 0;
}
int64_t eqat_tensor_count(const eqat_tensor *t) { return eqi_view_count(&t->v); }
void *eqat_tensor_data(eqat_tensor *t) { return t->v.data; }

eqat_status eqat_tensor_reshape(eqat_tensor *t, eqat_tensor **out, int32_t ndim,
                                const int64_t *shape)
{
    *out = NULL;
    if (ndim < 1 || ndim > EQAT_MAX_DIMS)
        return check_shape(eqi_tensor_ctx(t), eqat_tensor_dtype(t), ndim, shape);
    return eqi_tensor_reshape(t, out, ndim, shape);
}

eqat_status eqat_tensor_slice(eqat_tensor *t, eqat_tensor **out, int32_t dim, int64_t start,
                              int64_t length)
{
    return eqi_tensor_slice(t, out, dim, start, length);
}

eqat_status eqat_tensor_write(eqat_tensor *t, const void *src, size_t bytes)
{
    return eqi_tensor_upload(t, src, bytes);
}
eqat_status eqat_tensor_read(const eqat_tensor *t, void *dst, size_t bytes)
{
    return eqi_tensor_download(t, dst, bytes);
}
eqat_status eqat_tensor_fill(eqat_tensor *t, double value) { return eqi_tensor_fill(t, value); }
eqat_status eqat_tensor_copy(eqat_tensor *dst, const eqat_tensor *src)
{
    return eqi_tensor_copy(dst, src);
}

eqat_status eqat_tensor_set_trainable(eqat_tensor *t, bool trainable)
{
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

bool eqat_tensor_trainable(const eqat_tensor *t) { return t->requires_grad; }
eqat_tensor *eqat_tensor_grad(eqat_tensor *t) { return t->grad; }
void eqat_tensor_clear_grad(eqat_tensor *t) { eqi_tensor_zero_grad(t); }
