/* Reading members of tokenizer.json with errors that name them. */
#include "base/file.h"
#include "data/tokenizer/tokenizer.h"
#include "format/json_load.h"

eqat_status eqi_json_memory(eqi_ctx *ctx)
{
    return eqi_fail(ctx, EQAT_OUT_OF_MEMORY, "out of memory: a tokenizer's JSON");
}

static eqat_status read_json(eqi_ctx *ctx, const char *path, size_t flags, json_t **out)
{
    *out = NULL;
    char *text;
    size_t n;
    EQI_RETURN_IF(eqi_file_slurp(ctx, path, (size_t)1 << 30, &text, &n));
    json_error_t e;
    json_t *json = eqi_json_load(text, n, JSON_ALLOW_NUL | flags, &e);
    eqi_free(ctx, text);
    if (json && json_is_object(json)) {
        *out = json;
        return EQAT_OK;
    }
    if (json) {
        json_decref(json);
        return eqi_fail(ctx, EQAT_FORMAT,
                        "%s: found JSON that is not an object, expected an object", path);
    }
    /* Some of its failed allocations leave jansson without a word. */
    if (json_error_code(&e) == json_error_out_of_memory || !e.text[0]) return eqi_json_memory(ctx);
    return eqi_fail(ctx, EQAT_FORMAT, "%s: line %d, column %d: %s, expected JSON", path, e.line,
                    e.column, e.text);
}

eqat_status eqi_json_read(eqi_ctx *ctx, const char *path, json_t **out)
{
    return read_json(ctx, path, 0, out);
}

eqat_status eqi_json_read_reals(eqi_ctx *ctx, const char *path, json_t **out)
{
    return read_json(ctx, path, JSON_DECODE_INT_AS_REAL, out);
}

const char *eqi_json_type(const json_t *json)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    return type ? type : "";
}

eqat_status eqi_json_bool(eqi_ctx *ctx, const json_t *json, const char *key, bool absent, bool *out,
                          const char *where)
{
    const json_t *value = json_object_get(json, key);
    *out = absent;
    if (!value || json_is_null(value)) return EQAT_OK;
    if (!json_is_boolean(value))
        return eqi_fail(ctx, EQAT_FORMAT,
                        "%s: %s: found something else, expected true or false as \"%s\"", where,
                        eqi_json_type(json), key);
    *out = json_is_true(value);
    return EQAT_OK;
}

eqat_status eqi_json_text(eqi_ctx *ctx, const json_t *json, const char *key, const char **out,
                          size_t *n, const char *where)
{
    const json_t *value = json_object_get(json, key);
    if (!json_is_string(value))
        return eqi_fail(ctx, EQAT_FORMAT, "%s: %s: expected a string as \"%s\"", where,
                        eqi_json_type(json), key);
    *out = json_string_value(value);
    *n = json_string_length(value);
    return EQAT_OK;
}

eqat_status eqi_json_pattern(eqi_ctx *ctx, const json_t *json, const char **text, size_t *n,
                             bool *regex, const char *where)
{
    const json_t *pattern = json_object_get(json, "pattern"),
                 *value = json_object_get(pattern, "Regex");
    *regex = value != NULL;
    if (!value) value = json_object_get(pattern, "String");
    if (!json_is_string(value) || !json_string_length(value))
        return eqi_fail(ctx, EQAT_FORMAT,
                        "%s: %s: expected a pattern that is a String or a Regex and not empty",
                        where, eqi_json_type(json));
    *text = json_string_value(value);
    *n = json_string_length(value);
    return EQAT_OK;
}
