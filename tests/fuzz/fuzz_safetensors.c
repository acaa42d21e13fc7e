#include <stdlib.h>
#include <string.h>

#include "format/source.h"
#include "fuzz.h"

static eqat_status read_all(eqi_ctx *ctx, const char *path)
{
    eqi_source *s;
    EQI_RETURN_IF(eqi_source_open_safetensors_file(ctx, &s, path));
    eqat_status st = EQAT_OK;
    eqi_source_metadata(s, "format");
    for (size_t i = 0; st == EQAT_OK && i < eqi_source_count(s); i++) {
        const eqi_source_entry *e = eqi_source_at(s, i);
        if (eqi_source_find(s, e->name) != e) abort();
        if (e->bytes > 1 << 20) continue;
        void *values = malloc((size_t)e->elements * 4 + (size_t)e->bytes + 1);
        if (!values) abort();
        st = eqi_source_read_raw(s, e, 0, (size_t)e->bytes, values);
        if (st == EQAT_OK && eqi_stored_is_float(e->stored))
            st = eqi_source_read_f32(s, e, 0, e->elements, values);
        free(values);
    }
    eqi_source_close(s);
    return st;
}

eqat_status eqat_fuzz_one(eqi_ctx *ctx, const char *path, const uint8_t *data, size_t size)
{
    eqat_status st = read_all(ctx, path);
    if (size < 8) return st;
    /* Once more with the length that the JSON really has, or nearly every mutation would end at the
     * first field. */
    size_t end = size;
    while (end > 8 && data[end - 1] != '}') end--;
    const uint64_t length = end - 8;
    uint8_t *copy = malloc(size);
    if (!copy) abort();
    memcpy(copy, data, size);
    memcpy(copy, &length, sizeof length);
    eqat_fuzz_rewrite(copy, size);
    free(copy);
    ctx->error[0] = 0;
    return read_all(ctx, path);
}
