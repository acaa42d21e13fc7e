#include "tensor/storage.h"

#include "backend/backend.h"

/* Recycled storages may lift the footprint this far above what live tensors ever needed. */
#define SLACK ((size_t)16 << 20)

static void destroy(eqi_ctx *ctx, eqi_storage *s)
{
    if (s->pinned)
        ctx->backend->unpin(ctx, s->data, s->size);
    else
        ctx->backend->free(ctx, s->data, s->size);
    eqi_free(ctx, s);
}

/* Newest first: the oldest is the least likely to be asked for again. */
static void shrink(eqi_ctx *ctx, size_t limit)
{
    size_t kept = 0;
    for (eqi_storage **at = &ctx->recycled; *at;) {
        eqi_storage *s = *at;
        if (s->size <= limit - kept) {
            kept += s->size;
            at = &s->next;
        } else {
            *at = s->next;
            destroy(ctx, s);
        }
    }
    ctx->recycled_bytes = kept;
}

/* What may stay recycled while `live` bytes are in use. */
static size_t recycle_limit(const eqi_ctx *ctx, size_t live)
{
    return (live < ctx->live_peak ? ctx->live_peak - live : 0) + SLACK;
}

/* NULL: none of this size. */
static eqi_storage *take(eqi_storage **list, size_t size)
{
    for (eqi_storage **at = list; *at; at = &(*at)->next) {
        eqi_storage *s = *at;
        if (s->size != size) continue;
        *at = s->next;
        return s;
    }
    return NULL;
}

static void put(eqi_storage **list, eqi_storage *s)
{
    s->next = *list;
    *list = s;
}

static bool destroy_all(eqi_ctx *ctx, eqi_storage **list)
{
    bool any = *list != NULL;
    while (*list) {
        eqi_storage *s = *list;
        *list = s->next;
        destroy(ctx, s);
    }
    return any;
}

static eqi_storage *fresh(eqi_ctx *ctx, size_t size)
{
    size_t limit = recycle_limit(ctx, ctx->live_bytes + size);
    if (ctx->recycled_bytes > limit) shrink(ctx, limit);
    eqi_storage *s = eqi_calloc(ctx, 1, sizeof *s, "a tensor");
    if (!s) return NULL;
    s->size = size;
    s->data = ctx->backend->alloc(ctx, size);
    if (!s->data && eqi_storage_reclaim(ctx)) s->data = ctx->backend->alloc(ctx, size);
    if (s->data) return s;
    eqi_free(ctx, s);
    return NULL;
}

static eqi_storage *fresh_pinned(eqi_ctx *ctx, size_t size)
{
    eqi_storage *s = eqi_calloc(ctx, 1, sizeof *s, "a tensor on the host");
    if (!s) return NULL;
    s->size = size;
    s->pinned = true;
    s->data = ctx->backend->pin(ctx, size);
    if (!s->data && destroy_all(ctx, &ctx->recycled_pinned)) s->data = ctx->backend->pin(ctx, size);
    if (s->data) return s;
    eqi_free(ctx, s);
    return NULL;
}

static eqat_status begin(eqi_ctx *ctx, eqi_storage *s)
{
    if (!s) return EQAT_OUT_OF_MEMORY;
    s->ctx = eqi_ctx_ref(ctx);
    s->refs = 1;
    s->next = NULL;
    return EQAT_OK;
}

eqat_status eqi_storage_create(eqi_ctx *ctx, eqi_storage **out, size_t size)
{
    *out = take(&ctx->recycled, size);
    if (*out) ctx->recycled_bytes -= size;
    if (!*out) *out = fresh(ctx, size);
    EQI_RETURN_IF(begin(ctx, *out));
    ctx->live_bytes += size;
    if (ctx->live_bytes > ctx->live_peak) ctx->live_peak = ctx->live_bytes;
    return EQAT_OK;
}

eqat_status eqi_storage_pin(eqi_ctx *ctx, eqi_storage **out, size_t size)
{
    *out = take(&ctx->recycled_pinned, size);
    if (!*out) *out = fresh_pinned(ctx, size);
    return begin(ctx, *out);
}

void eqi_storage_unref(eqi_storage *s)
{
    if (!s || --s->refs > 0) return;
    eqi_ctx *ctx = s->ctx;
    if (s->foreign) {
        /* What was asked for may still be reading it; a failure stays for the next call. */
        (void)ctx->backend->synchronize(ctx);
        if (s->deleter) s->deleter(s->user, s->data);
        eqi_free(ctx, s);
    } else if (s->pinned) {
        put(&ctx->recycled_pinned, s);
    } else {
        ctx->live_bytes -= s->size;
        put(&ctx->recycled, s);
        ctx->recycled_bytes += s->size;
        size_t limit = recycle_limit(ctx, ctx->live_bytes);
        if (ctx->recycled_bytes > limit) shrink(ctx, limit);
    }
    eqi_ctx_unref(ctx);
}

bool eqi_storage_reclaim(eqi_ctx *ctx)
{
    bool any = ctx->recycled != NULL;
    if (any)
        eqi_log(ctx, EQI_LOG_DEBUG, "memory: %zu bytes of freed tensors go back, %zu are in use",
                ctx->recycled_bytes, ctx->live_bytes);
    (void)destroy_all(ctx, &ctx->recycled);
    ctx->recycled_bytes = 0;
    ctx->live_peak = ctx->live_bytes;
    return any;
}

void eqi_storage_trim(eqi_ctx *ctx)
{
    (void)eqi_storage_reclaim(ctx);
    (void)destroy_all(ctx, &ctx->recycled_pinned);
}
