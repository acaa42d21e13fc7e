#include <string.h>

#include "api/options.h"
#include "base/threads.h"
#include "engine/engine.h"
#include "eqat/context.h"
#include "tensor/storage.h"

#define VERSION "0.1.0"

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
};

const eqi_struct eqi_struct_context = EQI_STRUCT(eqat_context_options, "context", fields);

void eqat_context_options_init(eqat_context_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_context, options, struct_size);
}

eqat_status eqat_context_create(eqat_context **out, const eqat_context_options *options,
                                char *error, size_t error_size)
{
    *out = NULL;
    if (error && error_size) error[0] = 0;
    if (!error) error_size = 0;
    /* Options are checked before there is a context to hold the message. */
    eqi_ctx scratch = {0};
    eqat_context_options o;
    eqat_status st = eqi_options_take(&scratch, &eqi_struct_context, &o, options);
    if (st != EQAT_OK) {
        if (error_size) {
            strncpy(error, scratch.error, error_size - 1);
            error[error_size - 1] = 0;
        }
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
    };
    return eqi_ctx_create(out, &config, error, error_size);
}

void eqat_context_free(eqat_context *ctx) { eqi_ctx_unref(ctx); }
const char *eqat_context_error(const eqat_context *ctx) { return ctx->error; }
size_t eqat_context_bytes(const eqat_context *ctx) { return ctx->bytes_now; }
size_t eqat_context_bytes_peak(const eqat_context *ctx) { return ctx->bytes_peak; }
void eqat_context_reset_peak(eqat_context *ctx) { ctx->bytes_peak = ctx->bytes_now; }
void eqat_context_trim(eqat_context *ctx) { (void)eqi_storage_trim(ctx); }
int32_t eqat_context_threads(const eqat_context *ctx) { return eqi_pool_size(ctx->pool); }
void eqat_cancel(eqat_context *ctx)
{
    atomic_store_explicit(&ctx->cancelled, 1, memory_order_relaxed);
}
const char *eqat_version(void) { return VERSION; }
