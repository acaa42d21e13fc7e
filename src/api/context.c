#include <stdio.h>

#include "api/options.h"
#include "backend/backend.h"
#include "base/entry.h"
#include "engine/engine.h"
#include "eqat/context.h"
#include "tensor/storage.h"

_Static_assert(EQAT_VERSION_MAJOR == EQI_PROJECT_MAJOR && EQAT_VERSION_MINOR == EQI_PROJECT_MINOR &&
                   EQAT_VERSION_PATCH == EQI_PROJECT_PATCH,
               "the headers bear the project's version");
#define STRING_(a) #a
#define STRING(a) STRING_(a)
#define VERSION \
    STRING(EQAT_VERSION_MAJOR) "." STRING(EQAT_VERSION_MINOR) "." STRING(EQAT_VERSION_PATCH)

static const eqat_field fields[] = {
    EQI_FIELD_STRING(eqat_context_options, device, "cpu",
                     "where to compute: cpu, ref (plain C, slow), cuda:N"),
    EQI_FIELD_I32(eqat_context_options, threads, 0, 0, 1024,
                  "worker threads; 0: one per processor"),
    EQI_FIELD_I32(eqat_context_options, log_level, EQAT_LOG_INFO, EQAT_LOG_ERROR, EQAT_LOG_DEBUG,
                  "0 errors, 1 warnings, 2 information, 3 everything"),
    EQI_FIELD_U64(eqat_context_options, seed, 0, "all randomness follows from it"),
    EQI_FIELD_POINTER(eqat_context_options, log, "log callback"),
    EQI_FIELD_POINTER(eqat_context_options, log_user, "its first argument"),
    EQI_FIELD_POINTER(eqat_context_options, alloc, "allocator"),
    EQI_FIELD_POINTER(eqat_context_options, free, "its counterpart"),
    EQI_FIELD_POINTER(eqat_context_options, alloc_user, "their first argument"),
    EQI_FIELD_POINTER(eqat_context_options, parallel, "the caller's thread pool"),
    EQI_FIELD_POINTER(eqat_context_options, parallel_user, "its first argument"),
    EQI_FIELD_BOOL(eqat_context_options, amx, true,
                   "use AMX, for which the process asks Linux when a context is created"),
    EQI_FIELD_POINTER(eqat_context_options, stream, "the caller's stream on a CUDA device"),
    EQI_FIELD_U64(eqat_context_options, device_memory, 0,
                  "the most bytes to hold on a CUDA device; 0: no limit"),
};

const eqi_struct eqi_struct_context = EQI_STRUCT_RESERVED(eqat_context_options, "context", fields);

void eqat_context_options_init(eqat_context_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_context, options, struct_size);
}

eqat_status eqat_context_create(eqat_context **out, const eqat_context_options *options,
                                char *error, size_t error_size)
{
    if (!error) error_size = 0;
    if (error_size) error[0] = 0;
    if (!out) {
        if (error_size) snprintf(error, error_size, "out: found NULL");
        return EQAT_INVALID_ARGUMENT;
    }
    *out = NULL;
    /* Options are checked before there is a context to hold the message. */
    eqi_ctx scratch = {0};
    eqat_context_options o;
    eqat_status st = eqi_options_take(&scratch, &eqi_struct_context, &o, options);
    if (st != EQAT_OK) {
        if (error_size) snprintf(error, error_size, "%s", scratch.error);
        return st;
    }
    eqi_ctx_config config = {
        .device = o.device,
        .threads = o.threads,
        .seed = o.seed,
        .allocator = {o.alloc, o.free, o.alloc_user},
        .log = o.log,
        .log_user = o.log_user,
        .log_level = o.log_level,
        .parallel = o.parallel,
        .parallel_user = o.parallel_user,
        .no_amx = !o.amx,
        .stream = o.stream,
        .device_memory = o.device_memory,
    };
    return eqi_ctx_create(out, &config, error, error_size);
}

void eqat_context_free(eqat_context *ctx) { eqi_ctx_unref(ctx); }
const char *eqat_context_error(const eqat_context *ctx) { return ctx ? ctx->error : ""; }
size_t eqat_context_bytes(const eqat_context *ctx) { return ctx ? ctx->bytes_now : 0; }
size_t eqat_context_bytes_peak(const eqat_context *ctx) { return ctx ? ctx->bytes_peak : 0; }

static eqi_memory device_memory(const eqat_context *ctx)
{
    eqi_memory memory = {0};
    if (ctx) (void)ctx->backend->memory((eqi_ctx *)ctx, &memory);
    return memory;
}

size_t eqat_context_device_bytes(const eqat_context *ctx) { return device_memory(ctx).used; }
size_t eqat_context_device_bytes_peak(const eqat_context *ctx) { return device_memory(ctx).peak; }

size_t eqat_context_device_bytes_left(const eqat_context *ctx)
{
    eqi_memory memory = device_memory(ctx);
    return memory.total ? memory.free : SIZE_MAX;
}

void eqat_context_reset_peak(eqat_context *ctx)
{
    if (!ctx) return;
    EQI_GUARD(ctx);
    ctx->bytes_peak = ctx->bytes_now;
    ctx->backend->reset_peak(ctx);
}

void eqat_context_trim(eqat_context *ctx)
{
    if (!ctx) return;
    EQI_GUARD(ctx);
    eqi_storage_trim(ctx);
}

int32_t eqat_context_threads(const eqat_context *ctx) { return ctx ? eqi_pool_size(ctx->pool) : 0; }

static void set_cancelled(eqi_ctx *ctx, int value)
{
    if (ctx) atomic_store_explicit(&ctx->cancelled, value, memory_order_relaxed);
}

void eqat_context_cancel(eqat_context *ctx) { set_cancelled(ctx, 1); }
void eqat_context_reset_cancel(eqat_context *ctx) { set_cancelled(ctx, 0); }
const char *eqat_version(void) { return VERSION; }
