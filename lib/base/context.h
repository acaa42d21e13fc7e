/* What every part of the engine needs: memory, errors, log, seed, and places for what the rooms
 * above keep. Public code knows this struct as the opaque eqat_context; engine/engine.h makes one
 * that computes. */
#ifndef EQI_BASE_CONTEXT_H
#define EQI_BASE_CONTEXT_H

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "eqat/status.h"

#define EQI_ALIGN 64
#define EQI_ERROR_MAX 1024

#if defined(__GNUC__)
#define EQI_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define EQI_PRINTF(f, a)
#endif

/* Leave the function with a failure; only where nothing has to be released. */
#define EQI_RETURN_IF(expr)                             \
    do {                                                \
        eqat_status eqi_status_ = (expr);               \
        if (eqi_status_ != EQAT_OK) return eqi_status_; \
    } while (0)

/* Leave for the cleanup label with a failure in `st`, which the function declares. */
#define EQI_GOTO(label, expr)          \
    do {                               \
        st = (expr);                   \
        if (st != EQAT_OK) goto label; \
    } while (0)

#define EQI_COUNT(a) (sizeof(a) / sizeof((a)[0]))

typedef struct eqat_context eqi_ctx;
typedef struct eqi_pool eqi_pool;
typedef struct eqi_backend eqi_backend;
typedef struct eqi_storage eqi_storage;

typedef struct eqi_allocator {
    void *(*alloc)(void *user, size_t size, size_t align); /* NULL: posix_memalign */
    void (*free)(void *user, void *p, size_t size);        /* the size that was asked for */
    void *user;
} eqi_allocator;

typedef enum eqi_log_level {
    EQI_LOG_ERROR = 0,
    EQI_LOG_WARN,
    EQI_LOG_INFO,
    EQI_LOG_DEBUG
} eqi_log_level;
typedef void (*eqi_log_fn)(void *user, int level, const char *line);

struct eqat_context {
    const struct eqi_services *services; /* these four are an eqi_seat of backend/table.h */
    void *backend_state;
    void *stream;
    uint64_t device_memory;

    atomic_int refs;
    atomic_int cancelled;
    pthread_mutex_t turn;                /* of base/entry.h, recursive */
    int depth;                           /* entries of the thread that holds it */
    _Atomic(struct eqi_handle *) parted; /* what other threads have let go of meanwhile */
    eqi_allocator allocator;
    size_t bytes_now, bytes_peak;
    eqi_log_fn log;
    void *log_user;
    int log_level;
    uint64_t seed;
    char error[EQI_ERROR_MAX];

    /* Of the rooms above, which set and read them. */
    eqi_pool *pool;
    char device[32];
    const eqi_backend *backend;
    bool no_amx;           /* the device leaves AMX alone */
    eqi_storage *recycled; /* freed tensor storages kept for the next step, see tensor/storage.h */
    size_t recycled_bytes;
    eqi_storage *recycled_pinned;  /* the same of pinned ones */
    size_t live_bytes, live_peak;  /* of storages in use: recycled ones never lift the sum above the
                                      peak by much */
    bool (*reclaim)(eqi_ctx *ctx); /* called when the allocator has nothing left; NULL: none. True
                                      when it gave memory back: then the request is tried again */
    void (*close)(eqi_ctx *ctx);   /* called when the last reference goes; NULL: nothing to close */
};

/* A context that has memory, messages and a seed of 0, and computes nothing. NULL when there is no
 * memory. The context itself comes from the allocator too. */
eqi_ctx *eqi_ctx_new(const eqi_allocator *allocator);
eqi_ctx *eqi_ctx_ref(eqi_ctx *ctx);
void eqi_ctx_unref(eqi_ctx *ctx);

/* Records the one-line message and returns `status`, so that callers write
 * `return eqi_fail(ctx, EQAT_FORMAT, "%s: ...", path)`. ctx may be NULL. */
eqat_status eqi_fail(eqi_ctx *ctx, eqat_status status, const char *format, ...) EQI_PRINTF(3, 4);
/* Puts "prefix: " before the message that a failed call left. */
eqat_status eqi_fail_in(eqi_ctx *ctx, eqat_status status, const char *format, ...) EQI_PRINTF(3, 4);
void eqi_log(eqi_ctx *ctx, eqi_log_level level, const char *format, ...) EQI_PRINTF(3, 4);

/* EQAT_CANCELLED with its message once eqat_context_cancel() was called, and clears the request. */
eqat_status eqi_check_cancel(eqi_ctx *ctx);

/* 64-byte aligned; NULL after eqi_fail(EQAT_OUT_OF_MEMORY) naming `what`. Size 0 gives a valid
 * pointer. Only from the thread that owns the context, never from a pool worker. */
void *eqi_alloc(eqi_ctx *ctx, size_t size, const char *what);
void *eqi_calloc(eqi_ctx *ctx, size_t count, size_t size, const char *what);
void *eqi_realloc(eqi_ctx *ctx, void *p, size_t size,
                  const char *what); /* on failure p stays valid */
/* The list, of items of `size` bytes, with room for one more behind `count`: where there is none,
 * twice as long. On failure it stays valid. */
void *eqi_grow(eqi_ctx *ctx, void *list, size_t count, size_t *capacity, size_t size,
               const char *what);
void eqi_free(eqi_ctx *ctx, void *p);
/* Memory that does not come from here, and is the context's all the same: so many bytes more, or
 * less, of what it has. */
void eqi_count_bytes(eqi_ctx *ctx, ptrdiff_t bytes);
char *eqi_strdup(eqi_ctx *ctx, const char *s);
char *eqi_asprintf(eqi_ctx *ctx, const char *format, ...) EQI_PRINTF(2, 3);

#endif
