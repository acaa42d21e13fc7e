/* Writing a tokenizer's files into an output folder. */
#include <stdlib.h>

#include "base/file.h"
#include "data/tokenizer/tokenizer.h"

static const char *const carried[] = {"tokenizer.json",
                                      "tokenizer_config.json",
                                      "special_tokens_map.json",
                                      "added_tokens.json",
                                      "vocab.json",
                                      "merges.txt",
                                      "tokenizer.model",
                                      "chat_template.jinja"};

static eqat_status copy(eqi_ctx *ctx, const char *from, const char *to, bool inside)
{
    char *text;
    size_t n;
    EQI_RETURN_IF(inside ? eqi_file_slurp_inside(ctx, from, SIZE_MAX / 2, &text, &n)
                         : eqi_file_slurp(ctx, from, SIZE_MAX / 2, &text, &n));
    eqat_status st = eqi_write_file(ctx, to, text, n);
    eqi_free(ctx, text);
    return st;
}

static eqat_status copy_folder(eqi_ctx *ctx, const char *from, const char *to)
{
    for (size_t i = 0; i < EQI_COUNT(carried); i++) {
        char *source = eqi_path_join(ctx, from, carried[i]),
             *target = eqi_path_join(ctx, to, carried[i]);
        eqat_status st = source && target ? EQAT_OK : EQAT_OUT_OF_MEMORY;
        if (st == EQAT_OK) st = eqi_path_check_inside(ctx, source);
        if (st == EQAT_OK && eqi_path_exists(source)) st = copy(ctx, source, target, true);
        eqi_free(ctx, source);
        eqi_free(ctx, target);
        EQI_RETURN_IF(st);
    }
    return EQAT_OK;
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
    if (t->source == EQI_TOKENIZER_FOLDER) return copy_folder(ctx, t->path, dir);
    if (t->source == EQI_TOKENIZER_JSON) {
        char *target = eqi_path_join(ctx, dir, carried[0]);
        eqat_status st = target ? copy(ctx, t->path, target, false) : EQAT_OUT_OF_MEMORY;
        eqi_free(ctx, target);
        return st;
    }
    eqi_definition d = {0};
    json_t *config = NULL;
    eqat_status st = eqi_define_gguf(ctx, t->path, &d, &config);
    if (st == EQAT_OK) st = write_json(ctx, dir, "tokenizer.json", d.tokenizer);
    if (st == EQAT_OK) st = write_json(ctx, dir, "tokenizer_config.json", config);
    json_decref(config);
    eqi_definition_free(ctx, &d);
    return st;
}
