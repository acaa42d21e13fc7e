/* Damaged .npy files, and the same bytes as raw tokens. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/tokens.h"
#include "fuzz.h"

static eqat_status read_as(eqi_ctx *ctx, const char *ending, int64_t vocab)
{
    const char *name = eqat_fuzz_name(ending);
    eqi_tokens *t;
    eqat_status st = eqi_tokens_open(ctx, &t, name, vocab);
    for (int64_t i = 0; st == EQAT_OK && i < t->count; i += 7) {
        int32_t ids[7];
        const int64_t n = t->count - i < 7 ? t->count - i : 7;
        st = eqi_tokens_read(t, i, n, ids);
        for (int64_t k = 0; st == EQAT_OK && k < n; k++)
            if (ids[k] < 0 || (vocab && ids[k] >= vocab)) abort();
    }
    if (t) eqi_tokens_free(t);
    unlink(name);
    return st;
}

/* Once more with the length that the header really has, or nearly every mutation would end there.
 */
static eqat_status with_length(eqi_ctx *ctx, const uint8_t *data, size_t size)
{
    const uint8_t *end = memchr(data + 10, '\n', size - 10);
    if (!end || end - data - 9 > 0xffff) return EQAT_OK;
    const size_t length = (size_t)(end - data) - 9;
    uint8_t *copy = malloc(size);
    if (!copy) abort();
    memcpy(copy, data, size);
    copy[8] = (uint8_t)length;
    copy[9] = (uint8_t)(length >> 8);
    eqat_fuzz_rewrite(copy, size);
    free(copy);
    return read_as(ctx, ".npy", 0);
}

eqat_status eqat_fuzz_one(eqi_ctx *ctx, const char *path, const uint8_t *data, size_t size)
{
    (void)path;
    eqat_status st = read_as(ctx, ".npy", 0);
    if (size > 10) st = with_length(ctx, data, size);
    if (st == EQAT_OK) st = read_as(ctx, ".u16", 300);
    if (st == EQAT_OK) st = read_as(ctx, ".u32", 0);
    return st;
}
