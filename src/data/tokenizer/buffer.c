#include "data/tokenizer/buffer.h"

/* Half as much again keeps the number of copies logarithmic without doubling the peak of a long
 * text. */
static eqat_status grow(eqi_ctx *ctx, void **data, size_t size, size_t *capacity, size_t more,
                        size_t element)
{
    if (more > SIZE_MAX / element / 4 || size > SIZE_MAX / element / 4)
        return eqi_fail(ctx, EQAT_OUT_OF_MEMORY,
                        "out of memory: %zu elements for a tokenizer's buffer", more);
    size_t want = size + more, next = *capacity + *capacity / 2;
    if (next < want) next = want;
    if (next < 64) next = 64;
    void *p = eqi_realloc(ctx, *data, next * element, "a tokenizer's buffer");
    if (!p) return EQAT_OUT_OF_MEMORY;
    *data = p;
    *capacity = next;
    return EQAT_OK;
}

eqat_status eqi_bytes_grow(eqi_ctx *ctx, eqi_bytes *b, size_t more)
{
    void *p = b->data;
    EQI_RETURN_IF(grow(ctx, &p, b->size, &b->capacity, more, 1));
    b->data = p;
    return EQAT_OK;
}

eqat_status eqi_ids_grow(eqi_ctx *ctx, eqi_ids *b, size_t more)
{
    void *p = b->data;
    EQI_RETURN_IF(grow(ctx, &p, b->size, &b->capacity, more, sizeof *b->data));
    b->data = p;
    return EQAT_OK;
}

void eqi_bytes_free(eqi_ctx *ctx, eqi_bytes *b)
{
    eqi_free(ctx, b->data);
    *b = (eqi_bytes){0};
}

void eqi_ids_free(eqi_ctx *ctx, eqi_ids *b)
{
    eqi_free(ctx, b->data);
    *b = (eqi_ids){0};
}
