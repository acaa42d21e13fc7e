#include "backend/backend.h"

#include <string.h>

static const char *missing_entry(const eqi_backend *b)
{
#define CHECK(entry) \
    if (!b->entry) return #entry;
    EQI_BACKEND_ENTRIES(CHECK)
    return NULL;
}

static eqat_status find(eqi_ctx *ctx, const char *device, const eqi_backend **out)
{
    if (!strncmp(device, "cpu", 3) && (!device[3] || device[3] == ':')) {
        *out = eqi_backend_cpu();
    } else if (!strcmp(device, "ref")) {
        *out = &eqi_backend_ref;
    } else if (!strncmp(device, "cuda", 4) && (!device[4] || device[4] == ':')) {
        return eqi_fail(ctx, EQAT_UNSUPPORTED, "device %s: this build has no CUDA backend", device);
    } else {
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "device: found \"%s\", expected cpu, ref or cuda:N", device);
    }
    return EQAT_OK;
}

eqat_status eqi_backend_check(eqi_ctx *ctx, const eqi_backend *b)
{
    if (b->version != EQI_BACKEND_VERSION)
        return eqi_fail(ctx, EQAT_BACKEND, "backend %s: found version %u, expected %u", b->name,
                        (unsigned)b->version, EQI_BACKEND_VERSION);
    const char *entry = missing_entry(b);
    if (entry) return eqi_fail(ctx, EQAT_BACKEND, "backend %s: it lacks %s", b->name, entry);
    return EQAT_OK;
}

eqat_status eqi_backend_open(eqi_ctx *ctx, const char *device)
{
    const eqi_backend *b = NULL;
    EQI_RETURN_IF(find(ctx, device, &b));
    EQI_RETURN_IF(eqi_backend_check(ctx, b));
    EQI_RETURN_IF(b->open(ctx, device));
    ctx->backend = b;
    return EQAT_OK;
}

void eqi_backend_close(eqi_ctx *ctx)
{
    if (ctx->backend) ctx->backend->close(ctx);
    ctx->backend = NULL;
}
