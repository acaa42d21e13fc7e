/* What stands at the start of a public function: the context's turn, the floating-point control,
 * arguments that are there. And what stands behind eqat_..._free, which any thread may call. */
#ifndef EQI_BASE_ENTRY_H
#define EQI_BASE_ENTRY_H

#include "base/context.h"
#include "base/fpenv.h"

typedef struct eqi_entry {
    eqi_ctx *ctx; /* counted */
    eqi_fpenv fpenv;
} eqi_entry;

/* Waits for the context's turn, which its thread may take again, and sets the default
 * floating-point control. */
eqi_entry eqi_enter(eqi_ctx *ctx);
/* Gives both back. The outermost entry first frees what other threads have let go of meanwhile. */
void eqi_leave(eqi_entry *entry);

/* To the end of the function. */
#define EQI_GUARD(ctx) \
    eqi_entry eqi_entry_ __attribute__((cleanup(eqi_leave), unused)) = eqi_enter(ctx)
/* The same in a function that returns a status, for a context, and for a handle that may be NULL.
 */
#define EQI_ENTER(ctx)                        \
    if (!(ctx)) return EQAT_INVALID_ARGUMENT; \
    EQI_GUARD(ctx)
#define EQI_ENTER_OF(handle)                     \
    if (!(handle)) return EQAT_INVALID_ARGUMENT; \
    EQI_GUARD((handle)->ctx)

/* Leaves with EQAT_INVALID_ARGUMENT naming the first of the pointers that is NULL. */
#define EQI_NEED(ctx, ...)                                                        \
    EQI_RETURN_IF(eqi_need(ctx, #__VA_ARGS__, (const void *const[]){__VA_ARGS__}, \
                           sizeof((const void *const[]){__VA_ARGS__}) / sizeof(const void *)))
/* names: "a, b" */
eqat_status eqi_need(eqi_ctx *ctx, const char *names, const void *const *pointers, size_t n);

/* Part of everything that has an eqat_..._free; starts as zeros. */
typedef struct eqi_handle {
    struct eqi_handle *next; /* in ctx->parted */
    atomic_int owed;         /* references that other threads have given up */
    void (*unref)(void *owner);
    void *owner;
} eqi_handle;

/* Gives up one reference of `owner`: now when no other thread is at the context's turn, else when
 * that turn ends. Never waits, never fails. */
void eqi_handle_free(eqi_ctx *ctx, eqi_handle *handle, void (*unref)(void *owner), void *owner);

#endif
