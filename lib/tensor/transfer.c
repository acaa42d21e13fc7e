#include <string.h>

#include "backend/backend.h"
#include "tensor/tensor.h"

/* Values on their way: between host and device, between dtypes. */

static size_t bytes_of(const eqi_tensor *t)
{
    return (size_t)eqi_view_count(&t->v) * eqi_dtype_size(t->v.dtype);
}

static eqat_status check_part(const eqi_tensor *t, const char *what, size_t offset, size_t n)
{
    char a[EQI_SHAPE_TEXT];
    if (!eqi_view_is_contiguous(&t->v))
        return eqi_fail(t->ctx, EQAT_INVALID_ARGUMENT, "%s: %s is not contiguous", what,
                        eqi_view_shape_text(&t->v, a, sizeof a));
    if (offset <= bytes_of(t) && n <= bytes_of(t) - offset) return EQAT_OK;
    return eqi_fail(t->ctx, EQAT_INVALID_ARGUMENT,
                    "%s: found %zu bytes from %zu on, expected a part of %zu", what, n, offset,
                    bytes_of(t));
}

static eqat_status check_whole(const eqi_tensor *t, const char *what, size_t n)
{
    char a[EQI_SHAPE_TEXT];
    if (n == bytes_of(t)) return EQAT_OK;
    return eqi_fail(t->ctx, EQAT_INVALID_ARGUMENT, "%s: found %zu bytes, expected %zu for %s %s",
                    what, n, bytes_of(t), eqi_dtype_name(t->v.dtype),
                    eqi_view_shape_text(&t->v, a, sizeof a));
}

/* Memory of the host, once the copies from and to it are through. */
static eqat_status copy_there(eqi_ctx *ctx, void *dst, const void *src, size_t n)
{
    EQI_RETURN_IF(ctx->backend->synchronize(ctx));
    memcpy(dst, src, n);
    return EQAT_OK;
}

static bool on_host(const eqi_tensor *t) { return t->storage && t->storage->pinned; }

eqat_status eqi_tensor_upload_part(eqi_tensor *t, size_t offset, const void *src, size_t n)
{
    EQI_RETURN_IF(check_part(t, "upload", offset, n));
    char *dst = t->v.data;
    if (!n) return EQAT_OK;
    return (on_host(t) ? copy_there : t->ctx->backend->upload)(t->ctx, dst + offset, src, n);
}

eqat_status eqi_tensor_download_part(const eqi_tensor *t, size_t offset, void *dst, size_t n)
{
    EQI_RETURN_IF(check_part(t, "download", offset, n));
    const char *src = t->v.data;
    if (!n) return EQAT_OK;
    return (on_host(t) ? copy_there : t->ctx->backend->download)(t->ctx, dst, src + offset, n);
}

eqat_status eqi_tensor_upload(eqi_tensor *t, const void *src, size_t n)
{
    EQI_RETURN_IF(check_whole(t, "upload", n));
    return eqi_tensor_upload_part(t, 0, src, n);
}

eqat_status eqi_tensor_download(const eqi_tensor *t, void *dst, size_t n)
{
    EQI_RETURN_IF(check_whole(t, "download", n));
    return eqi_tensor_download_part(t, 0, dst, n);
}

eqat_status eqi_tensor_download_late(const eqi_tensor *t, void *dst, size_t n, uint64_t *ticket)
{
    *ticket = 0; /* it is there already */
    EQI_RETURN_IF(check_whole(t, "download", n));
    if (n > EQI_LATE_BYTES) return eqi_tensor_download_part(t, 0, dst, n);
    return t->ctx->backend->download_late(t->ctx, dst, t->v.data, n, ticket);
}

eqat_status eqi_tensor_arrive(eqi_ctx *ctx, uint64_t ticket)
{
    return ticket ? ctx->backend->arrive(ctx, ticket) : EQAT_OK;
}

eqat_status eqi_tensor_floats(const eqi_tensor *t, float **out)
{
    const size_t n = (size_t)eqi_view_count(&t->v) * sizeof **out;
    *out = eqi_alloc(t->ctx, n, "a tensor on the host");
    if (!*out) return EQAT_OUT_OF_MEMORY;
    eqat_status st = eqi_tensor_download(t, *out, n);
    if (st == EQAT_OK) return EQAT_OK;
    eqi_free(t->ctx, *out);
    *out = NULL;
    return st;
}

eqat_status eqi_tensor_cast(const eqi_tensor *t, eqi_dtype dtype, eqi_tensor **out)
{
    EQI_RETURN_IF(eqi_tensor_create(eqi_tensor_ctx(t), out, dtype, t->v.ndim, t->v.shape));
    eqat_status st = eqi_tensor_copy(*out, t);
    if (st != EQAT_OK) {
        eqi_tensor_unref(*out);
        *out = NULL;
    }
    return st;
}

static bool convertible(eqi_dtype to, eqi_dtype from)
{
    if (to == from || (eqi_dtype_is_float(to) && eqi_dtype_is_float(from))) return true;
    eqi_dtype other = to == EQI_F32 ? from : to;
    return (to == EQI_F32 || from == EQI_F32) && (other == EQI_U8 || other == EQI_I32);
}

/* Bytes of a contiguous tensor, one of the two on the host. */
static eqat_status cross(const eqi_tensor *dst, const eqi_tensor *src)
{
    eqi_ctx *ctx = dst->ctx;
    size_t n = bytes_of(src);
    EQI_RETURN_IF(check_part(src, "copy", 0, n));
    EQI_RETURN_IF(check_part(dst, "copy", 0, n));
    if (on_host(dst)) return ctx->backend->download_late(ctx, dst->v.data, src->v.data, n, NULL);
    return ctx->backend->upload_late(ctx, dst->v.data, src->v.data, n);
}

/* Values convert on the device alone. */
static eqat_status copy_across(eqi_tensor *dst, const eqi_tensor *src)
{
    eqi_tensor *from = NULL, *to = NULL;
    eqat_status st;
    bool same = dst->v.dtype == src->v.dtype;
    if (same && on_host(dst) != on_host(src)) return cross(dst, src);
    if (on_host(src)) {
        EQI_GOTO(done, eqi_tensor_create(dst->ctx, &from, src->v.dtype, src->v.ndim, src->v.shape));
        EQI_GOTO(done, cross(from, src));
        src = from;
    }
    if (on_host(dst)) EQI_GOTO(done, eqi_tensor_cast(src, dst->v.dtype, &to));
    st = to ? cross(dst, to) : eqi_tensor_copy(dst, src);
done:
    eqi_tensor_unref(from);
    eqi_tensor_unref(to);
    return st;
}

eqat_status eqi_tensor_copy(eqi_tensor *dst, const eqi_tensor *src)
{
    eqi_ctx *ctx = eqi_tensor_ctx(dst);
    char a[EQI_SHAPE_TEXT], b[EQI_SHAPE_TEXT];
    if (ctx != eqi_tensor_ctx(src))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "copy: the tensors belong to two contexts");
    if (!eqi_view_same_shape(&dst->v, &src->v))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "copy: found %s, expected %s",
                        eqi_view_shape_text(&src->v, a, sizeof a),
                        eqi_view_shape_text(&dst->v, b, sizeof b));
    if (!convertible(dst->v.dtype, src->v.dtype))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "copy: %s does not convert to %s",
                        eqi_dtype_name(src->v.dtype), eqi_dtype_name(dst->v.dtype));
    if (!eqi_view_count(&dst->v)) return EQAT_OK;
    if (on_host(dst) || on_host(src)) return copy_across(dst, src);
    return ctx->backend->copy(ctx, &dst->v, &src->v);
}

static eqat_status move(eqi_tensor *t, bool pinned)
{
    eqi_ctx *ctx = t->ctx;
    eqi_storage *from = t->storage, *to;
    size_t n = bytes_of(t);
    if (ctx->backend->host || from->foreign || from->pinned == pinned) return EQAT_OK;
    EQI_RETURN_IF(check_part(t, "move", 0, n));
    EQI_RETURN_IF((pinned ? eqi_storage_pin : eqi_storage_create)(ctx, &to, n));
    eqat_status st = EQAT_OK;
    if (n && pinned) st = ctx->backend->download_late(ctx, to->data, t->v.data, n, NULL);
    if (n && !pinned) st = ctx->backend->upload_late(ctx, to->data, t->v.data, n);
    if (st == EQAT_OK) {
        t->storage = to;
        t->v.data = to->data;
    }
    eqi_storage_unref(st == EQAT_OK ? from : to);
    return st;
}

eqat_status eqi_tensor_to_host(eqi_tensor *t) { return move(t, true); }
eqat_status eqi_tensor_to_device(eqi_tensor *t) { return move(t, false); }
