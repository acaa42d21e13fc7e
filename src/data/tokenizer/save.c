/* Writing a tokenizer's files into an output folder. */
#include <stdlib.h>

#include "base/file.h"
#include "data/tokenizer/tokenizer.h"

#define LIMIT (SIZE_MAX / 2)

eqat_status eqi_tokenizer_copy(eqi_ctx *ctx, const char *from, const char *to, size_t limit)
{
    static const char *const carried[] = {"tokenizer.json",
                                          "tokenizer_config.json",
                                          "special_tokens_map.json",
                                          "added_tokens.json",
                                          "vocab.json",
                                          "merges.txt",
                                          "tokenizer.model",
                                          "chat_template.jinja"};
    for (size_t i = 0; i < EQI_COUNT(carried); i++)
        EQI_RETURN_IF(eqi_copy_inside(ctx, from, to, carried[i], limit));
    return EQAT_OK;
}

/* Not of a folder: a link in its place is the caller's own. */
static eqat_status copy(eqi_ctx *ctx, const char *from, const char *dir)
{
    char *text = NULL, *to = eqi_path_join(ctx, dir, "tokenizer.json");
    size_t n;
    eqat_status st = to ? eqi_file_slurp(ctx, from, LIMIT, &text, &n) : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK) st = eqi_write_file(ctx, to, text, n);
    eqi_free(ctx, text);
    eqi_free(ctx, to);
    return st;
}

static eqat_status write_json(eqi_ctx *ctx, const char *dir, const char *name, const json_t *json)
{
    char *text = json_dumps(json, JSON_INDENT(1));
    if (!text) return eqi_json_memory(ctx);
    char *path = eqi_path_join(ctx, dir, name);
    eqat_status st = path ? eqi_write_file(ctx, path, text, strlen(text)) : EQAT_OUT_OF_MEMORY;
    eqi_free(ctx, path);
    free(text);
    return st;
}

eqat_status eqat_tokenizer_save(const eqat_tokenizer *t, const char *dir)
{
    EQI_ENTER_OF(t);
    EQI_NEED(t->ctx, dir);
    eqi_ctx *ctx = t->ctx;
    if (!eqi_path_is_dir(dir))
        return eqi_fail(ctx, EQAT_NOT_FOUND, "%s: expected an existing folder", dir);
    if (t->source == EQI_TOKENIZER_FOLDER) return eqi_tokenizer_copy(ctx, t->path, dir, LIMIT);
    if (t->source == EQI_TOKENIZER_JSON) return copy(ctx, t->path, dir);
    eqi_definition d = {0};
    json_t *config = NULL;
    eqat_status st = eqi_define_gguf(ctx, t->path, &d, &config);
    if (st == EQAT_OK) st = write_json(ctx, dir, "tokenizer.json", d.tokenizer);
    if (st == EQAT_OK) st = write_json(ctx, dir, "tokenizer_config.json", config);
    json_decref(config);
    eqi_definition_free(ctx, &d);
    return st;
}
