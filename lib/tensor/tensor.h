/* Strided tensors over reference-counted storage. Public code knows the struct as the opaque
 * eqat_tensor. */
#ifndef EQI_TENSOR_TENSOR_H
#define EQI_TENSOR_TENSOR_H

#include "base/entry.h"
#include "tensor/storage.h"
#include "tensor/view.h"

typedef struct eqat_tensor eqi_tensor;
struct eqat_tensor {
    eqi_view v;
    eqi_ctx *ctx; /* counted */
    eqi_handle handle;
    int refs;
    int idle; /* of refs: the tape's, where backward needs no data */
    int uses; /* of a leaf: places on tapes from which backward will reach its gradient */
    eqi_storage *storage; /* NULL and v.data NULL once all refs are idle */
    bool requires_grad;
    bool on_tape;     /* output of a recorded op: its gradient is transient */
    eqi_tensor *grad; /* same shape, contiguous; f32 for leaves, v.dtype for tape outputs */
};

static inline eqi_ctx *eqi_tensor_ctx(const eqi_tensor *t) { return t->ctx; }
/* For optional tensors: a kernel takes NULL for what is absent. */
static inline const eqi_view *eqi_opt(const eqi_tensor *t) { return t ? &t->v : NULL; }

/* Uninitialised, contiguous. Dimensions are >= 0 and their product fits. */
eqat_status eqi_tensor_create(eqi_ctx *ctx, eqi_tensor **out, eqi_dtype dtype, int ndim,
                              const int64_t *shape);
eqat_status eqi_tensor_zeros(eqi_ctx *ctx, eqi_tensor **out, eqi_dtype dtype, int ndim,
                             const int64_t *shape);
/* Memory of the caller's: stride NULL means contiguous; deleter (may be NULL) runs when the last
 * view is gone. */
eqat_status eqi_tensor_wrap(eqi_ctx *ctx, eqi_tensor **out, eqi_dtype dtype, int ndim,
                            const int64_t *shape, const int64_t *stride, void *data, size_t size,
                            void (*deleter)(void *, void *), void *user);
eqi_tensor *eqi_tensor_ref(eqi_tensor *t);
void eqi_tensor_unref(eqi_tensor *t); /* NULL is fine */
/* For those who need shape, dtype and gradient of t, and no data: memory goes when nobody else is
 * left. Given up with eqi_tensor_unref_idle. */
eqi_tensor *eqi_tensor_ref_idle(eqi_tensor *t);
void eqi_tensor_unref_idle(eqi_tensor *t);

/* ---- tensors on the host: values that wait to be needed, where a device has memory of its own.
 * Uploads, downloads, copies, casts and views of them work; no op takes them. Elsewhere every
 * tensor is as good as on both, and nothing moves. ---- */
eqat_status eqi_tensor_create_on_host(eqi_ctx *ctx, eqi_tensor **out, eqi_dtype dtype, int ndim,
                                      const int64_t *shape);
/* Moves t, contiguous, in the order of the stream; nobody waits. Views of t, and memory of the
 * caller's, stay where they are. */
eqat_status eqi_tensor_to_host(eqi_tensor *t);
eqat_status eqi_tensor_to_device(eqi_tensor *t);

/* Views share storage and start without gradient. */
eqat_status eqi_tensor_reshape(eqi_tensor *t, eqi_tensor **out, int ndim,
                               const int64_t *shape); /* t contiguous */
eqat_status eqi_tensor_slice(eqi_tensor *t, eqi_tensor **out, int dim, int64_t start,
                             int64_t length);
eqat_status eqi_tensor_transpose(eqi_tensor *t, eqi_tensor **out, int a, int b); /* swaps them */

/* Host transfers, contiguous tensors; n is the exact byte size. On a GPU these are ordered on its
 * stream, and download waits. */
eqat_status eqi_tensor_upload(eqi_tensor *t, const void *src, size_t n);
eqat_status eqi_tensor_download(const eqi_tensor *t, void *dst, size_t n);
/* A download of a few numbers that are wanted later, as they are now, without a wait for them: dst
 * is filled when arrive has returned, which is to come before EQI_LATE_COUNT more of these. */
eqat_status eqi_tensor_download_late(const eqi_tensor *t, void *dst, size_t n, uint64_t *ticket);
eqat_status eqi_tensor_arrive(eqi_ctx *ctx, uint64_t ticket);
/* F32 of any count, new, to go with eqi_free; NULL after a failure. */
eqat_status eqi_tensor_floats(const eqi_tensor *t, float **out);
/* The same for bytes [offset, offset + n) of t. */
eqat_status eqi_tensor_upload_part(eqi_tensor *t, size_t offset, const void *src, size_t n);
eqat_status eqi_tensor_download_part(const eqi_tensor *t, size_t offset, void *dst, size_t n);
eqat_status eqi_tensor_fill(eqi_tensor *t, double value);
/* A contiguous copy on the device, also for the same dtype. */
eqat_status eqi_tensor_cast(const eqi_tensor *t, eqi_dtype dtype, eqi_tensor **out);
eqat_status eqi_tensor_copy(eqi_tensor *dst, const eqi_tensor *src); /* converts; same shape */

#endif
