/* Definitions out of the vocabularies inside GGUF files, laid out as the tokenizer.json they were
 * once converted from. */
#include <stdio.h>

#include "data/tokenizer/gguf_pre.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"
#include "format/gguf.h"

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

static int64_t type_of(const eqi_gguf_vocab *v, int64_t i)
{
    int64_t type;
    return eqi_gguf_array_int(v->file, "tokenizer.ggml.token_type", i, &type) ? type : NORMAL;
}

static eqat_status fail_key(const eqi_gguf_vocab *v, const char *key, const char *expected)
{
    return eqi_fail(v->ctx, EQAT_FORMAT, "%s: %s: expected %s", v->path, key, expected);
}

static eqat_status read_tokens(eqi_gguf_vocab *v)
{
    static const char key[] = "tokenizer.ggml.tokens";
    v->count = eqi_gguf_array_count(v->file, key);
    if (v->count <= 0 || v->count > EQI_VOCAB_MAX)
        return fail_key(v, key, "between 1 and 4194304 tokens");
    int64_t types = eqi_gguf_array_count(v->file, "tokenizer.ggml.token_type");
    if (types >= 0 && types != v->count)
        return fail_key(v, "tokenizer.ggml.token_type", "as many entries as tokens");
    v->vocab = json_object();
    if (!v->vocab) return eqi_json_memory(v->ctx);
    for (int64_t i = 0; i < v->count; i++) {
        size_t n;
        char empty[32];
        const char *s = eqi_gguf_array_string(v->file, key, i, &n);
        if (!s) return fail_key(v, key, "strings");
        if (!n) {
            n = (size_t)snprintf(empty, sizeof empty, "[EMPTY_%lld]", (long long)i);
            s = empty;
        }
        if (memchr(s, 0, n) || eqi_utf8_valid(s, n) != n)
            return eqi_fail(v->ctx, EQAT_FORMAT,
                            "%s: %s: token %lld is not UTF-8 or has a NUL in it", v->path, key,
                            (long long)i);
        if (json_object_get(v->vocab, s))
            return eqi_fail(v->ctx, EQAT_FORMAT,
                            "%s: %s: tokens %lld and %lld are the same, \"%.60s\"", v->path, key,
                            (long long)json_integer_value(json_object_get(v->vocab, s)),
                            (long long)i, s);
        if (json_object_set_new(v->vocab, s, json_integer(i)) != 0) return eqi_json_memory(v->ctx);
    }
    return EQAT_OK;
}

/* Some files call <|endoftext|> a normal token although it ends their texts. */
static bool is(const char *text, const char *special) { return special && !strcmp(text, special); }

static eqat_status added_tokens(const eqi_gguf_vocab *v, const eqi_definition *d, json_t *list)
{
    const char *text;
    json_t *id;
    json_object_foreach(v->vocab, text, id)
    {
        int64_t type = type_of(v, json_integer_value(id));
        if (is(text, d->bos) || is(text, d->eos)) type = CONTROL;
        if (type != UNKNOWN && type != CONTROL && type != USER_DEFINED) continue;
        json_t *token = json_pack("{s:O, s:s, s:b, s:b, s:b, s:b, s:b}", "id", id, "content", text,
                                  "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0,
                                  "special", type != USER_DEFINED);
        if (!token || json_array_append_new(list, token) != 0) return eqi_json_memory(v->ctx);
    }
    return EQAT_OK;
}

static eqat_status merge_list(const eqi_gguf_vocab *v, json_t *list)
{
    static const char key[] = "tokenizer.ggml.merges";
    int64_t count = eqi_gguf_array_count(v->file, key);
    if (count < 0) return fail_key(v, key, "a list of merges");
    for (int64_t i = 0; i < count; i++) {
        size_t n;
        const char *s = eqi_gguf_array_string(v->file, key, i, &n);
        if (!s || eqi_utf8_valid(s, n) != n)
            return eqi_fail(v->ctx, EQAT_FORMAT, "%s: %s: entry %lld is not UTF-8 text", v->path,
                            key, (long long)i);
        if (json_array_append_new(list, json_stringn(s, n)) != 0) return eqi_json_memory(v->ctx);
    }
    return EQAT_OK;
}

static const char *token_at(const eqi_gguf_vocab *v, int64_t id)
{
    const char *text;
    json_t *value;
    if (id >= 0 && id < v->count)
        json_object_foreach(v->vocab, text, value) if (json_integer_value(value) == id) return text;
    return NULL;
}

/* BOS, EOS and the like; absent is used when the file does not say, -1 for none. */
static eqat_status special(const eqi_gguf_vocab *v, const char *key, int64_t absent, char **out)
{
    int64_t id = absent;
    if (!eqi_gguf_int(v->file, key, &id) && (id < 0 || id >= v->count)) return EQAT_OK;
    const char *text = token_at(v, id);
    if (!text)
        return eqi_fail(v->ctx, EQAT_FORMAT, "%s: %s: found id %lld, expected one below %lld",
                        v->path, key, (long long)id, (long long)v->count);
    *out = eqi_strdup(v->ctx, text);
    return *out ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

/* jansson runs out of memory by returning NULL or not appending; whoever builds a list remembers
 * it. */
static void append(json_t *list, json_t *item, bool *bad)
{
    *bad |= json_array_append_new(list, item) != 0;
}

static void set(json_t *object, const char *key, json_t *value, bool *bad)
{
    *bad |= json_object_set_new(object, key, value) != 0;
}

/* What stands in front of a text and behind, alone (sequence A) or followed by another (B). */
static json_t *template(const eqi_gguf_vocab *v, const char *bos, const char *eos, bool *bad)
{
    json_t *single = json_array(), *pair = json_array(), *specials = json_object();
    const char *around[] = {bos, NULL, eos};
    for (int copy = 0; copy < 2; copy++) {
        for (int k = 0; k < 3; k++) {
            if (k != 1 && !around[k]) continue;
            json_t *piece = json_pack("{s:{s:s, s:i}}", k == 1 ? "Sequence" : "SpecialToken", "id",
                                      k != 1     ? around[k]
                                          : copy ? "B"
                                                 : "A",
                                      "type_id", copy);
            if (!copy) append(single, json_incref(piece), bad);
            append(pair, piece, bad);
            if (k != 1 && !copy)
                set(specials, around[k],
                    json_pack("{s:s, s:[O], s:[s]}", "id", around[k], "ids",
                              json_object_get(v->vocab, around[k]), "tokens", around[k]),
                    bad);
        }
    }
    return json_pack("{s:s, s:o, s:o, s:o}", "type", "TemplateProcessing", "single", single, "pair",
                     pair, "special_tokens", specials);
}

static json_t *byte_level(bool use_regex)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                     "trim_offsets", 1, "use_regex", use_regex);
}

static json_t *pre_tokenizer(const eqi_gguf_pre *p, bool *bad)
{
    json_t *list = json_array();
    if (p->digits)
        append(list, json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1), bad);
    for (size_t i = 0; i < EQI_COUNT(p->patterns) && p->patterns[i]; i++)
        append(list,
               json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                         p->patterns[i], "behavior", "Isolated", "invert", 0),
               bad);
    append(list, byte_level(!p->patterns[0]), bad);
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", list);
}

static eqat_status gpt2_kind(eqi_gguf_vocab *v, json_t *model, json_t *out, bool *add_bos)
{
    size_t n;
    const char *name = eqi_gguf_string(v->file, "tokenizer.ggml.pre", &n);
    if (!name) name = "default";
    const eqi_gguf_pre *p = eqi_gguf_pre_find(name);
    if (!p)
        return eqi_fail(v->ctx, EQAT_UNSUPPORTED,
                        "%s: tokenizer.ggml.pre \"%.60s\" is not supported", v->path, name);
    *add_bos = p->add_bos;
    bool bad = false;
    if (p->nfc) set(out, "normalizer", json_pack("{s:s}", "type", "NFC"), &bad);
    set(out, "pre_tokenizer", pre_tokenizer(p, &bad), &bad);
    set(out, "decoder", byte_level(true), &bad);
    set(model, "ignore_merges", json_boolean(p->ignore_merges), &bad);
    json_t *merges = json_array();
    set(model, "merges", merges, &bad);
    return bad ? eqi_json_memory(v->ctx) : merge_list(v, merges);
}

static eqat_status llama_kind(eqi_gguf_vocab *v, json_t *model, json_t *out, const char *unk)
{
    bool prefix = true, bad = false;
    if (eqi_gguf_array_count(v->file, "tokenizer.ggml.precompiled_charsmap") > 0)
        return eqi_fail(v->ctx, EQAT_UNSUPPORTED,
                        "%s: tokenizer.ggml.precompiled_charsmap is not supported", v->path);
    eqi_gguf_bool(v->file, "tokenizer.ggml.add_space_prefix", &prefix);
    json_t *steps = json_array(), *decoders = json_array(), *merges = NULL;
    if (prefix)
        append(steps, json_pack("{s:s, s:s}", "type", "Prepend", "prepend", "\xe2\x96\x81"), &bad);
    append(steps,
           json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", " ", "content",
                     "\xe2\x96\x81"),
           &bad);
    append(decoders,
           json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", "\xe2\x96\x81",
                     "content", " "),
           &bad);
    append(decoders, json_pack("{s:s}", "type", "ByteFallback"), &bad);
    append(decoders, json_pack("{s:s}", "type", "Fuse"), &bad);
    if (prefix)
        append(decoders,
               json_pack("{s:s, s:s, s:i, s:i}", "type", "Strip", "content", " ", "start", 1,
                         "stop", 0),
               &bad);
    set(out, "normalizer", json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", steps), &bad);
    set(out, "decoder", json_pack("{s:s, s:o}", "type", "Sequence", "decoders", decoders), &bad);
    set(model, "byte_fallback", json_boolean(json_object_get(v->vocab, "<0x00>") != NULL), &bad);
    set(model, "fuse_unk", json_true(), &bad);
    if (unk) set(model, "unk_token", json_string(unk), &bad);
    if (bad) return eqi_json_memory(v->ctx);
    EQI_RETURN_IF(eqi_gguf_merges_from_scores(v, &merges));
    set(model, "merges", merges, &bad);
    return bad ? eqi_json_memory(v->ctx) : EQAT_OK;
}

static eqat_status config_json(const eqi_gguf_vocab *v, const eqi_definition *d, const char *pad,
                               json_t **out)
{
    json_t *c = json_pack("{s:b, s:s, s:s*, s:s*, s:s*, s:s*}", "clean_up_tokenization_spaces", 0,
                          "tokenizer_class", "PreTrainedTokenizerFast", "bos_token", d->bos,
                          "eos_token", d->eos, "unk_token", d->unk, "pad_token", pad);
    size_t n;
    const char *chat = eqi_gguf_string(v->file, "tokenizer.chat_template", &n);
    if (!c) return eqi_json_memory(v->ctx);
    *out = c;
    if (!chat) return EQAT_OK;
    if (eqi_utf8_valid(chat, n) != n) return fail_key(v, "tokenizer.chat_template", "UTF-8 text");
    return json_object_set_new(c, "chat_template", json_stringn(chat, n)) == 0
        ? EQAT_OK
        : eqi_json_memory(v->ctx);
}

static void tell_missing_rules(const eqi_gguf_vocab *v)
{
    size_t n;
    if (eqi_gguf_string(v->file, "tokenizer.ggml.pre", &n)) return;
    eqi_log(v->ctx, EQI_LOG_WARN,
            "%s: found no tokenizer.ggml.pre, expected the name of the rules that split text: the "
            "ids may not be those of the model's own tokenizer",
            v->path);
}

static eqat_status define(eqi_gguf_vocab *v, eqi_definition *d, json_t **config)
{
    size_t n;
    bool add_bos = true, add_eos = false;
    char *pad = NULL;
    const char *kind = eqi_gguf_string(v->file, "tokenizer.ggml.model", &n);
    if (!kind)
        return eqi_fail(v->ctx, EQAT_NOT_FOUND,
                        "%s: found no tokenizer, expected tokenizer.ggml.model", v->path);
    if (!strcmp(kind, "none") || !strcmp(kind, "no_vocab"))
        return eqi_fail(v->ctx, EQAT_NOT_FOUND, "%s: found no tokenizer", v->path);
    bool llama = !strcmp(kind, "llama");
    if (!llama && strcmp(kind, "gpt2") != 0)
        return eqi_fail(v->ctx, EQAT_UNSUPPORTED,
                        "%s: tokenizer.ggml.model \"%.60s\" is not supported, gpt2 and llama are",
                        v->path, kind);
    EQI_RETURN_IF(read_tokens(v));
    EQI_RETURN_IF(special(v, "tokenizer.ggml.bos_token_id", llama ? 1 : -1, &d->bos));
    EQI_RETURN_IF(special(v, "tokenizer.ggml.eos_token_id", llama ? 2 : -1, &d->eos));
    EQI_RETURN_IF(special(v, "tokenizer.ggml.unknown_token_id", llama ? 0 : -1, &d->unk));
    json_t *model =
        json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:O}", "type", "BPE", "dropout",
                  "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                  "byte_fallback", 0, "ignore_merges", 0, "vocab", v->vocab);
    d->tokenizer = json_pack("{s:s, s:n, s:n, s:[], s:n, s:n, s:n, s:n, s:o}", "version", "1.0",
                             "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
                             "post_processor", "decoder", "model", model);
    if (!d->tokenizer) return eqi_json_memory(v->ctx);
    EQI_RETURN_IF(added_tokens(v, d, json_object_get(d->tokenizer, "added_tokens")));
    EQI_RETURN_IF(llama ? llama_kind(v, model, d->tokenizer, d->unk)
                        : gpt2_kind(v, model, d->tokenizer, &add_bos));
    eqi_gguf_bool(v->file, "tokenizer.ggml.add_bos_token", &add_bos);
    eqi_gguf_bool(v->file, "tokenizer.ggml.add_eos_token", &add_eos);
    if ((add_bos && d->bos) || (add_eos && d->eos)) {
        bool bad = false;
        set(d->tokenizer, "post_processor",
            template(v, add_bos ? d->bos : NULL, add_eos ? d->eos : NULL, &bad), &bad);
        if (bad) return eqi_json_memory(v->ctx);
    }
    if (!config && !llama) tell_missing_rules(v);
    if (!config) return EQAT_OK;
    eqat_status st = special(v, "tokenizer.ggml.padding_token_id", -1, &pad);
    if (st == EQAT_OK) st = config_json(v, d, pad, config);
    eqi_free(v->ctx, pad);
    return st;
}

eqat_status eqi_define_gguf(eqi_ctx *ctx, const char *path, eqi_definition *d, json_t **config)
{
    eqi_gguf *file;
    EQI_RETURN_IF(eqi_gguf_open(ctx, &file, path));
    eqi_gguf_vocab v = {.ctx = ctx, .file = file, .path = path};
    d->where = eqi_strdup(ctx, path);
    eqat_status st = d->where ? define(&v, d, config) : EQAT_OUT_OF_MEMORY;
    json_decref(v.vocab);
    eqi_gguf_close(file);
    return st;
}
