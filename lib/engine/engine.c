#include "engine/engine.h"

#include <stdio.h>

#include "backend/backend.h"
#include "base/fpenv.h"
#include "tensor/storage.h"

static void close_all(eqi_ctx *ctx)
{
    eqi_storage_trim(ctx);
    eqi_backend_close(ctx);
    eqi_pool_free(ctx, ctx->pool);
}

static eqat_status open_all(eqi_ctx *ctx, const eqi_ctx_config *config)
{
    const char *device = config->device ? config->device : "cpu";
    ctx->log = config->log;
    ctx->log_user = config->log_user;
    ctx->log_level = config->log_level;
    ctx->seed = config->seed;
    ctx->reclaim = eqi_storage_reclaim;
    ctx->close = close_all;
    snprintf(ctx->device, sizeof ctx->device, "%s", device);
    ctx->no_amx = config->no_amx;
    ctx->stream = config->stream;
    ctx->device_memory = config->device_memory;
    EQI_RETURN_IF(
        eqi_pool_create(ctx, &ctx->pool, config->threads, config->parallel, config->parallel_user));
    return eqi_backend_open(ctx, device);
}

eqat_status eqi_ctx_create(eqi_ctx **out, const eqi_ctx_config *config, char *error,
                           size_t error_size)
{
    EQI_FPENV_GUARD(); /* the device tries its products out */
    *out = NULL;
    if ((config->allocator.alloc == NULL) != (config->allocator.free == NULL)) {
        if (error_size)
            snprintf(error, error_size, "allocator: alloc and free must be given together");
        return EQAT_INVALID_ARGUMENT;
    }
    eqi_ctx *ctx = eqi_ctx_new(&config->allocator);
    if (!ctx) {
        if (error_size)
            snprintf(error, error_size, "out of memory: %zu bytes for a context", sizeof(eqi_ctx));
        return EQAT_OUT_OF_MEMORY;
    }
    eqat_status st = open_all(ctx, config);
    if (st == EQAT_OK) {
        *out = ctx;
        return EQAT_OK;
    }
    if (error_size) snprintf(error, error_size, "%s", ctx->error);
    eqi_ctx_unref(ctx);
    return st;
}
