/** @file
 * libeqat: result codes.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_STATUS_H
#define EQAT_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/** Marks what the shared library exports.  Everything else is hidden. */
#if defined(_WIN32)
#define EQAT_API
#else
#define EQAT_API __attribute__((visibility("default")))
#endif

/** Result of every fallible call.  Values are fixed for the life of the ABI.
 * When a call that was handed a context (directly or through a handle that
 * belongs to one) returns anything but EQAT_OK, eqat_context_error() holds one
 * line that names the file, tensor or option at fault, what was found and what
 * was expected.
 *
 * "Errors:" in the comment of a function names what it may return.  Common to all, and not repeated
 * there, are EQAT_INVALID_ARGUMENT for NULL where something is needed and for a number in a struct
 * outside its bounds, EQAT_UNSUPPORTED for bytes of a struct that this library does not know
 * (eqat/options.h), EQAT_OUT_OF_MEMORY, and EQAT_BACKEND; "none of its own" means these alone.  A
 * status of a callback is returned as it is.  All handles of a call belong to one context.  Handles
 * that a function gives back through a pointer are NULL after every failure. */
typedef enum eqat_status {
    EQAT_OK = 0,
    EQAT_INVALID_ARGUMENT = 1, /**< an option, shape or handle is outside its documented range */
    EQAT_OUT_OF_MEMORY = 2,    /**< the context's allocator returned NULL */
    EQAT_IO = 3,               /**< the operating system refused a file operation */
    EQAT_FORMAT = 4,           /**< a file is damaged, or not what its name says */
    EQAT_UNSUPPORTED = 5, /**< valid, but not implemented: an architecture, a bit width, a device */
    EQAT_NOT_FOUND = 6,   /**< a named tensor, option or file does not exist */
    EQAT_EXISTS = 7,      /**< an output would overwrite something */
    EQAT_NUMERIC = 8,     /**< a value is not finite */
    EQAT_CANCELLED =
        9,            /**< eqat_context_cancel() was called, or a progress callback asked to stop */
    EQAT_BACKEND = 10 /**< the compute backend or a library under it failed */
} eqat_status;

/** The constant's name without its prefix in lower case ("out of memory");
 * "unknown status" for other values.  Static storage; any thread. */
EQAT_API const char *eqat_status_name(eqat_status status);

#ifdef __cplusplus
}
#endif
#endif
