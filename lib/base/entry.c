#include "base/entry.h"

#include <string.h>

/* References go one by one, the last with the handle itself. */
static void settle(eqi_handle *h)
{
    void (*unref)(void *) = h->unref;
    void *owner = h->owner;
    for (int n = atomic_exchange(&h->owed, 0); n > 0; n--) unref(owner);
}

static void drain(eqi_ctx *ctx)
{
    eqi_handle *h = atomic_exchange(&ctx->parted, NULL);
    while (h) {
        eqi_handle *next = h->next;
        settle(h);
        h = next;
    }
}

static void take(eqi_ctx *ctx)
{
    pthread_mutex_lock(&ctx->turn);
    ctx->depth++;
}

static bool try_take(eqi_ctx *ctx)
{
    if (pthread_mutex_trylock(&ctx->turn) != 0) return false;
    ctx->depth++;
    return true;
}

/* Who parts from a handle and finds the turn taken relies on the holder to look once more after
 * having given it up. */
static void give(eqi_ctx *ctx)
{
    bool outermost;
    do {
        outermost = ctx->depth == 1;
        if (outermost) drain(ctx);
        ctx->depth--;
        pthread_mutex_unlock(&ctx->turn);
    } while (outermost && atomic_load(&ctx->parted) && try_take(ctx));
}

eqi_entry eqi_enter(eqi_ctx *ctx)
{
    eqi_entry e = {.ctx = eqi_ctx_ref(ctx)};
    take(ctx);
    e.fpenv = eqi_fpenv_default();
    return e;
}

void eqi_leave(eqi_entry *e)
{
    give(e->ctx);
    eqi_ctx_unref(e->ctx);
    eqi_fpenv_restore(&e->fpenv);
}

static void push(eqi_ctx *ctx, eqi_handle *h, void (*unref)(void *), void *owner)
{
    if (atomic_fetch_add(&h->owed, 1) > 0) return; /* it waits already */
    h->unref = unref;
    h->owner = owner;
    h->next = atomic_load(&ctx->parted);
    while (!atomic_compare_exchange_weak(&ctx->parted, &h->next, h)) continue;
}

void eqi_handle_free(eqi_ctx *ctx, eqi_handle *h, void (*unref)(void *), void *owner)
{
    eqi_ctx_ref(ctx);
    if (try_take(ctx)) {
        unref(owner);
        give(ctx);
    } else {
        push(ctx, h, unref, owner);
        if (try_take(ctx)) give(ctx);
    }
    eqi_ctx_unref(ctx);
}

eqat_status eqi_need(eqi_ctx *ctx, const char *names, const void *const *pointers, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        size_t length = strcspn(names, ",");
        if (!pointers[i])
            return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "%.*s: found NULL", (int)length, names);
        names += length + strspn(names + length, ", ");
    }
    return EQAT_OK;
}
