#include "base/context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "base/threads.h"
#include "tensor/tensor.h"

/* The contract is one line: names and file content quoted in a message must not break it. */
static void put_line(char line[EQI_ERROR_MAX], const char *format, va_list args)
{
    vsnprintf(line, EQI_ERROR_MAX, format, args);
    for (char *p = line; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = ' ';
}

eqat_status eqi_fail(eqi_ctx *ctx, eqat_status status, const char *format, ...)
{
    if (!ctx) return status;
    va_list args;
    va_start(args, format);
    put_line(ctx->error, format, args);
    va_end(args);
    return status;
}

eqat_status eqi_fail_in(eqi_ctx *ctx, eqat_status status, const char *format, ...)
{
    if (!ctx) return status;
    char inner[EQI_ERROR_MAX], outer[256];
    snprintf(inner, sizeof inner, "%s", ctx->error);
    va_list args;
    va_start(args, format);
    vsnprintf(outer, sizeof outer, format, args);
    va_end(args);
    return eqi_fail(ctx, status, "%s: %s", outer, inner);
}

void eqi_log(eqi_ctx *ctx, eqi_log_level level, const char *format, ...)
{
    if (!ctx->log || (int)level > ctx->log_level) return;
    char line[EQI_ERROR_MAX];
    va_list args;
    va_start(args, format);
    put_line(line, format, args);
    va_end(args);
    ctx->log(ctx->log_user, level, line);
}

eqat_status eqi_check_cancel(eqi_ctx *ctx)
{
    if (!atomic_exchange_explicit(&ctx->cancelled, 0, memory_order_relaxed)) return EQAT_OK;
    return eqi_fail(ctx, EQAT_CANCELLED, "cancelled");
}

eqat_status eqi_ctx_create(eqi_ctx **out, const eqi_ctx_config *config, char *error,
                           size_t error_size)
{
    *out = NULL;
    if ((config->allocator.alloc == NULL) != (config->allocator.free == NULL)) {
        if (error_size)
            snprintf(error, error_size, "allocator: alloc and free must be given together");
        return EQAT_INVALID_ARGUMENT;
    }
    /* The context itself comes from its allocator too: nothing is allocated behind the caller's
     * back. */
    void *raw = NULL;
    if (config->allocator.alloc)
        raw = config->allocator.alloc(config->allocator.user, sizeof(eqi_ctx), EQI_ALIGN);
    else if (posix_memalign(&raw, EQI_ALIGN, sizeof(eqi_ctx)) != 0)
        raw = NULL;
    if (!raw) {
        if (error_size)
            snprintf(error, error_size, "out of memory: %zu bytes for a context", sizeof(eqi_ctx));
        return EQAT_OUT_OF_MEMORY;
    }
    eqi_ctx *ctx = raw;
    memset(ctx, 0, sizeof *ctx);
    atomic_init(&ctx->refs, 1);
    atomic_init(&ctx->cancelled, 0);
    ctx->allocator = config->allocator;
    ctx->log = config->log;
    ctx->log_user = config->log_user;
    ctx->log_level = config->log_level;
    ctx->seed = config->seed;
    const char *device = config->device ? config->device : "cpu";
    snprintf(ctx->device, sizeof ctx->device, "%s", device);
    eqat_status st = eqi_pool_create(ctx, &ctx->pool, config->threads);
    if (st == EQAT_OK) st = eqi_backend_open(ctx, device);
    if (st != EQAT_OK) {
        if (error_size) snprintf(error, error_size, "%s", ctx->error);
        eqi_ctx_unref(ctx);
        return st;
    }
    *out = ctx;
    return EQAT_OK;
}

eqi_ctx *eqi_ctx_ref(eqi_ctx *ctx)
{
    atomic_fetch_add_explicit(&ctx->refs, 1, memory_order_relaxed);
    return ctx;
}

void eqi_ctx_unref(eqi_ctx *ctx)
{
    if (!ctx || atomic_fetch_sub_explicit(&ctx->refs, 1, memory_order_acq_rel) != 1) return;
    eqi_storage_trim(ctx);
    eqi_backend_close(ctx);
    eqi_pool_free(ctx, ctx->pool);
    eqi_allocator a = ctx->allocator;
    if (a.alloc)
        a.free(a.user, ctx);
    else
        free(ctx);
}
