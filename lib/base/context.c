#include "base/context.h"

#include <stdlib.h>
#include <string.h>

eqi_ctx *eqi_ctx_new(const eqi_allocator *a)
{
    void *raw = NULL;
    if (a->alloc)
        raw = a->alloc(a->user, sizeof(eqi_ctx), EQI_ALIGN);
    else if (posix_memalign(&raw, EQI_ALIGN, sizeof(eqi_ctx)) != 0)
        raw = NULL;
    if (!raw) return NULL;
    eqi_ctx *ctx = memset(raw, 0, sizeof *ctx);
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&ctx->turn, &attr);
    pthread_mutexattr_destroy(&attr);
    atomic_init(&ctx->refs, 1);
    atomic_init(&ctx->cancelled, 0);
    ctx->allocator = *a;
    return ctx;
}

eqi_ctx *eqi_ctx_ref(eqi_ctx *ctx)
{
    atomic_fetch_add_explicit(&ctx->refs, 1, memory_order_relaxed);
    return ctx;
}

void eqi_ctx_unref(eqi_ctx *ctx)
{
    if (!ctx || atomic_fetch_sub_explicit(&ctx->refs, 1, memory_order_acq_rel) != 1) return;
    if (ctx->close) ctx->close(ctx);
    pthread_mutex_destroy(&ctx->turn);
    eqi_allocator a = ctx->allocator;
    if (a.alloc)
        a.free(a.user, ctx, sizeof *ctx);
    else
        free(ctx);
}
