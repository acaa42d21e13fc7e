#include <stdlib.h>
#include <unistd.h>

#include "format/gguf_names.h"
#include "fuzz.h"

static eqat_status read_tensors(eqi_source *s)
{
    eqat_status st = EQAT_OK;
    for (size_t i = 0; st == EQAT_OK && i < eqi_source_count(s); i++) {
        const eqi_source_entry *e = eqi_source_at(s, i);
        if (eqi_source_find(s, e->name) != e) abort();
        if (!eqi_stored_is_float(e->stored) || e->elements > 1 << 20) continue;
        float *values = malloc((size_t)e->elements * sizeof *values + 1);
        if (!values) abort();
        st = eqi_source_read_f32(s, e, 0, e->elements, values);
        free(values);
    }
    return st;
}

static void read_arrays(const eqi_gguf *g)
{
    static const char *const keys[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.scores",
                                       "some.strings"};
    for (size_t k = 0; k < EQI_COUNT(keys); k++) {
        const int64_t n = eqi_gguf_array_count(g, keys[k]);
        for (int64_t i = 0; i < n && i < 1000; i++) {
            size_t length;
            const char *text = eqi_gguf_array_string(g, keys[k], i, &length);
            double x;
            int64_t whole;
            if (text && text[length]) abort();
            eqi_gguf_array_float(g, keys[k], i, &x);
            eqi_gguf_array_int(g, keys[k], i, &whole);
        }
    }
}

eqat_status eqat_fuzz_one(eqi_ctx *ctx, const char *path, const uint8_t *data, size_t size)
{
    (void)data, (void)size;
    eqi_gguf *g;
    eqi_source *s = NULL, *hf = NULL;
    json_t *config = NULL;
    EQI_RETURN_IF(eqi_gguf_open(ctx, &g, path));
    eqat_status st = eqi_gguf_source(g, &s);
    if (st == EQAT_OK) st = read_tensors(s);
    read_arrays(g);
    if (st == EQAT_OK) st = eqi_gguf_open_hf(g, &hf, &config);
    if (st == EQAT_OK) st = read_tensors(hf);
    json_decref(config);
    eqi_source_close(hf);
    eqi_source_close(s);
    eqi_gguf_close(g);
    const char *name = eqat_fuzz_name(".gguf");
    const eqat_status used = eqat_fuzz_use(ctx, name);
    unlink(name);
    return st == EQAT_OK ? used : st;
}
