#include "cpu/ref/ref.h"

eqat_status eqi_ref_open(eqi_ctx *ctx, const char *device)
{
    ctx->backend_state = NULL;
    eqi_log(ctx, EQI_LOG_INFO, "device %s: plain C, one thread", device);
    return EQAT_OK;
}

void eqi_ref_close(eqi_ctx *ctx) { (void)ctx; }

void *eqi_ref_alloc(eqi_ctx *ctx, size_t size) { return eqi_alloc(ctx, size, "a tensor"); }

void eqi_ref_free(eqi_ctx *ctx, void *data, size_t size)
{
    (void)size;
    eqi_free(ctx, data);
}

eqat_status eqi_ref_upload(eqi_ctx *ctx, void *dst, const void *src, size_t n)
{
    (void)ctx;
    if (n) memcpy(dst, src, n);
    return EQAT_OK;
}

eqat_status eqi_ref_download(eqi_ctx *ctx, void *dst, const void *src, size_t n)
{
    return eqi_ref_upload(ctx, dst, src, n);
}

void *eqi_ref_pin(eqi_ctx *ctx, size_t size) { return eqi_alloc(ctx, size, "memory of the host"); }

void eqi_ref_unpin(eqi_ctx *ctx, void *data, size_t size)
{
    (void)size;
    eqi_free(ctx, data);
}

eqat_status eqi_ref_download_late(eqi_ctx *ctx, void *dst, const void *src, size_t n,
                                  uint64_t *ticket)
{
    if (ticket) *ticket = 0;
    return eqi_ref_upload(ctx, dst, src, n);
}

eqat_status eqi_ref_upload_late(eqi_ctx *ctx, void *dst, const void *src, size_t n)
{
    return eqi_ref_upload(ctx, dst, src, n);
}

eqat_status eqi_ref_arrive(eqi_ctx *ctx, uint64_t ticket)
{
    (void)ctx;
    (void)ticket;
    return EQAT_OK;
}

eqat_status eqi_ref_synchronize(eqi_ctx *ctx)
{
    (void)ctx;
    return EQAT_OK;
}

eqat_status eqi_ref_memory(eqi_ctx *ctx, eqi_memory *out)
{
    *out = (eqi_memory){.used = ctx->bytes_now, .peak = ctx->bytes_peak};
    return EQAT_OK;
}

void eqi_ref_reset_peak(eqi_ctx *ctx) { ctx->bytes_peak = ctx->bytes_now; }

bool eqi_ref_reaches(eqi_ctx *ctx, const void *p)
{
    (void)ctx;
    return p != NULL;
}
