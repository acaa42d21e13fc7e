/** @file
 * libeqat: tensors.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_TENSOR_H
#define EQAT_TENSOR_H

#include "eqat/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A strided array of at most 4 dimensions on the context's device.  Reference-counted; views share
 * storage. Threads: as the context. */
typedef struct eqat_tensor eqat_tensor;

#define EQAT_MAX_DIMS 4

typedef enum eqat_dtype {
    EQAT_F32 = 0,
    EQAT_BF16 = 1,
    EQAT_F16 = 2, /**< storage of weights only */
    EQAT_F64 = 3, /**< device "ref" only */
    EQAT_I32 = 4, /**< token ids, positions, labels */
    EQAT_U8 = 5,  /**< frozen zero points */
    EQAT_U32 = 6  /**< packed codes */
} eqat_dtype;

/** Bytes of one element; 0 for an unknown dtype.  Any thread. */
EQAT_API size_t eqat_dtype_size(eqat_dtype dtype);
/** "f32", "bf16", ...; any thread. */
EQAT_API const char *eqat_dtype_name(eqat_dtype dtype);

/** Creates a contiguous tensor; shape has ndim >= 1 entries >= 0.  data, when not NULL, is host
 * memory of exactly the tensor's bytes and is copied in; NULL leaves zeros. */
EQAT_API eqat_status eqat_tensor_create(eqat_context *context, eqat_tensor **out, eqat_dtype dtype,
                                        int32_t ndim, const int64_t *shape, const void *data);

/** Wraps device memory of the caller's without copying.  stride (in elements; NULL: contiguous) and
 * shape describe at most `bytes` bytes from data.  release(user, data), when not NULL, runs once,
 * when the last tensor that uses the memory goes. */
EQAT_API eqat_status eqat_tensor_wrap(eqat_context *context, eqat_tensor **out, eqat_dtype dtype,
                                      int32_t ndim, const int64_t *shape, const int64_t *stride,
                                      void *data, size_t bytes,
                                      void (*release)(void *user, void *data), void *user);

/** One more reference; returns its argument.  Every reference is given up with eqat_tensor_free
 * (NULL is fine). */
EQAT_API eqat_tensor *eqat_tensor_ref(eqat_tensor *tensor);
EQAT_API void eqat_tensor_free(eqat_tensor *tensor);

EQAT_API eqat_dtype eqat_tensor_dtype(const eqat_tensor *tensor);
EQAT_API int32_t eqat_tensor_ndim(const eqat_tensor *tensor);
/** Entries of dimension `dim` (0-based); 0 when out of range. */
EQAT_API int64_t eqat_tensor_size(const eqat_tensor *tensor, int32_t dim);
EQAT_API int64_t eqat_tensor_stride(const eqat_tensor *tensor, int32_t dim);
/** Number of elements. */
EQAT_API int64_t eqat_tensor_count(const eqat_tensor *tensor);
/** First element in device memory; borrowed, valid as long as the tensor.  On the CPU it may be
 * read and written directly. */
EQAT_API void *eqat_tensor_data(eqat_tensor *tensor);

/** Views.  Reshape needs a contiguous tensor and the same count; slice takes [start, start +
 * length) of one dimension. */
EQAT_API eqat_status eqat_tensor_reshape(eqat_tensor *tensor, int32_t ndim, const int64_t *shape,
                                         eqat_tensor **out);
EQAT_API eqat_status eqat_tensor_slice(eqat_tensor *tensor, int32_t dim, int64_t start,
                                       int64_t length, eqat_tensor **out);

/** Copies between host and device; the tensor is contiguous and bytes is its exact size. */
EQAT_API eqat_status eqat_tensor_write(eqat_tensor *tensor, const void *src, size_t bytes);
EQAT_API eqat_status eqat_tensor_read(const eqat_tensor *tensor, void *dst, size_t bytes);
EQAT_API eqat_status eqat_tensor_fill(eqat_tensor *tensor, double value);
/** Copies elements with conversion (round to nearest even); same shape. */
EQAT_API eqat_status eqat_tensor_copy(eqat_tensor *dst, const eqat_tensor *src);

/** Marks a leaf (f32, or f64 on "ref") as trainable: ops that use it are recorded and backward
 * fills its gradient. */
EQAT_API eqat_status eqat_tensor_set_requires_grad(eqat_tensor *tensor, bool requires_grad);
EQAT_API bool eqat_tensor_requires_grad(const eqat_tensor *tensor);
/** The accumulated gradient, of the tensor's shape; borrowed until it is cleared.  NULL when none
 * was computed since. */
EQAT_API eqat_tensor *eqat_tensor_grad(eqat_tensor *tensor);
EQAT_API void eqat_tensor_zero_grad(eqat_tensor *tensor);

#ifdef __cplusplus
}
#endif
#endif
