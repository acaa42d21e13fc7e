/* Reference-counted memory of tensors. */
#ifndef EQI_TENSOR_STORAGE_H
#define EQI_TENSOR_STORAGE_H

#include "base/context.h"

struct eqi_storage {
    eqi_ctx *ctx; /* counted, except while recycled */
    int refs; /* one handle belongs to one thread at a time, and so do the tensors that share it */
    size_t size;
    void *data;
    bool pinned;  /* memory of the host, which late copies alone reach */
    bool foreign; /* memory of the caller's; deleter may be NULL */
    void (*deleter)(void *user, void *data);
    void *user;
    eqi_storage *next; /* in ctx->recycled or ctx->recycled_pinned */
};

/* Freed storages wait in the context for a request of the same size: the steps of a training loop
 * repeat their sizes, and fresh pages cost more than the arithmetic on small models. */
eqat_status eqi_storage_create(eqi_ctx *ctx, eqi_storage **out, size_t size);
/* In pinned memory; all that is freed waits until it is asked for again, or trimmed. */
eqat_status eqi_storage_pin(eqi_ctx *ctx, eqi_storage **out, size_t size);
void eqi_storage_unref(eqi_storage *storage);
/* Gives recycled storages back to the device (or where it has no memory of its own the allocator);
 * true when there was one. */
bool eqi_storage_reclaim(eqi_ctx *ctx);
/* The same, and pinned ones back to the host. */
void eqi_storage_trim(eqi_ctx *ctx);

#endif
