/* Definitions out of Hugging Face folders. */
#include <stdlib.h>

#include "base/file.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"

#define QWEN2_PATTERN                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| " \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

void eqi_definition_free(eqi_ctx *ctx, eqi_definition *d)
{
    json_decref(d->tokenizer);
    eqi_free(ctx, d->bos);
    eqi_free(ctx, d->eos);
    eqi_free(ctx, d->unk);
    eqi_free(ctx, d->where);
    *d = (eqi_definition){0};
}

/* A JSON file of settings that may be missing: *out is then NULL. */
static eqat_status optional(eqi_ctx *ctx, const char *dir, const char *name, json_t **out)
{
    *out = NULL;
    char *path = eqi_path_join(ctx, dir, name);
    if (!path) return EQAT_OUT_OF_MEMORY;
    eqat_status st = eqi_path_check_inside(ctx, path);
    if (st == EQAT_OK && eqi_path_exists(path)) st = eqi_json_read_reals(ctx, path, out);
    eqi_free(ctx, path);
    return st;
}

/* A special token: "text" or {"content": "text"}. */
static const char *special(const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

static eqat_status name_special(eqi_ctx *ctx, const json_t *config, const json_t *map,
                                const char *key, char **out)
{
    const char *text = special(config, key);
    if (!text) text = special(map, key);
    if (!text || *out) return EQAT_OK;
    *out = eqi_strdup(ctx, text);
    return *out ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

static eqat_status name_specials(eqi_ctx *ctx, const json_t *config, const json_t *map,
                                 eqi_definition *d)
{
    EQI_RETURN_IF(name_special(ctx, config, map, "bos_token", &d->bos));
    EQI_RETURN_IF(name_special(ctx, config, map, "eos_token", &d->eos));
    return name_special(ctx, config, map, "unk_token", &d->unk);
}

eqat_status eqi_define_json(eqi_ctx *ctx, const char *path, eqi_definition *d)
{
    json_t *config = NULL, *map = NULL;
    char *dir = eqi_strdup(ctx, path);
    d->where = eqi_strdup(ctx, path);
    eqat_status st = dir && d->where ? eqi_json_read(ctx, path, &d->tokenizer) : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK) {
        char *slash = strrchr(dir, '/');
        if (slash)
            slash[slash == dir] = 0;
        else
            memcpy(dir, ".", 2);
        st = optional(ctx, dir, "tokenizer_config.json", &config);
    }
    if (st == EQAT_OK) st = optional(ctx, dir, "special_tokens_map.json", &map);
    if (st == EQAT_OK) st = name_specials(ctx, config, map, d);
    json_decref(config);
    json_decref(map);
    eqi_free(ctx, dir);
    return st;
}

static eqat_status read_merges(eqi_ctx *ctx, const char *path, json_t **out)
{
    char *text;
    size_t n, line = 0;
    EQI_RETURN_IF(eqi_file_slurp(ctx, path, (size_t)1 << 30, &text, &n));
    eqat_status st = EQAT_OK;
    json_t *list = json_array();
    if (!list) st = eqi_json_memory(ctx);
    for (size_t i = 0, end; st == EQAT_OK && i < n; i = end + 1) {
        const char *p = memchr(text + i, '\n', n - i);
        end = p ? (size_t)(p - text) : n;
        size_t length = end - i;
        line++;
        if (length && text[i + length - 1] == '\r') length--;
        if (!length || (length >= 8 && !memcmp(text + i, "#version", 8))) continue;
        if (eqi_utf8_valid(text + i, length) != length)
            st = eqi_fail(ctx, EQAT_FORMAT,
                          "%s: line %zu: found bytes that are not UTF-8, expected two tokens", path,
                          line);
        else if (json_array_append_new(list, json_stringn(text + i, length)) != 0)
            st = eqi_json_memory(ctx);
    }
    eqi_free(ctx, text);
    if (st == EQAT_OK)
        *out = list;
    else
        json_decref(list);
    return st;
}

static bool is_special(const json_t *config, const json_t *map, const char *text)
{
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "pad_token",
                                       "sep_token", "cls_token", "mask_token"};
    const json_t *both[] = {config, map};
    for (size_t k = 0; k < 2; k++) {
        for (size_t i = 0; i < EQI_COUNT(keys); i++) {
            const char *s = special(both[k], keys[i]);
            if (s && !strcmp(s, text)) return true;
        }
        const json_t *item;
        size_t i;
        json_array_foreach(json_object_get(both[k], "additional_special_tokens"), i, item)
        {
            const char *s =
                json_string_value(json_is_object(item) ? json_object_get(item, "content") : item);
            if (s && !strcmp(s, text)) return true;
        }
    }
    return false;
}

static int by_id(const void *a, const void *b)
{
    json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "id")),
               y = json_integer_value(json_object_get(*(json_t *const *)b, "id"));
    return x < y ? -1 : x > y;
}

/* Puts the objects of a list in the order of their ids. */
static eqat_status sort_by_id(eqi_ctx *ctx, json_t *list)
{
    size_t n = json_array_size(list);
    json_t **items = eqi_alloc(ctx, n * sizeof *items, "added tokens");
    if (!items) return EQAT_OUT_OF_MEMORY;
    for (size_t i = 0; i < n; i++) items[i] = json_incref(json_array_get(list, i));
    qsort(items, n, sizeof *items, by_id);
    for (size_t i = 0; i < n; i++) json_array_set_new(list, i, items[i]);
    eqi_free(ctx, items);
    return EQAT_OK;
}

/* added_tokens_decoder of tokenizer_config.json ({"id": {token}}), or added_tokens.json ({"text":
 * id}), or the special tokens that are in the vocabulary. */
static eqat_status added_tokens(eqi_ctx *ctx, const json_t *config, const json_t *map,
                                const json_t *added, const json_t *vocab, json_t *out)
{
    json_t *table = json_object_get(config, "added_tokens_decoder"), *item;
    const char *key;
    if (json_is_object(table)) {
        json_object_foreach(table, key, item)
        {
            char *end;
            long long id = strtoll(key, &end, 10);
            bool good = json_is_object(item) && end != key && !*end;
            json_t *copy = good ? json_copy(item) : NULL;
            if (!good)
                return eqi_fail(ctx, EQAT_FORMAT,
                                "tokenizer_config.json: added_tokens_decoder: \"%.60s\": expected "
                                "an id and an object",
                                key);
            if (json_object_set_new(copy, "id", json_integer(id)) != 0) {
                json_decref(copy);
                return eqi_json_memory(ctx);
            }
            if (json_array_append_new(out, copy) != 0) return eqi_json_memory(ctx);
        }
    } else if (added) {
        json_object_foreach((json_t *)added, key, item)
        {
            json_t *token =
                json_pack("{s:I, s:s, s:b, s:b}", "id", (json_int_t)json_number_value(item),
                          "content", key, "special", is_special(config, map, key), "normalized", 0);
            if (!token || json_array_append_new(out, token) != 0) return eqi_json_memory(ctx);
        }
    } else {
        json_object_foreach((json_t *)vocab, key, item)
        {
            if (strcmp(key, "<|endoftext|>") != 0 && !is_special(config, map, key)) continue;
            json_t *token = json_pack("{s:O, s:s, s:b, s:b}", "id", item, "content", key, "special",
                                      1, "normalized", 0);
            if (!token || json_array_append_new(out, token) != 0) return eqi_json_memory(ctx);
        }
    }
    return sort_by_id(ctx, out);
}

static eqat_status default_special(eqi_ctx *ctx, const json_t *vocab, char **out)
{
    if (*out || !json_object_get(vocab, "<|endoftext|>")) return EQAT_OK;
    *out = eqi_strdup(ctx, "<|endoftext|>");
    return *out ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

/* GPT2Tokenizer and Qwen2Tokenizer, as their conversions to tokenizer.json say. */
static eqat_status assemble(eqi_ctx *ctx, const char *dir, const json_t *config, const json_t *map,
                            const json_t *added, json_t *vocab, json_t *merges, eqi_definition *d)
{
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    bool qwen = class && (!strcmp(class, "Qwen2Tokenizer") || !strcmp(class, "Qwen2TokenizerFast"));
    if (class && !qwen && strcmp(class, "GPT2Tokenizer") != 0 &&
        strcmp(class, "GPT2TokenizerFast") != 0)
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: vocab.json with tokenizer_class \"%.60s\" is not supported, "
                        "GPT2Tokenizer and Qwen2Tokenizer are",
                        dir, class);
    int prefix = json_is_true(json_object_get(config, "add_prefix_space"));
    EQI_RETURN_IF(name_specials(ctx, config, map, d));
    if (!config) {
        EQI_RETURN_IF(default_special(ctx, vocab, &d->bos));
        EQI_RETURN_IF(default_special(ctx, vocab, &d->eos));
    }
    json_t *split = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space",
                              prefix, "trim_offsets", 0, "use_regex", !qwen);
    if (qwen)
        split = json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence",
                          "pretokenizers", "type", "Split", "pattern", "Regex", QWEN2_PATTERN,
                          "behavior", "Isolated", "invert", 0, split);
    d->tokenizer = json_pack("{s:o, s:{s:s}, s:{s:s, s:O, s:O}, s:[]}", "pre_tokenizer", split,
                             "decoder", "type", "ByteLevel", "model", "type", "BPE", "vocab", vocab,
                             "merges", merges, "added_tokens");
    if (!d->tokenizer) return eqi_json_memory(ctx);
    if (qwen &&
        json_object_set_new(d->tokenizer, "normalizer", json_pack("{s:s}", "type", "NFC")) != 0)
        return eqi_json_memory(ctx);
    if (!qwen && d->bos && json_is_true(json_object_get(config, "add_bos_token"))) {
        if (!json_object_get(vocab, d->bos))
            return eqi_fail(ctx, EQAT_FORMAT,
                            "%s: add_bos_token is true, but \"%.60s\" is not in the vocabulary",
                            dir, d->bos);
        json_t *post =
            json_pack("{s:s, s:[{s:{s:s}}, {s:{s:s}}], s:{s:{s:[O]}}}", "type",
                      "TemplateProcessing", "single", "SpecialToken", "id", d->bos, "Sequence",
                      "id", "A", "special_tokens", d->bos, "ids", json_object_get(vocab, d->bos));
        if (json_object_set_new(d->tokenizer, "post_processor", post) != 0)
            return eqi_json_memory(ctx);
    }
    return added_tokens(ctx, config, map, added, vocab,
                        json_object_get(d->tokenizer, "added_tokens"));
}

static eqat_status vocab_and_merges(eqi_ctx *ctx, const char *dir, const char *vocab_path,
                                    const char *merges_path, eqi_definition *d)
{
    json_t *config = NULL, *map = NULL, *added = NULL, *vocab = NULL, *merges = NULL;
    eqat_status st;
    d->where = eqi_strdup(ctx, vocab_path);
    if (!d->where) return EQAT_OUT_OF_MEMORY;
    EQI_GOTO(done, optional(ctx, dir, "tokenizer_config.json", &config));
    EQI_GOTO(done, optional(ctx, dir, "special_tokens_map.json", &map));
    EQI_GOTO(done, optional(ctx, dir, "added_tokens.json", &added));
    EQI_GOTO(done, eqi_json_read(ctx, vocab_path, &vocab));
    EQI_GOTO(done, read_merges(ctx, merges_path, &merges));
    EQI_GOTO(done, assemble(ctx, dir, config, map, added, vocab, merges, d));
done:
    json_decref(config);
    json_decref(map);
    json_decref(added);
    json_decref(vocab);
    json_decref(merges);
    return st;
}

eqat_status eqi_define_folder(eqi_ctx *ctx, const char *dir, eqi_definition *d)
{
    static const char *const names[] = {"tokenizer.json", "vocab.json", "merges.txt",
                                        "tokenizer.model"};
    char *paths[EQI_COUNT(names)] = {0};
    bool exists[EQI_COUNT(names)] = {0};
    eqat_status st = EQAT_OK;
    for (size_t i = 0; i < EQI_COUNT(names); i++) {
        paths[i] = eqi_path_join(ctx, dir, names[i]);
        if (!paths[i]) EQI_GOTO(done, EQAT_OUT_OF_MEMORY);
        EQI_GOTO(done, eqi_path_check_inside(ctx, paths[i]));
        exists[i] = eqi_path_exists(paths[i]);
    }
    if (exists[0])
        st = eqi_define_json(ctx, paths[0], d);
    else if (exists[1] && exists[2])
        st = vocab_and_merges(ctx, dir, paths[1], paths[2], d);
    else if (exists[3])
        st = eqi_fail(
            ctx, EQAT_UNSUPPORTED,
            "%s: tokenizer.model alone is not supported, expected tokenizer.json beside it", dir);
    else
        st = eqi_fail(
            ctx, EQAT_NOT_FOUND,
            "%s: found no tokenizer, expected tokenizer.json, or vocab.json and merges.txt", dir);
done:
    for (size_t i = 0; i < EQI_COUNT(names); i++) eqi_free(ctx, paths[i]);
    return st;
}
