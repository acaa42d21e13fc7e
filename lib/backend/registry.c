#include "backend/backend.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define CUDA_LIBRARY "libeqat-cuda.so.0"

_Static_assert(offsetof(eqi_ctx, services) == offsetof(eqi_seat, services) &&
                   offsetof(eqi_ctx, backend_state) == offsetof(eqi_seat, state) &&
                   offsetof(eqi_ctx, stream) == offsetof(eqi_seat, stream) &&
                   offsetof(eqi_ctx, device_memory) == offsetof(eqi_seat, device_memory),
               "a context begins with its seat");

static void log_line(eqi_ctx *ctx, int level, const char *format, ...) EQI_PRINTF(3, 4);
static void log_line(eqi_ctx *ctx, int level, const char *format, ...)
{
    char line[EQI_ERROR_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    eqi_log(ctx, (eqi_log_level)level, "%s", line);
}

static bool reclaim(eqi_ctx *ctx) { return ctx->reclaim && ctx->reclaim(ctx); }

static const eqi_services services = {.fail = eqi_fail,
                                      .log = log_line,
                                      .alloc = eqi_alloc,
                                      .free = eqi_free,
                                      .count = eqi_count_bytes,
                                      .reclaim = reclaim};

static const char *missing_entry(const eqi_backend *b)
{
#define CHECK(entry) \
    if (!b->entry) return #entry;
    EQI_BACKEND_ENTRIES(CHECK)
    return NULL;
}

/* Beside the library or program that this code is part of. */
static void *open_beside(const char *name)
{
    Dl_info self;
    char path[PATH_MAX];
    if (!dladdr(&services, &self) || !self.dli_fname) return NULL;
    const char *slash = strrchr(self.dli_fname, '/');
    int n = slash ? snprintf(path, sizeof path, "%.*s/%s", (int)(slash - self.dli_fname),
                             self.dli_fname, name)
                  : 0;
    return n > 0 && (size_t)n < sizeof path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
}

/* Stays open for the life of the process: the CUDA runtime does not like to be unloaded. */
static eqat_status find_cuda(eqi_ctx *ctx, const char *device, const eqi_backend **out)
{
    char why[512];
    void *library = dlopen(CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *error = dlerror();
        snprintf(why, sizeof why, "%s", error ? error : "no reason given");
        library = open_beside(CUDA_LIBRARY);
    }
    if (!library)
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "device %s: cannot open %s (%s), expected this version's CUDA backend in "
                        "the library path or beside libeqat",
                        device, CUDA_LIBRARY, why);
    eqi_backend_fn *table = NULL;
    *(void **)&table = dlsym(library, EQI_BACKEND_SYMBOL);
    *out = table ? table() : NULL;
    if (*out) return EQAT_OK;
    return eqi_fail(ctx, EQAT_BACKEND,
                    "device %s: found no %s in %s, expected this version's CUDA backend", device,
                    table ? "table" : EQI_BACKEND_SYMBOL, CUDA_LIBRARY);
}

static eqat_status find(eqi_ctx *ctx, const char *device, const eqi_backend **out)
{
    if (!strncmp(device, "cpu", 3) && (!device[3] || device[3] == ':')) {
        *out = eqi_backend_cpu();
    } else if (!strcmp(device, "ref")) {
        *out = &eqi_backend_ref;
    } else if (!strncmp(device, "cuda", 4) && (!device[4] || device[4] == ':')) {
        return find_cuda(ctx, device, out);
    } else {
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "device: found \"%s\", expected cpu, ref or cuda:N", device);
    }
    return EQAT_OK;
}

eqat_status eqi_backend_check(eqi_ctx *ctx, const eqi_backend *b)
{
    /* Of another version nothing else is known, not even the name. */
    if (b->version != EQI_BACKEND_VERSION)
        return eqi_fail(ctx, EQAT_BACKEND,
                        "device %s: found version %u of the backend's table, expected %u",
                        ctx->device, (unsigned)b->version, EQI_BACKEND_VERSION);
    const char *entry = missing_entry(b);
    if (!entry) return EQAT_OK;
    return eqi_fail(ctx, EQAT_BACKEND, "backend %s: found no %s, expected every entry", b->name,
                    entry);
}

/* What only a device with memory of its own has. */
static eqat_status check_seat(eqi_ctx *ctx, const char *device, const eqi_backend *b)
{
    if (b->host && ctx->stream)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "stream: found one for device %s, expected NULL: only cuda:N has streams",
                        device);
    if (b->host && ctx->device_memory)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "device_memory: found %llu for device %s, expected 0: only cuda:N has "
                        "memory of its own",
                        (unsigned long long)ctx->device_memory, device);
    return EQAT_OK;
}

eqat_status eqi_backend_open(eqi_ctx *ctx, const char *device)
{
    const eqi_backend *b = NULL;
    EQI_RETURN_IF(find(ctx, device, &b));
    EQI_RETURN_IF(eqi_backend_check(ctx, b));
    EQI_RETURN_IF(check_seat(ctx, device, b));
    ctx->services = &services;
    EQI_RETURN_IF(b->open(ctx, device));
    ctx->backend = b;
    return EQAT_OK;
}

void eqi_backend_close(eqi_ctx *ctx)
{
    if (ctx->backend) ctx->backend->close(ctx);
    ctx->backend = NULL;
}
