/* Strided tensors over reference-counted storage. Public code knows the struct as the opaque
 * eqat_tensor. */
#ifndef EQI_TENSOR_TENSOR_H
#define EQI_TENSOR_TENSOR_H

#include "base/context.h"

#define EQI_MAX_DIMS 4

/* Values equal those of eqat_dtype. */
typedef enum eqi_dtype {
    EQI_F32 = 0,
    EQI_BF16 = 1,
    EQI_F16 = 2, /* storage of weights only; no op computes in it */
    EQI_F64 = 3, /* the reference kernels only: finite differences */
    EQI_I32 = 4, /* token ids, positions, labels */
    EQI_U8 = 5,  /* frozen zero points */
    EQI_U32 = 6, /* packed codes */
    EQI_DTYPE_COUNT
} eqi_dtype;

size_t eqi_dtype_size(eqi_dtype dtype);
const char *eqi_dtype_name(eqi_dtype dtype); /* "f32" */
bool eqi_dtype_is_float(eqi_dtype dtype);

struct eqi_storage {
    eqi_ctx *ctx; /* counted, except while recycled */
    int refs; /* one handle belongs to one thread at a time, and so do the tensors that share it */
    size_t size;
    void *data;
    bool foreign; /* memory of the caller's; deleter may be NULL */
    void (*deleter)(void *user, void *data);
    void *user;
    eqi_storage *next; /* in ctx->recycled */
};

/* Freed storages wait in the context for a request of the same size: the steps of a training loop
 * repeat their sizes, and fresh pages cost more than the arithmetic on small models. */
eqat_status eqi_storage_create(eqi_ctx *ctx, eqi_storage **out, size_t size);
void eqi_storage_unref(eqi_storage *storage);
void eqi_storage_trim(eqi_ctx *ctx); /* gives recycled storages back to the allocator */

/* What kernels see. Strides in elements. */
typedef struct eqi_view {
    void *data;
    eqi_dtype dtype;
    int ndim;
    int64_t shape[EQI_MAX_DIMS];
    int64_t stride[EQI_MAX_DIMS];
} eqi_view;

typedef struct eqat_tensor eqi_tensor;
struct eqat_tensor {
    eqi_view v;
    eqi_ctx *ctx; /* counted */
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

/* Views share storage and start without gradient. */
eqat_status eqi_tensor_reshape(eqi_tensor *t, eqi_tensor **out, int ndim,
                               const int64_t *shape); /* t contiguous */
eqat_status eqi_tensor_slice(eqi_tensor *t, eqi_tensor **out, int dim, int64_t start,
                             int64_t length);
eqat_status eqi_tensor_transpose(eqi_tensor *t, eqi_tensor **out, int a, int b); /* swaps them */

int64_t eqi_view_count(const eqi_view *v);
bool eqi_view_is_contiguous(const eqi_view *v);
bool eqi_view_same_shape(const eqi_view *a, const eqi_view *b);
int64_t eqi_view_rows(const eqi_view *v); /* product of all but the last dimension */
/* "[2, 3, 4]" into a buffer of the caller's; returns buffer. */
const char *eqi_view_shape_text(const eqi_view *v, char *buffer, size_t size);
#define EQI_SHAPE_TEXT 96

/* Host transfers, contiguous tensors; n is the exact byte size. On a GPU these are ordered on its
 * stream, and download waits. */
eqat_status eqi_tensor_upload(eqi_tensor *t, const void *src, size_t n);
eqat_status eqi_tensor_download(const eqi_tensor *t, void *dst, size_t n);
/* The same for bytes [offset, offset + n) of t. */
eqat_status eqi_tensor_upload_part(eqi_tensor *t, size_t offset, const void *src, size_t n);
eqat_status eqi_tensor_download_part(const eqi_tensor *t, size_t offset, void *dst, size_t n);
eqat_status eqi_tensor_fill(eqi_tensor *t, double value);
/* A contiguous copy, also for the same dtype. */
eqat_status eqi_tensor_cast(const eqi_tensor *t, eqi_dtype dtype, eqi_tensor **out);
eqat_status eqi_tensor_copy(eqi_tensor *dst, const eqi_tensor *src); /* converts; same shape */

#endif
