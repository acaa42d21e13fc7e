/** @file
 * libeqat: tensors.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_TENSOR_H
#define EQAT_TENSOR_H

#include "eqat/context.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A strided array of at most 4 dimensions on the context's device.
 *
 * Ownership: counted references.  What a function stores in *out is one reference of the caller's,
 * which eqat_tensor_free() gives up; the memory, which views share, goes with the last tensor that
 * uses it.  Tensors that getters return (a gradient, a parameter of a model) are borrowed from
 * their owner: whoever keeps one longer takes a reference.  A tensor holds a reference on its
 * context. Order: row-major unless strides say otherwise; the last dimension moves fastest.  A
 * dimension may be 0; ops on the tape refuse such tensors, everything here takes them.  Threads: as
 * the context; eqat_tensor_free may be called from any thread, and so may the getters while nobody
 * changes the tensor. */
typedef struct eqat_tensor eqat_tensor;

/** Most dimensions of a tensor. */
#define EQAT_MAX_DIMS 4

/** Types of elements, all little-endian. */
typedef enum eqat_dtype {
    EQAT_F32 = 0,  /**< activations, masters of weights, scales, gradients, losses */
    EQAT_BF16 = 1, /**< activations; upper half of F32 */
    EQAT_F16 = 2,  /**< storage of weights only: no activations, nothing that trains */
    EQAT_F64 = 3,  /**< device "ref" only, where all floats of a call are F64 or none */
    EQAT_I32 = 4,  /**< token ids, positions, labels, segments, numbers of rows */
    EQAT_U8 = 5,   /**< frozen zero points */
    EQAT_U32 = 6   /**< packed codes */
} eqat_dtype;

/** Bytes of one element; 0 for an unknown dtype.  Any thread. */
EQAT_API size_t eqat_dtype_size(eqat_dtype dtype);
/** "f32", "bf16", ...; "unknown dtype" for others.  Static storage; any thread. */
EQAT_API const char *eqat_dtype_name(eqat_dtype dtype);

/** Creates a contiguous tensor of shape[0] x ... x shape[ndim - 1] elements, ndim from 1 to
 * EQAT_MAX_DIMS, sizes from 0.  data, when not NULL, is host memory of exactly the tensor's bytes
 * and is copied in before the call returns; NULL leaves zeros.  Memory is aligned to 64 bytes.
 * Errors: EQAT_INVALID_ARGUMENT (an unknown dtype; ndim; a size below 0, or sizes that multiply to
 * more than memory can hold), EQAT_UNSUPPORTED (F64 on another device than "ref"),
 * EQAT_OUT_OF_MEMORY. */
EQAT_API eqat_status eqat_tensor_create(eqat_context *context, eqat_tensor **out, eqat_dtype dtype,
                                        int32_t ndim, const int64_t *shape, const void *data);

/** Wraps memory of the caller's on the context's device without copying: on "cuda:N" memory of that
 * device or managed memory, else the host's.  What other streams still do with it is the caller's
 * to wait for.  stride (in elements, from 0; NULL: contiguous) and shape reach over at most `bytes`
 * bytes from data, which is aligned to the size of an element.  The memory stays the caller's and
 * is read and written by what uses the tensor; release(user, data), when not NULL, runs once, when
 * the last tensor over it goes and the device is through with what was asked for, on the thread
 * that frees it or, where another thread's call was running, on that one.  After a failure release
 * does not run.  Errors: those of eqat_tensor_create, EQAT_INVALID_ARGUMENT (a stride below 0;
 * fewer bytes than shape and strides reach; no memory; alignment; memory that the device does not
 * reach). */
EQAT_API eqat_status eqat_tensor_wrap(eqat_context *context, eqat_tensor **out, eqat_dtype dtype,
                                      int32_t ndim, const int64_t *shape, const int64_t *stride,
                                      void *data, size_t bytes,
                                      void (*release)(void *user, void *data), void *user);

/** One more reference on the tensor, not on a copy; returns its argument. */
EQAT_API eqat_tensor *eqat_tensor_ref(eqat_tensor *tensor);
/** Gives one reference up; the tensor's gradient goes with the last one.  NULL is fine; any thread.
 */
EQAT_API void eqat_tensor_free(eqat_tensor *tensor);

/** Type of the elements; EQAT_F32 of NULL. */
EQAT_API eqat_dtype eqat_tensor_dtype(const eqat_tensor *tensor);
/** Number of dimensions, 1 to EQAT_MAX_DIMS. */
EQAT_API int32_t eqat_tensor_ndim(const eqat_tensor *tensor);
/** Entries of dimension `dim` (0-based); 0 when out of range. */
EQAT_API int64_t eqat_tensor_size(const eqat_tensor *tensor, int32_t dim);
/** Elements from one entry of dimension `dim` (0-based) to the next; 0 when out of range. */
EQAT_API int64_t eqat_tensor_stride(const eqat_tensor *tensor, int32_t dim);
/** Number of elements: the product of all sizes. */
EQAT_API int64_t eqat_tensor_count(const eqat_tensor *tensor);
/** First element in device memory; borrowed, valid as long as the tensor; elements lie as the
 * strides say.  On "cpu" and "ref" it may be read and written directly, between calls on the
 * context.  On "cuda:N" it is a pointer of that device, for kernels and copies of the caller's on
 * the stream that the context was given; where it has one of its own, eqat_tensor_read() of any of
 * its tensors waits for what was asked for before. */
EQAT_API void *eqat_tensor_data(eqat_tensor *tensor);

/** A view of the same memory in another shape with as many elements.  Not recorded on any tape:
 * gradients do not pass through it (eqat_op_reshape).  Errors: EQAT_INVALID_ARGUMENT (ndim; another
 * number of elements; a tensor that is not contiguous). */
EQAT_API eqat_status eqat_tensor_reshape(eqat_tensor *tensor, int32_t ndim, const int64_t *shape,
                                         eqat_tensor **out);
/** A view of entries [start, start + length) of dimension dim (0-based), with the tensor's strides;
 * length may be 0.  Not recorded on any tape (eqat_op_slice).  Errors: EQAT_INVALID_ARGUMENT (no
 * such dimension, or entries). */
EQAT_API eqat_status eqat_tensor_slice(eqat_tensor *tensor, int32_t dim, int64_t start,
                                       int64_t length, eqat_tensor **out);

/** Copies `bytes` bytes of host memory into the tensor, in its order; src may be changed when the
 * call has returned.  Errors: EQAT_INVALID_ARGUMENT (the tensor is not contiguous, or bytes is not
 * its exact size). */
EQAT_API eqat_status eqat_tensor_write(eqat_tensor *tensor, const void *src, size_t bytes);
/** Copies the tensor to host memory; waits for what the device still computes.  Errors: those of
 * eqat_tensor_write. */
EQAT_API eqat_status eqat_tensor_read(const eqat_tensor *tensor, void *dst, size_t bytes);
/** Sets every element, whatever the strides, to value in the tensor's dtype.  Errors: none of its
 * own. */
EQAT_API eqat_status eqat_tensor_fill(eqat_tensor *tensor, double value);
/** Copies elements, whatever the strides of both, with conversion: floats among each other and F32
 * to and from U8 and I32, to nearest even; out of range becomes the nearest value of U8 or I32.
 * Memory of the two must not overlap.  Errors: EQAT_INVALID_ARGUMENT (another shape; dtypes that do
 * not convert; two contexts). */
EQAT_API eqat_status eqat_tensor_copy(eqat_tensor *dst, const eqat_tensor *src);

/** Marks a leaf (F32, or F64 on "ref") as trainable or takes the mark off: ops that use a trainable
 * tensor are recorded, and backward fills its gradient.  A gradient that is there stays.  Errors:
 * EQAT_INVALID_ARGUMENT (another dtype; the output of a recorded op, which is no leaf). */
EQAT_API eqat_status eqat_tensor_set_requires_grad(eqat_tensor *tensor, bool requires_grad);
/** Whether gradients reach the tensor: a leaf that is marked, or the output of an op that a tape
 * holds. */
EQAT_API bool eqat_tensor_requires_grad(const eqat_tensor *tensor);
/** The gradient accumulated by all backward passes since it was last cleared: contiguous, of the
 * tensor's shape, F32 (F64 of F64).  Borrowed until it is cleared, by eqat_tensor_zero_grad, an
 * optimizer's step or the end of the tensor; the caller may change its values.  NULL when there is
 * none. */
EQAT_API eqat_tensor *eqat_tensor_grad(eqat_tensor *tensor);
/** Drops the gradient; NULL is fine. */
EQAT_API void eqat_tensor_zero_grad(eqat_tensor *tensor);

#ifdef __cplusplus
}
#endif
#endif
