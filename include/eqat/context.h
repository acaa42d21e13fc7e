/** @file
 * libeqat: the context, in which everything else lives.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_CONTEXT_H
#define EQAT_CONTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "eqat/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A context owns a compute device, a thread pool, an allocator, a log and a seed.
 *
 * Threads: a context and all handles made from it are used by one thread at a time; different
 * contexts are independent, also on one device.  A call that returns a status takes the context's
 * turn: another thread's call waits until it has returned, so a callback must not wait for another
 * thread that calls the same context.  Functions that only look at a handle take no turn.  Any
 * thread may at any time call eqat_context_cancel(), eqat_context_reset_cancel() and every
 * eqat_..._free(): while another thread's call is running, the handle goes when that call returns,
 * and free does not wait for it. Ownership: every handle holds a reference on its context, so
 * handles may be freed in any order; the context disappears with the last of them. Fork: a child
 * may use and free what it inherits, as long as no call was running in the parent; the pool starts
 * anew there. A Block-AP job with offload_dir it may only free, and so everything on a device
 * "cuda:N", which computes for the parent alone: calls there are EQAT_BACKEND. Process: the library
 * never prints, exits, aborts, or changes signal handlers, locale or the OpenMP settings of the
 * calling thread.  Rounding mode, flush-to-zero and traps of the calling thread change no result: a
 * call runs, callbacks included, under the default floating-point control and gives the thread's
 * own back. AMX: on a processor that has it, creating a context on device "cpu" asks Linux for the
 * state of the matrix registers (arch_prctl ARCH_REQ_XCOMP_PERM), which is for the whole process
 * and for good. A signal frame then takes about 11 KiB: sigaltstack() refuses stacks smaller than
 * that, and Linux refuses the permission (no AMX then) while a thread has one.  The option `amx`
 * leaves it alone.
 *
 * CUDA: device "cuda:N" is opened by a library of its own, libeqat-cuda.so.0 of the same version,
 * which is looked for where the loader looks (LD_LIBRARY_PATH, ld.so.conf), then in the folder of
 * libeqat (of the program, where libeqat is linked into it), and stays loaded to the end of the
 * process.  Tensors are then in the device's memory.  What is asked for runs in order on one
 * stream: `stream`, or one of the context's own that waits for no other.  A call may return while
 * the device still computes; what moves values to the host (eqat_tensor_read(), a loss, a
 * validation) waits for it, and also tells of what went wrong in between: EQAT_INVALID_ARGUMENT of
 * an id, label or position out of range, EQAT_BACKEND when the device failed.  After a fault of the
 * device every call on the context says so.  A call leaves device N the calling thread's current
 * one.
 *
 * NULL where an argument is needed is EQAT_INVALID_ARGUMENT naming it; a function that returns no
 * status then does nothing and returns 0, NULL or false. */
typedef struct eqat_context eqat_context;

/** Severity of a log line. */
typedef enum eqat_log_level {
    EQAT_LOG_ERROR = 0,
    EQAT_LOG_WARN = 1,
    EQAT_LOG_INFO = 2,
    EQAT_LOG_DEBUG = 3
} eqat_log_level;

/** One finished line without a newline, valid during the call.  Called on the thread that uses the
 * context. */
typedef void (*eqat_log_fn)(void *user, int32_t level, const char *line);

/** Returns `size` bytes aligned to `align` (a power of two, at most 64), or NULL.  Called on the
 * thread that uses the context.  When NULL is returned the running call fails with
 * EQAT_OUT_OF_MEMORY and everything stays usable. */
typedef void *(*eqat_alloc_fn)(void *user, size_t size, size_t align);
/** size is the one that alloc was asked for.  Also called on a thread that frees a handle. */
typedef void (*eqat_free_fn)(void *user, void *p, size_t size);

/** The caller's thread pool: calls task(arg, index) once for every index in [0, count), on any
 * threads, in any order and at the same time or not, and returns when all have returned.  Called on
 * the thread that uses the context; task calls nothing of the caller's. */
typedef void (*eqat_parallel_fn)(void *user, size_t count, void (*task)(void *arg, size_t index),
                                 void *arg);

/** What a context is made with. */
typedef struct eqat_context_options {
    size_t struct_size;  /**< sizeof the caller's struct; set by eqat_context_options_init */
    const char *device;  /**< "cpu" (default), "ref" (plain C, slow, for comparison), "cuda:N": the
                            CUDA device N, from 0; "cuda" is "cuda:0" */
    int32_t threads;     /**< 0 (default): one per processor available to the process; at most 1024.
                            No result depends on it */
    int32_t log_level;   /**< lines above this level are dropped; default EQAT_LOG_INFO */
    uint64_t seed;       /**< all randomness is a pure function of it; default 0 */
    eqat_log_fn log;     /**< NULL (default): no log */
    void *log_user;      /**< handed to log */
    eqat_alloc_fn alloc; /**< NULL (default): the C library's; alloc and free are given together */
    eqat_free_fn free;   /**< NULL (default): the C library's */
    void *alloc_user;    /**< handed to alloc and free */
    eqat_parallel_fn parallel; /**< NULL (default): the context starts `threads` - 1 threads of its
                                  own; else it starts none and hands over `threads` tasks at most */
    void *parallel_user;       /**< handed to parallel */
    bool amx; /**< default true; false: the library does not use AMX, nor does it ask for it. oneDNN
                 then leaves it alone too, in the whole process, if this is its first use there */
    uint8_t reserved[7]; /**< 0 */
    void *stream; /**< "cuda:N": a cudaStream_t of that device, on which the context works in order
                     with what the caller puts there.  It stays the caller's and is not destroyed;
                     it outlives every handle of the context, and captures nothing while a call
                     runs.  NULL (default): one of the context's own.  The default stream is
                     cudaStreamLegacy here.  On other devices NULL alone is valid */
    uint64_t device_memory; /**< "cuda:N": the most bytes of the device that tensors, cached ones
                               among them, and scratch of the kernels take at a time, else
                               EQAT_OUT_OF_MEMORY; what CUDA and cuBLAS take for themselves comes on
                               top.  0 (default): as much as there is.  On other devices 0 alone is
                               valid; an allocator of the caller's can set a bound there */
} eqat_context_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_context_options_init(eqat_context_options *options, size_t struct_size);

/** Creates a context.  options may be NULL: all defaults.  When it fails, *out is NULL and `error`,
 * if not NULL, receives one line of at most error_size - 1 bytes. Errors: EQAT_INVALID_ARGUMENT
 * (an option; a device that is none; alloc without free), EQAT_UNSUPPORTED (no such device in this
 * build or machine, no libeqat-cuda.so.0, no driver for it; another major version of oneDNN in the
 * process), EQAT_BACKEND (a thread cannot start; a libeqat-cuda.so.0 that is none or of another
 * version), EQAT_OUT_OF_MEMORY (of the device, too). */
EQAT_API eqat_status eqat_context_create(eqat_context **out, const eqat_context_options *options,
                                         char *error, size_t error_size);

/** Gives up the caller's reference.  NULL is fine. */
EQAT_API void eqat_context_free(eqat_context *context);

/** The line that the last failing call on this context left; "" when none failed.  Borrowed; valid
 * until the next call. */
EQAT_API const char *eqat_context_error(const eqat_context *context);

/** Bytes of the host that the context holds: what its allocator has given out and not taken back,
 * cached tensor memory among it, and with "cuda:N" what is pinned for copies, which does not come
 * from the allocator. */
EQAT_API size_t eqat_context_bytes(const eqat_context *context);
/** The most that eqat_context_bytes() has been since creation or the last reset. */
EQAT_API size_t eqat_context_bytes_peak(const eqat_context *context);
/** Bytes of the device that the context holds: tensors, cached ones among them, and scratch of the
 * kernels.  Where tensors are in the host's memory, that is eqat_context_bytes(). */
EQAT_API size_t eqat_context_device_bytes(const eqat_context *context);
/** The most that eqat_context_device_bytes() has been since creation or the last reset. */
EQAT_API size_t eqat_context_device_bytes_peak(const eqat_context *context);
/** Bytes that the device, or the option device_memory, has left for the context, cached tensors not
 * among them.  SIZE_MAX: not known, as where tensors are in the host's memory. */
EQAT_API size_t eqat_context_device_bytes_left(const eqat_context *context);
/** Makes what is given out now the peak, on the host and on the device. */
EQAT_API void eqat_context_reset_peak(eqat_context *context);

/** Gives cached tensor memory back to the allocator, or to the device. */
EQAT_API void eqat_context_trim(eqat_context *context);

/** Threads in the pool. */
EQAT_API int32_t eqat_context_threads(const eqat_context *context);

/** Asks the running (or, if none runs, the next) long call of this context to stop with
 * EQAT_CANCELLED at once, in the middle of a matrix product or an attention too, leaving
 * everything consistent; single ops on a tape do so as well.  Async-signal-safe; any thread.
 */
EQAT_API void eqat_context_cancel(eqat_context *context);
/** Takes back a request that no call has answered yet.  Async-signal-safe; any thread. */
EQAT_API void eqat_context_reset_cancel(eqat_context *context);

/** Major version of the headers; eqat_version() is that of the library in the process. */
#define EQAT_VERSION_MAJOR 0
/** Minor version of the headers. */
#define EQAT_VERSION_MINOR 1
/** Patch level of the headers. */
#define EQAT_VERSION_PATCH 0

/** Version of the library as "major.minor.patch"; static storage; any thread. */
EQAT_API const char *eqat_version(void);

#ifdef __cplusplus
}
#endif
#endif
