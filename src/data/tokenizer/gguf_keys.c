#include "data/tokenizer/gguf_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "data/tokenizer/gguf_pre.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"

#define TEMPLATE_LIMIT ((size_t)16 << 20)
#define SPACE "\xe2\x96\x81" /* what SentencePiece writes for a space */

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, BYTE = 6 };

typedef struct keys {
    eqi_ctx *ctx;
    const eqat_tokenizer *t;
    eqi_gguf_writer *w;
    int64_t rows;
    eqi_definition d;
    const char **texts; /* of every id; NULL: none */
    int32_t *types;
} keys;

static eqat_status refuse(const keys *k, const char *what)
{
    return eqi_fail(k->ctx, EQAT_UNSUPPORTED, "%s: %s", k->d.where, what);
}

/* ---- tokens ---- */

static eqat_status set_token(keys *k, const char *text, const json_t *id, int32_t type)
{
    const json_int_t n = json_is_integer(id) ? json_integer_value(id) : -1;
    if (n < 0 || n >= k->rows)
        return eqi_fail(k->ctx, EQAT_UNSUPPORTED,
                        "%s: token \"%.60s\": found id %lld, expected one of the embedding's %lld "
                        "rows",
                        k->d.where, text, (long long)n, (long long)k->rows);
    k->texts[n] = text;
    k->types[n] = type;
    return EQAT_OK;
}

static bool is_byte(const char *text)
{
    return strlen(text) == 6 && !strncmp(text, "<0x", 3) && text[5] == '>';
}

static eqat_status collect(keys *k, bool sentencepiece)
{
    const char *text;
    json_t *id, *token;
    size_t i;
    json_object_foreach(json_object_get(json_object_get(k->d.tokenizer, "model"), "vocab"), text,
                        id)
        EQI_RETURN_IF(set_token(k, text, id, sentencepiece && is_byte(text) ? BYTE : NORMAL));
    json_array_foreach(json_object_get(k->d.tokenizer, "added_tokens"), i, token)
    {
        text = json_string_value(json_object_get(token, "content"));
        const bool special = json_is_true(json_object_get(token, "special"));
        const bool unknown = sentencepiece && text && k->d.unk && !strcmp(text, k->d.unk);
        if (text)
            EQI_RETURN_IF(set_token(k, text, json_object_get(token, "id"),
                                    unknown       ? UNKNOWN
                                        : special ? CONTROL
                                                  : USER_DEFINED));
    }
    return EQAT_OK;
}

/* SentencePiece's own tokens of spaces are read as text. */
static eqat_status add_user_defined(keys *k, const char *text)
{
    const size_t n = strlen(text), mark = sizeof SPACE - 1;
    char *plain = eqi_alloc(k->ctx, n + 1, "a token");
    size_t used = 0;
    if (!plain) return EQAT_OUT_OF_MEMORY;
    for (size_t i = 0; i < n;) {
        const bool space = !strncmp(text + i, SPACE, mark);
        plain[used++] = space ? ' ' : text[i];
        i += space ? mark : 1;
    }
    eqi_gguf_add_string(k->w, plain, used);
    eqi_free(k->ctx, plain);
    return EQAT_OK;
}

static eqat_status put_tokens(keys *k, bool sentencepiece)
{
    char unused[32];
    eqi_gguf_put_string_array(k->w, "tokenizer.ggml.tokens", (size_t)k->rows);
    for (int64_t i = 0; i < k->rows; i++) {
        if (!k->texts[i]) {
            const int n = snprintf(unused, sizeof unused, "[PAD%lld]", (long long)i);
            eqi_gguf_add_string(k->w, unused, (size_t)n);
            k->types[i] = UNUSED;
        } else if (sentencepiece && k->types[i] == USER_DEFINED) {
            EQI_RETURN_IF(add_user_defined(k, k->texts[i]));
        } else {
            eqi_gguf_add_string(k->w, k->texts[i], strlen(k->texts[i]));
        }
    }
    eqi_gguf_put_i32_array(k->w, "tokenizer.ggml.token_type", k->types, (size_t)k->rows);
    return EQAT_OK;
}

/* ---- merges ---- */

static const json_t *merges_of(const keys *k)
{
    return json_object_get(json_object_get(k->d.tokenizer, "model"), "merges");
}

/* The two halves of a merge, "left right" or a pair of texts. */
typedef struct merge {
    const char *left, *right;
    size_t left_size, right_size;
} merge;

static bool read_merge(const json_t *json, merge *m)
{
    if (json_is_array(json)) {
        const json_t *left = json_array_get(json, 0), *right = json_array_get(json, 1);
        *m = (merge){json_string_value(left), json_string_value(right), json_string_length(left),
                     json_string_length(right)};
        return m->left && m->right;
    }
    const char *text = json_string_value(json), *space = text ? strchr(text, ' ') : NULL;
    if (!space) return false;
    *m = (merge){text, space + 1, (size_t)(space - text), strlen(space + 1)};
    return true;
}

static eqat_status put_merges(keys *k)
{
    const json_t *list = merges_of(k), *item;
    size_t i;
    eqi_bytes text = {0};
    eqat_status st = EQAT_OK;
    eqi_gguf_put_string_array(k->w, "tokenizer.ggml.merges", json_array_size(list));
    json_array_foreach(list, i, item)
    {
        merge m;
        text.size = 0;
        if (!read_merge(item, &m)) {
            st = refuse(k, "merges: found one that is not two tokens");
            break;
        }
        EQI_GOTO(done, eqi_bytes_append(k->ctx, &text, m.left, m.left_size));
        EQI_GOTO(done, eqi_bytes_append(k->ctx, &text, " ", 1));
        EQI_GOTO(done, eqi_bytes_append(k->ctx, &text, m.right, m.right_size));
        eqi_gguf_add_string(k->w, text.data, text.size);
    }
done:
    eqi_bytes_free(k->ctx, &text);
    return st;
}

/* ---- the two kinds ---- */

static eqat_status put_byte_level(keys *k)
{
    const eqi_gguf_pre *pre = eqi_gguf_pre_recognise(k->d.tokenizer);
    if (!pre)
        return refuse(k, "pre_tokenizer: found one that tokenizer.ggml.pre has no known name for");
    eqi_gguf_put_string(k->w, "tokenizer.ggml.model", "gpt2");
    eqi_gguf_put_string(k->w, "tokenizer.ggml.pre", pre->name);
    EQI_RETURN_IF(collect(k, false));
    EQI_RETURN_IF(put_tokens(k, false));
    return put_merges(k);
}

/* A token's score is less the later it can be put together. Readers merge by the scores of what
 * comes out, whatever the halves: that is the list of merges when it has all ways to put a token
 * together, and has them one after the other. */
typedef struct scores {
    eqi_vocab texts;
    float *values;
    uint32_t *ways; /* of each token, in the list */
} scores;

static eqat_status rank_merges(keys *k, scores *s)
{
    const json_t *list = merges_of(k), *item;
    size_t i;
    int32_t last = EQI_NO_ID;
    eqi_bytes text = {0};
    eqat_status st = EQAT_OK;
    json_array_foreach(list, i, item)
    {
        merge m;
        text.size = 0;
        if (!read_merge(item, &m)) continue;
        EQI_GOTO(done, eqi_bytes_append(k->ctx, &text, m.left, m.left_size));
        EQI_GOTO(done, eqi_bytes_append(k->ctx, &text, m.right, m.right_size));
        const int32_t id = eqi_vocab_find(&s->texts, text.data, text.size);
        if (id == EQI_NO_ID) continue;
        if (id != last && s->ways[id])
            EQI_GOTO(done, refuse(k, "merges: found an order that no scores of tokens give"));
        if (!s->ways[id]) s->values[id] = -(float)i;
        s->ways[id]++;
        last = id;
    }
done:
    eqi_bytes_free(k->ctx, &text);
    return st;
}

/* Ways to cut a token into two. */
static uint32_t count_ways(const scores *s, const char *text, size_t n)
{
    uint32_t ways = 0;
    for (size_t i = eqi_utf8_length((unsigned char)text[0]); i < n;
         i += eqi_utf8_length((unsigned char)text[i]))
        ways += eqi_vocab_find(&s->texts, text, i) != EQI_NO_ID &&
            eqi_vocab_find(&s->texts, text + i, n - i) != EQI_NO_ID;
    return ways;
}

static eqat_status compute_scores(keys *k, scores *s)
{
    for (int64_t i = 0; i < k->rows; i++)
        if (k->texts[i])
            EQI_RETURN_IF(
                eqi_vocab_add(k->ctx, &s->texts, (int32_t)i, k->texts[i], strlen(k->texts[i])));
    s->values = eqi_calloc(k->ctx, (size_t)k->rows, sizeof *s->values, "scores of tokens");
    s->ways = eqi_calloc(k->ctx, (size_t)k->rows, sizeof *s->ways, "scores of tokens");
    if (!s->values || !s->ways) return EQAT_OUT_OF_MEMORY;
    const float none = -(float)json_array_size(merges_of(k)) - 1;
    for (int64_t i = 0; i < k->rows; i++) s->values[i] = k->types[i] == NORMAL ? none : 0;
    EQI_RETURN_IF(rank_merges(k, s));
    for (int64_t i = 0; i < k->rows; i++)
        if (k->texts[i] && k->types[i] == NORMAL && strlen(k->texts[i]) <= 4096 &&
            count_ways(s, k->texts[i], strlen(k->texts[i])) != s->ways[i])
            return eqi_fail(k->ctx, EQAT_UNSUPPORTED,
                            "%s: token \"%.60s\": found merges for some of the ways to put it "
                            "together, which no scores of tokens give",
                            k->d.where, k->texts[i]);
    return EQAT_OK;
}

/* A space in front of every text, as a normalizer or as Metaspace. */
static bool prepends(const json_t *step)
{
    const char *type = eqi_json_type(step), *scheme;
    size_t i;
    const json_t *inner;
    bool found = !strcmp(type, "Prepend");
    json_array_foreach(json_object_get(step, "normalizers"), i, inner) found |= prepends(inner);
    if (strcmp(type, "Metaspace") != 0) return found;
    scheme = json_string_value(json_object_get(step, "prepend_scheme"));
    return scheme ? strcmp(scheme, "never") != 0
                  : !json_is_false(json_object_get(step, "add_prefix_space"));
}

/* Nothing but what becomes of spaces. */
static bool spaces_alone(const json_t *step)
{
    static const char *const known[] = {"Prepend", "Replace", "Sequence", "Metaspace", "Split"};
    const char *type = eqi_json_type(step);
    size_t i;
    const json_t *inner;
    bool alone = !step || json_is_null(step);
    for (i = 0; i < EQI_COUNT(known); i++) alone |= !strcmp(type, known[i]);
    if (!strcmp(type, "Replace") || !strcmp(type, "Split")) {
        const char *what =
            json_string_value(json_object_get(json_object_get(step, "pattern"), "String"));
        alone = what && !strcmp(what, " ");
    }
    json_array_foreach(json_object_get(step, "normalizers"), i, inner) alone &= spaces_alone(inner);
    return alone && !json_object_get(step, "pretokenizers");
}

static eqat_status put_sentencepiece(keys *k)
{
    const json_t *normalizer = json_object_get(k->d.tokenizer, "normalizer"),
                 *pre = json_object_get(k->d.tokenizer, "pre_tokenizer");
    if (!spaces_alone(normalizer) || !spaces_alone(pre))
        return refuse(k, "normalizer and pre_tokenizer: found more than what becomes of spaces");
    eqi_gguf_put_string(k->w, "tokenizer.ggml.model", "llama");
    eqi_gguf_put_string(k->w, "tokenizer.ggml.pre", "default");
    eqi_gguf_put_bool(k->w, "tokenizer.ggml.add_space_prefix",
                      prepends(normalizer) || prepends(pre));
    EQI_RETURN_IF(collect(k, true));
    EQI_RETURN_IF(put_tokens(k, true));
    scores s = {.values = NULL};
    eqat_status st = compute_scores(k, &s);
    if (st == EQAT_OK)
        eqi_gguf_put_f32_array(k->w, "tokenizer.ggml.scores", s.values, (size_t)k->rows);
    eqi_vocab_free(k->ctx, &s.texts);
    eqi_free(k->ctx, s.values);
    eqi_free(k->ctx, s.ways);
    return st;
}

/* ---- what stands around ---- */

static void put_id(keys *k, const char *key, int32_t id)
{
    if (id != EQI_NO_ID) eqi_gguf_put_u32(k->w, key, (uint32_t)id);
}

static eqat_status put_around(keys *k)
{
    const eqat_tokenizer *t = k->t;
    put_id(k, "tokenizer.ggml.bos_token_id", t->bos);
    put_id(k, "tokenizer.ggml.eos_token_id", t->eos);
    put_id(k, "tokenizer.ggml.unknown_token_id", t->unk);
    const bool bos = t->before.size == 1 && t->before.data[0] == t->bos,
               eos = t->after.size == 1 && t->after.data[0] == t->eos;
    if ((t->before.size && !bos) || (t->after.size && !eos))
        return refuse(k, "post_processor: found other tokens than BOS in front and EOS behind");
    eqi_gguf_put_bool(k->w, "tokenizer.ggml.add_bos_token", bos);
    eqi_gguf_put_bool(k->w, "tokenizer.ggml.add_eos_token", eos);
    return EQAT_OK;
}

static const char *text_of(const json_t *value)
{
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

/* A template alone, or the one of a list that is called default. */
static const char *template_of(const json_t *config)
{
    const json_t *value = json_object_get(config, "chat_template"), *item;
    size_t i;
    json_array_foreach(value, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && !strcmp(name, "default"))
            return json_string_value(json_object_get(item, "template"));
    }
    return json_string_value(value);
}

static void put_config(keys *k, const json_t *config)
{
    const char *chat = template_of(config), *pad = text_of(json_object_get(config, "pad_token"));
    if (chat) eqi_gguf_put_string(k->w, "tokenizer.chat_template", chat);
    for (int64_t i = 0; pad && i < k->rows; i++)
        if (k->texts[i] && !strcmp(k->texts[i], pad)) {
            put_id(k, "tokenizer.ggml.padding_token_id", (int32_t)i);
            break;
        }
}

/* chat_template.jinja, which goes before the tokenizer_config.json beside it. */
static eqat_status read_template(keys *k, json_t *config)
{
    char *path = eqi_path_join(k->ctx, k->t->path, "chat_template.jinja"), *text = NULL;
    size_t n;
    eqat_status st = path ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK && eqi_path_exists(path)) {
        st = eqi_file_slurp(k->ctx, path, TEMPLATE_LIMIT, &text, &n);
        if (st == EQAT_OK && json_object_set_new(config, "chat_template", json_string(text)) != 0)
            st = refuse(k, "chat_template.jinja: expected UTF-8 text");
    }
    eqi_free(k->ctx, text);
    eqi_free(k->ctx, path);
    return st;
}

static eqat_status folder_config(keys *k, json_t **config)
{
    char *path = eqi_path_join(k->ctx, k->t->path, "tokenizer_config.json");
    eqat_status st = path ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK && eqi_path_exists(path)) st = eqi_json_read_reals(k->ctx, path, config);
    eqi_free(k->ctx, path);
    if (st == EQAT_OK && !*config) *config = json_object();
    if (st == EQAT_OK && !*config) st = eqi_json_memory(k->ctx);
    return st == EQAT_OK ? read_template(k, *config) : st;
}

static eqat_status define(keys *k, json_t **config)
{
    const char *path = k->t->path;
    switch (k->t->source) {
    case EQI_TOKENIZER_FOLDER:
        EQI_RETURN_IF(eqi_define_folder(k->ctx, path, &k->d));
        return folder_config(k, config);
    case EQI_TOKENIZER_JSON: return eqi_define_json(k->ctx, path, &k->d);
    case EQI_TOKENIZER_GGUF: return eqi_define_gguf(k->ctx, path, &k->d, config);
    }
    return EQAT_OK;
}

static eqat_status put_all(keys *k, json_t **config)
{
    EQI_RETURN_IF(define(k, config));
    k->texts = eqi_calloc(k->ctx, (size_t)k->rows, sizeof *k->texts, "the tokens of a file");
    k->types = eqi_calloc(k->ctx, (size_t)k->rows, sizeof *k->types, "the tokens of a file");
    if (!k->texts || !k->types) return EQAT_OUT_OF_MEMORY;
    const bool byte_level = k->t->bpe.byte_level;
    EQI_RETURN_IF(byte_level ? put_byte_level(k) : put_sentencepiece(k));
    EQI_RETURN_IF(put_around(k));
    put_config(k, *config);
    return EQAT_OK;
}

/* Of a GGUF file whose tokens are as many as the rows: what it says, word for word. */
static eqat_status copy_file(keys *k, bool *copied)
{
    eqi_gguf *g;
    EQI_RETURN_IF(eqi_gguf_open(k->ctx, &g, k->t->path));
    *copied = eqi_gguf_array_count(g, "tokenizer.ggml.tokens") == k->rows;
    if (*copied) eqi_gguf_put_copies(k->w, g, "tokenizer.");
    eqi_gguf_close(g);
    return EQAT_OK;
}

eqat_status eqi_gguf_put_tokenizer(eqi_ctx *ctx, const eqat_tokenizer *t, int64_t rows,
                                   eqi_gguf_writer *w)
{
    if (!t) {
        eqi_gguf_put_string(w, "tokenizer.ggml.model", "none");
        return EQAT_OK;
    }
    keys k = {.ctx = ctx, .t = t, .w = w, .rows = rows};
    json_t *config = NULL;
    bool copied = false;
    eqat_status st = t->source == EQI_TOKENIZER_GGUF ? copy_file(&k, &copied) : EQAT_OK;
    if (st == EQAT_OK && !copied) st = put_all(&k, &config);
    json_decref(config);
    eqi_definition_free(ctx, &k.d);
    eqi_free(ctx, k.texts);
    eqi_free(ctx, k.types);
    return st;
}
