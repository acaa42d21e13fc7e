#include <string.h>

#include "base/file.h"
#include "data/tokenizer/tokenizer.h"
#include "model/folder.h"

#define COPY_LIMIT ((size_t)64 << 20)

static bool round_trips(double value, int digits)
{
    char text[40];
    snprintf(text, sizeof text, "%.*g", digits, value);
    return strtod(text, NULL) == value;
}

/* Fewest digits with which every number of the tree reads back as itself: 1e-05 stays 1e-05. */
static int digits_needed(const json_t *json, int digits)
{
    if (json_is_real(json))
        while (digits < 17 && !round_trips(json_real_value(json), digits)) digits++;
    for (size_t i = 0; i < json_array_size(json); i++)
        digits = digits_needed(json_array_get(json, i), digits);
    const char *key;
    json_t *value;
    if (json_is_object(json))
        json_object_foreach((json_t *)json, key, value) digits = digits_needed(value, digits);
    return digits;
}

static int write_piece(const char *text, size_t size, void *out)
{
    return eqi_out_write(out, text, size) == EQAT_OK ? 0 : -1;
}

static eqat_status write_json(eqi_ctx *ctx, const json_t *json, const char *path)
{
    eqi_out *out;
    EQI_RETURN_IF(eqi_out_open(ctx, &out, path));
    size_t flags =
        JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(digits_needed(json, 15));
    int failed = json_dump_callback(json, write_piece, out, flags);
    write_piece("\n", 1, out);
    eqat_status st = eqi_out_close(out);
    return st == EQAT_OK && failed ? eqi_fail(ctx, EQAT_OUT_OF_MEMORY, "%s: out of memory", path)
                                   : st;
}

static bool set_quantization(json_t *json, const eqi_folder *f)
{
    if (!f->packed || !f->layout->config) return true;
    json_t *q = f->layout->config(f->linears, f->n);
    const char *also = f->layout->also;
    bool set = q && json_object_set(json, "quantization_config", q) == 0 &&
        (!also || json_object_set(json, also, q) == 0);
    json_decref(q);
    return set;
}

static bool set_dtype(json_t *json, const char *dtype)
{
    json_object_del(json, "dtype");
    return json_object_set_new(json, "torch_dtype", json_string(dtype)) == 0;
}

static json_t *make_config(const eqat_model *m, const eqi_folder *f)
{
    static const char *const names[] = {
        [EQI_F32] = "float32", [EQI_BF16] = "bfloat16", [EQI_F16] = "float16"};
    json_t *json = json_deep_copy(m->json);
    if (!json) return NULL;
    json_object_del(json, "quantization_config");
    json_object_del(json, "quantization");
    bool set = true;
    if (f->layout->dtype && f->packed)
        set = set_dtype(json, f->layout->dtype);
    else if (!json_object_get(json, "torch_dtype") && !json_object_get(json, "dtype"))
        set = set_dtype(json, names[eqi_kept_dtype(m->embedding_stored)]);
    if (set && set_quantization(json, f)) return json;
    json_decref(json);
    return NULL;
}

static eqat_status write_config(eqat_model *m, const eqi_folder *f, const char *path)
{
    json_t *json = make_config(m, f);
    if (!json) return eqi_fail(m->ctx, EQAT_OUT_OF_MEMORY, "out of memory: config.json");
    eqat_status st = write_json(m->ctx, json, path);
    json_decref(json);
    return st;
}

eqat_status eqi_save_config(eqat_model *m, const eqi_folder *f, const char *dir)
{
    char *path = eqi_path_join(m->ctx, dir, "config.json");
    eqat_status st = path ? write_config(m, f, path) : EQAT_OUT_OF_MEMORY;
    eqi_free(m->ctx, path);
    if (st != EQAT_OK || !eqi_path_is_dir(m->path)) return st;
    EQI_RETURN_IF(eqi_copy_inside(m->ctx, m->path, dir, "generation_config.json", COPY_LIMIT));
    /* Of a tokenizer that libeqat does not read. */
    return m->tokenizer ? EQAT_OK : eqi_tokenizer_copy(m->ctx, m->path, dir, COPY_LIMIT);
}
