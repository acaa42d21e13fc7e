#include "tensor/tensor.h"

#include "backend/backend.h"

static void set_shape(eqi_view *v, int ndim, const int64_t *shape)
{
    int64_t stride = 1;
    v->ndim = ndim;
    for (int i = ndim - 1; i >= 0; i--) {
        v->shape[i] = shape[i];
        v->stride[i] = stride;
        stride *= shape[i];
    }
}

/* The size in bytes of a contiguous tensor. */
static eqat_status measure(eqi_ctx *ctx, eqi_dtype dtype, int ndim, const int64_t *shape,
                           size_t *bytes)
{
    size_t item = eqi_dtype_size(dtype);
    if (!item)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "tensor: found dtype %d, which is unknown",
                        (int)dtype);
    if (ndim < 1 || ndim > EQI_MAX_DIMS)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "tensor: found %d dimensions, expected 1 to %d",
                        ndim, EQI_MAX_DIMS);
    uint64_t n = item;
    bool empty = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0)
            return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                            "tensor: found size %lld in dimension %d, expected at least 0",
                            (long long)shape[i], i);
        if (shape[i] == 0) empty = true;
    }
    /* Even beside a 0 the other sizes must multiply, because strides do. */
    for (int i = 0; i < ndim; i++) {
        if (shape[i] == 0) continue;
        if (n > (uint64_t)PTRDIFF_MAX / (uint64_t)shape[i])
            return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                            "tensor: the sizes multiply to more than memory can hold");
        n *= (uint64_t)shape[i];
    }
    *bytes = empty ? 0 : (size_t)n;
    return EQAT_OK;
}

/* Takes over the caller's reference on storage when it succeeds. */
static eqat_status tensor_over(eqi_ctx *ctx, eqi_tensor **out, eqi_storage *storage)
{
    eqi_tensor *t = eqi_calloc(ctx, 1, sizeof *t, "a tensor");
    if (!t) return EQAT_OUT_OF_MEMORY;
    t->ctx = eqi_ctx_ref(ctx);
    t->refs = 1;
    t->storage = storage;
    t->v.data = storage->data;
    *out = t;
    return EQAT_OK;
}

static eqat_status create(eqi_ctx *ctx, eqi_tensor **out, eqi_dtype dtype, int ndim,
                          const int64_t *shape, bool pinned)
{
    *out = NULL;
    size_t bytes;
    EQI_RETURN_IF(measure(ctx, dtype, ndim, shape, &bytes));
    eqi_storage *storage;
    EQI_RETURN_IF((pinned ? eqi_storage_pin : eqi_storage_create)(ctx, &storage, bytes));
    eqat_status st = tensor_over(ctx, out, storage);
    if (st != EQAT_OK) {
        eqi_storage_unref(storage);
        return st;
    }
    (*out)->v.dtype = dtype;
    set_shape(&(*out)->v, ndim, shape);
    return EQAT_OK;
}

eqat_status eqi_tensor_create(eqi_ctx *ctx, eqi_tensor **out, eqi_dtype dtype, int ndim,
                              const int64_t *shape)
{
    return create(ctx, out, dtype, ndim, shape, false);
}

eqat_status eqi_tensor_create_on_host(eqi_ctx *ctx, eqi_tensor **out, eqi_dtype dtype, int ndim,
                                      const int64_t *shape)
{
    return create(ctx, out, dtype, ndim, shape, !ctx->backend->host);
}

eqat_status eqi_tensor_fill(eqi_tensor *t, double value)
{
    eqi_ctx *ctx = eqi_tensor_ctx(t);
    return eqi_view_count(&t->v) ? ctx->backend->fill(ctx, &t->v, value) : EQAT_OK;
}

eqat_status eqi_tensor_zeros(eqi_ctx *ctx, eqi_tensor **out, eqi_dtype dtype, int ndim,
                             const int64_t *shape)
{
    EQI_RETURN_IF(eqi_tensor_create(ctx, out, dtype, ndim, shape));
    eqat_status st = eqi_tensor_fill(*out, 0);
    if (st != EQAT_OK) {
        eqi_tensor_unref(*out);
        *out = NULL;
    }
    return st;
}

/* Elements from the first to one past the last that strides reach. */
static eqat_status check_strides(eqi_ctx *ctx, int ndim, const int64_t *shape,
                                 const int64_t *stride, size_t *extent)
{
    uint64_t n = 1;
    for (int i = 0; i < ndim; i++) {
        if (stride[i] < 0)
            return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                            "tensor: found stride %lld in dimension %d, expected at least 0",
                            (long long)stride[i], i);
        if (shape[i] > 1 &&
            (uint64_t)stride[i] > ((uint64_t)PTRDIFF_MAX - n) / (uint64_t)(shape[i] - 1))
            return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                            "tensor: the strides reach further than memory can");
        if (shape[i] > 1) n += (uint64_t)stride[i] * (uint64_t)(shape[i] - 1);
    }
    *extent = (size_t)n;
    return EQAT_OK;
}

eqat_status eqi_tensor_wrap(eqi_ctx *ctx, eqi_tensor **out, eqi_dtype dtype, int ndim,
                            const int64_t *shape, const int64_t *stride, void *data, size_t size,
                            void (*deleter)(void *, void *), void *user)
{
    *out = NULL;
    size_t bytes, extent = 0;
    EQI_RETURN_IF(measure(ctx, dtype, ndim, shape, &bytes));
    size_t item = eqi_dtype_size(dtype);
    if (stride && bytes) {
        EQI_RETURN_IF(check_strides(ctx, ndim, shape, stride, &extent));
        bytes = extent > SIZE_MAX / item ? SIZE_MAX : extent * item;
    }
    if (bytes > size)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "tensor: found %zu bytes of memory, expected at least %zu", size, bytes);
    if (bytes && !data)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "tensor: found no memory, expected %zu bytes",
                        bytes);
    if ((uintptr_t)data % item)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "tensor: found memory that is not aligned to %zu bytes", item);
    if (bytes && !ctx->backend->reaches(ctx, data))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "tensor: found memory that device %s does not reach, expected the device's",
                        ctx->device);
    eqi_storage *storage = eqi_calloc(ctx, 1, sizeof *storage, "a tensor");
    if (!storage) return EQAT_OUT_OF_MEMORY;
    storage->data = data;
    eqat_status st = tensor_over(ctx, out, storage);
    if (st != EQAT_OK) {
        eqi_free(ctx, storage);
        return st;
    }
    *storage = (eqi_storage){.ctx = eqi_ctx_ref(ctx),
                             .refs = 1,
                             .size = size,
                             .data = data,
                             .foreign = true,
                             .deleter = deleter,
                             .user = user};
    eqi_view *v = &(*out)->v;
    v->dtype = dtype;
    set_shape(v, ndim, shape);
    for (int i = 0; stride && i < ndim; i++) v->stride[i] = stride[i];
    return EQAT_OK;
}

eqi_tensor *eqi_tensor_ref(eqi_tensor *t)
{
    t->refs++;
    return t;
}

void eqi_tensor_unref(eqi_tensor *t)
{
    if (!t) return;
    t->refs--;
    if (t->refs == t->idle && t->storage) {
        eqi_storage_unref(t->storage);
        t->storage = NULL;
        t->v.data = NULL;
    }
    if (t->refs > 0) return;
    eqi_ctx *ctx = t->ctx;
    eqi_tensor_unref(t->grad);
    eqi_free(ctx, t);
    eqi_ctx_unref(ctx);
}

eqi_tensor *eqi_tensor_ref_idle(eqi_tensor *t)
{
    t->idle++;
    return eqi_tensor_ref(t);
}

void eqi_tensor_unref_idle(eqi_tensor *t)
{
    if (t) t->idle--;
    eqi_tensor_unref(t);
}

static eqat_status view_of(eqi_tensor *t, eqi_tensor **out)
{
    EQI_RETURN_IF(tensor_over(eqi_tensor_ctx(t), out, t->storage));
    t->storage->refs++;
    (*out)->v = t->v;
    return EQAT_OK;
}

eqat_status eqi_tensor_reshape(eqi_tensor *t, eqi_tensor **out, int ndim, const int64_t *shape)
{
    *out = NULL;
    eqi_ctx *ctx = eqi_tensor_ctx(t);
    size_t bytes;
    EQI_RETURN_IF(measure(ctx, t->v.dtype, ndim, shape, &bytes));
    eqi_view v = t->v;
    set_shape(&v, ndim, shape);
    char a[EQI_SHAPE_TEXT], b[EQI_SHAPE_TEXT];
    if (eqi_view_count(&v) != eqi_view_count(&t->v))
        return eqi_fail(
            ctx, EQAT_INVALID_ARGUMENT, "reshape: %s and %s differ in their number of elements",
            eqi_view_shape_text(&t->v, a, sizeof a), eqi_view_shape_text(&v, b, sizeof b));
    if (!eqi_view_is_contiguous(&t->v))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "reshape: %s is not contiguous",
                        eqi_view_shape_text(&t->v, a, sizeof a));
    EQI_RETURN_IF(view_of(t, out));
    (*out)->v = v;
    return EQAT_OK;
}

eqat_status eqi_tensor_slice(eqi_tensor *t, eqi_tensor **out, int dim, int64_t start,
                             int64_t length)
{
    *out = NULL;
    eqi_ctx *ctx = eqi_tensor_ctx(t);
    char a[EQI_SHAPE_TEXT];
    if (dim < 0 || dim >= t->v.ndim)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "slice: found dimension %d, expected one of %s",
                        dim, eqi_view_shape_text(&t->v, a, sizeof a));
    if (start < 0 || length < 0 || start > t->v.shape[dim] || length > t->v.shape[dim] - start)
        return eqi_fail(
            ctx, EQAT_INVALID_ARGUMENT,
            "slice: found %lld elements from %lld on, expected a part of dimension %d of %s",
            (long long)length, (long long)start, dim, eqi_view_shape_text(&t->v, a, sizeof a));
    EQI_RETURN_IF(view_of(t, out));
    eqi_view *v = &(*out)->v;
    v->shape[dim] = length;
    if (eqi_view_count(v) > 0)
        v->data = (char *)v->data + (size_t)(start * v->stride[dim]) * eqi_dtype_size(v->dtype);
    return EQAT_OK;
}

static void swap(int64_t *values, int a, int b)
{
    int64_t value = values[a];
    values[a] = values[b];
    values[b] = value;
}

eqat_status eqi_tensor_transpose(eqi_tensor *t, eqi_tensor **out, int a, int b)
{
    *out = NULL;
    char text[EQI_SHAPE_TEXT];
    if (a < 0 || a >= t->v.ndim || b < 0 || b >= t->v.ndim)
        return eqi_fail(eqi_tensor_ctx(t), EQAT_INVALID_ARGUMENT,
                        "transpose: found dimensions %d and %d, expected two of %s", a, b,
                        eqi_view_shape_text(&t->v, text, sizeof text));
    EQI_RETURN_IF(view_of(t, out));
    swap((*out)->v.shape, a, b);
    swap((*out)->v.stride, a, b);
    return EQAT_OK;
}
