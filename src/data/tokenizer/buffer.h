/* Growable arrays of bytes and of token ids, accounted in the context. */
#ifndef EQI_TOKENIZER_BUFFER_H
#define EQI_TOKENIZER_BUFFER_H

#include <string.h>

#include "base/context.h"

typedef struct eqi_bytes {
    char *data;
    size_t size, capacity;
} eqi_bytes;

typedef struct eqi_ids {
    int32_t *data;
    size_t size, capacity;
} eqi_ids;

/* Room for `more` further elements. On failure the contents stay as they are. */
eqat_status eqi_bytes_grow(eqi_ctx *ctx, eqi_bytes *b, size_t more);
eqat_status eqi_ids_grow(eqi_ctx *ctx, eqi_ids *b, size_t more);
void eqi_bytes_free(eqi_ctx *ctx, eqi_bytes *b);
void eqi_ids_free(eqi_ctx *ctx, eqi_ids *b);

static inline eqat_status eqi_bytes_reserve(eqi_ctx *ctx, eqi_bytes *b, size_t more)
{
    return more <= b->capacity - b->size ? EQAT_OK : eqi_bytes_grow(ctx, b, more);
}

static inline eqat_status eqi_ids_reserve(eqi_ctx *ctx, eqi_ids *b, size_t more)
{
    return more <= b->capacity - b->size ? EQAT_OK : eqi_ids_grow(ctx, b, more);
}

static inline eqat_status eqi_bytes_append(eqi_ctx *ctx, eqi_bytes *b, const char *s, size_t n)
{
    EQI_RETURN_IF(eqi_bytes_reserve(ctx, b, n));
    if (n) memcpy(b->data + b->size, s, n);
    b->size += n;
    return EQAT_OK;
}

static inline eqat_status eqi_ids_push(eqi_ctx *ctx, eqi_ids *b, int32_t id)
{
    EQI_RETURN_IF(eqi_ids_reserve(ctx, b, 1));
    b->data[b->size++] = id;
    return EQAT_OK;
}

#endif
