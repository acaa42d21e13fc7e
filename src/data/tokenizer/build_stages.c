/* Normalizers, pre-tokenizers and decoders as tokenizer.json describes them. */
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"

/* GPT-2's rule, which ByteLevel implies. */
#define GPT2_PATTERN \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define WORDS_PATTERN "[\\w]+|[^\\w\\s]+"
#define LIST_DEPTH 8

typedef eqat_status (*one_fn)(eqi_ctx *ctx, void *to, const json_t *json, const char *where);

/* A component, or a Sequence of them under `key`, one inside the other. */
static eqat_status each(eqi_ctx *ctx, const json_t *json, const char *key, const char *what,
                        int depth, one_fn one, void *to, const char *where)
{
    if (!json || json_is_null(json)) return EQAT_OK;
    if (!json_is_object(json))
        return eqi_fail(ctx, EQAT_FORMAT, "%s: expected an object as %s", where, what);
    if (strcmp(eqi_json_type(json), "Sequence") != 0) return one(ctx, to, json, where);
    const json_t *list = json_object_get(json, key), *item;
    if (!json_is_array(list))
        return eqi_fail(ctx, EQAT_FORMAT, "%s: %s: expected a list as \"%s\" of a Sequence", where,
                        what, key);
    if (depth == LIST_DEPTH)
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: %s: a Sequence nested more than %d times is not supported", where,
                        what, LIST_DEPTH);
    size_t i;
    json_array_foreach(list, i, item)
        EQI_RETURN_IF(each(ctx, item, key, what, depth + 1, one, to, where));
    return EQAT_OK;
}

static eqat_status unsupported(eqi_ctx *ctx, const char *what, const json_t *json,
                               const char *where)
{
    return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: %s \"%.60s\" is not supported", where, what,
                    eqi_json_type(json));
}

static eqat_status copy_text(eqi_ctx *ctx, eqi_bytes *to, const json_t *json, const char *key,
                             const char *where)
{
    const char *s;
    size_t n;
    EQI_RETURN_IF(eqi_json_text(ctx, json, key, &s, &n, where));
    return eqi_bytes_append(ctx, to, s, n);
}

static eqat_status normalizer(eqi_ctx *ctx, void *to, const json_t *json, const char *where)
{
    static const char *const names[] = {"NFC",     "NFD",     "NFKC",      "NFKD",
                                        "Prepend", "Replace", "Lowercase", "Strip"};
    eqi_normalizers *all = to;
    size_t kind = 0;
    while (kind < EQI_COUNT(names) && strcmp(eqi_json_type(json), names[kind]) != 0) kind++;
    if (kind == EQI_COUNT(names)) return unsupported(ctx, "normalizer", json, where);
    eqi_normalizer *list =
        eqi_realloc(ctx, all->list, (all->count + 1) * sizeof *list, "normalizers");
    if (!list) return EQAT_OUT_OF_MEMORY;
    all->list = list;
    eqi_normalizer *k = &list[all->count++];
    *k = (eqi_normalizer){.kind = (eqi_normalizer_kind)kind};
    if (k->kind == EQI_NORMALIZE_PREPEND) return copy_text(ctx, &k->text, json, "prepend", where);
    if (k->kind == EQI_NORMALIZE_STRIP) {
        EQI_RETURN_IF(eqi_json_bool(ctx, json, "strip_left", false, &k->left, where));
        return eqi_json_bool(ctx, json, "strip_right", false, &k->right, where);
    }
    if (k->kind != EQI_NORMALIZE_REPLACE) return EQAT_OK;
    const char *s;
    size_t n;
    bool regex;
    EQI_RETURN_IF(eqi_json_pattern(ctx, json, &s, &n, &regex, where));
    EQI_RETURN_IF(copy_text(ctx, &k->text, json, "content", where));
    return regex ? eqi_regex_create(ctx, &k->regex, s, n, where)
                 : eqi_bytes_append(ctx, &k->literal, s, n);
}

eqat_status eqi_build_normalizer(eqi_ctx *ctx, eqi_normalizers *n, const json_t *json,
                                 const char *where)
{
    return each(ctx, json, "normalizers", "normalizer", 0, normalizer, n, where);
}

static eqat_status behavior(eqi_ctx *ctx, const json_t *json, bool optional, eqi_behavior *out,
                            const char *where)
{
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *s = "Isolated";
    size_t n, k = 0;
    if (!optional || json_object_get(json, "behavior"))
        EQI_RETURN_IF(eqi_json_text(ctx, json, "behavior", &s, &n, where));
    while (k < EQI_COUNT(names) && strcmp(s, names[k]) != 0) k++;
    if (k == EQI_COUNT(names))
        return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: %s: behavior \"%.60s\" is not supported", where,
                        eqi_json_type(json), s);
    *out = (eqi_behavior)k;
    return EQAT_OK;
}

static eqat_status metaspace_members(eqi_ctx *ctx, const json_t *json, const char **space,
                                     size_t *n, eqi_prepend *prepend, const char *where)
{
    EQI_RETURN_IF(eqi_json_text(ctx, json, "replacement", space, n, where));
    if (!*n || eqi_utf8_length((unsigned char)**space) != *n)
        return eqi_fail(ctx, EQAT_FORMAT,
                        "%s: Metaspace: found \"%.40s\", expected one character as \"replacement\"",
                        where, *space);
    static const char *const names[] = {"always", "first", "never"};
    const char *scheme = "always";
    size_t length, k = 0;
    bool prefix;
    EQI_RETURN_IF(eqi_json_bool(ctx, json, "add_prefix_space", true, &prefix, where));
    if (json_object_get(json, "prepend_scheme"))
        EQI_RETURN_IF(eqi_json_text(ctx, json, "prepend_scheme", &scheme, &length, where));
    while (k < EQI_COUNT(names) && strcmp(scheme, names[k]) != 0) k++;
    if (k == EQI_COUNT(names))
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: Metaspace: prepend_scheme \"%.60s\" is not supported", where, scheme);
    if (!prefix && k != EQI_PREPEND_NEVER && json_object_get(json, "prepend_scheme"))
        return eqi_fail(ctx, EQAT_FORMAT,
                        "%s: Metaspace: add_prefix_space is false, but prepend_scheme is \"%s\"",
                        where, scheme);
    *prepend = prefix ? (eqi_prepend)k : EQI_PREPEND_NEVER;
    return EQAT_OK;
}

static eqat_status stage(eqi_ctx *ctx, void *to, const json_t *json, const char *where)
{
    eqi_split *split = to;
    const char *type = eqi_json_type(json);
    if (split->count && split->stages[split->count - 1].kind == EQI_STAGE_BYTE_LEVEL)
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: pre-tokenizer \"%.60s\" behind ByteLevel is not supported", where,
                        type);
    if (split->count == EQI_STAGES_MAX)
        return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: more than %d pre-tokenizers are not supported",
                        where, EQI_STAGES_MAX);
    eqi_stage *k = &split->stages[split->count++];
    *k = (eqi_stage){0};
    if (!strcmp(type, "ByteLevel")) {
        bool prefix, regex;
        k->kind = EQI_STAGE_BYTE_LEVEL;
        EQI_RETURN_IF(eqi_json_bool(ctx, json, "add_prefix_space", true, &prefix, where));
        EQI_RETURN_IF(eqi_json_bool(ctx, json, "use_regex", true, &regex, where));
        k->prepend = prefix ? EQI_PREPEND_ALWAYS : EQI_PREPEND_NEVER;
        return regex
            ? eqi_regex_create(ctx, &k->regex, GPT2_PATTERN, sizeof GPT2_PATTERN - 1, where)
            : EQAT_OK;
    }
    if (!strcmp(type, "Split")) {
        const char *s;
        size_t n;
        bool regex;
        k->kind = EQI_STAGE_PATTERN;
        EQI_RETURN_IF(eqi_json_pattern(ctx, json, &s, &n, &regex, where));
        EQI_RETURN_IF(behavior(ctx, json, false, &k->behavior, where));
        EQI_RETURN_IF(eqi_json_bool(ctx, json, "invert", false, &k->invert, where));
        return (regex ? eqi_regex_create : eqi_regex_create_literal)(ctx, &k->regex, s, n, where);
    }
    if (!strcmp(type, "Digits")) {
        bool individual;
        k->kind = EQI_STAGE_DIGITS;
        EQI_RETURN_IF(eqi_json_bool(ctx, json, "individual_digits", false, &individual, where));
        k->behavior = individual ? EQI_ISOLATED : EQI_CONTIGUOUS;
        return EQAT_OK;
    }
    if (!strcmp(type, "Punctuation")) {
        k->kind = EQI_STAGE_PUNCTUATION;
        return behavior(ctx, json, true, &k->behavior, where);
    }
    if (!strcmp(type, "WhitespaceSplit")) {
        k->kind = EQI_STAGE_WHITESPACE_SPLIT;
        k->behavior = EQI_REMOVED;
        return EQAT_OK;
    }
    if (!strcmp(type, "Whitespace")) {
        k->kind = EQI_STAGE_PATTERN;
        k->behavior = EQI_REMOVED;
        k->invert = true;
        return eqi_regex_create(ctx, &k->regex, WORDS_PATTERN, sizeof WORDS_PATTERN - 1, where);
    }
    if (!strcmp(type, "Metaspace")) {
        const char *space;
        k->kind = EQI_STAGE_METASPACE;
        EQI_RETURN_IF(metaspace_members(ctx, json, &space, &k->space_length, &k->prepend, where));
        memcpy(k->space, space, k->space_length);
        return eqi_json_bool(ctx, json, "split", true, &k->split, where);
    }
    split->count--;
    return unsupported(ctx, "pre-tokenizer", json, where);
}

eqat_status eqi_build_split(eqi_ctx *ctx, eqi_split *split, const json_t *json, const char *where)
{
    return each(ctx, json, "pretokenizers", "pre-tokenizer", 0, stage, split, where);
}

static eqat_status count_of(eqi_ctx *ctx, const json_t *json, const char *key, size_t *out,
                            const char *where)
{
    const json_t *value = json_object_get(json, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return eqi_fail(ctx, EQAT_FORMAT, "%s: decoder %s: expected a number from 0 on as \"%s\"",
                        where, eqi_json_type(json), key);
    *out = (size_t)json_integer_value(value);
    return EQAT_OK;
}

static eqat_status decode_step(eqi_ctx *ctx, void *to, const json_t *json, const char *where)
{
    eqi_decoder *d = to;
    const char *type = eqi_json_type(json), *s;
    size_t n;
    if (d->count == EQI_DECODE_STEPS_MAX)
        return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: more than %d decoders are not supported", where,
                        EQI_DECODE_STEPS_MAX);
    eqi_decode_step *k = &d->steps[d->count++];
    *k = (eqi_decode_step){0};
    if (!strcmp(type, "ByteLevel")) {
        k->kind = EQI_DECODE_BYTE_LEVEL;
    } else if (!strcmp(type, "ByteFallback")) {
        k->kind = EQI_DECODE_BYTE_FALLBACK;
    } else if (!strcmp(type, "Fuse")) {
        k->kind = EQI_DECODE_FUSE;
    } else if (!strcmp(type, "Replace")) {
        bool regex;
        k->kind = EQI_DECODE_REPLACE;
        EQI_RETURN_IF(eqi_json_pattern(ctx, json, &s, &n, &regex, where));
        if (regex)
            return eqi_fail(ctx, EQAT_UNSUPPORTED,
                            "%s: decoder Replace with a Regex is not supported", where);
        EQI_RETURN_IF(eqi_bytes_append(ctx, &k->from, s, n));
        return copy_text(ctx, &k->to, json, "content", where);
    } else if (!strcmp(type, "Strip")) {
        k->kind = EQI_DECODE_STRIP;
        EQI_RETURN_IF(copy_text(ctx, &k->from, json, "content", where));
        if (!k->from.size)
            return eqi_fail(ctx, EQAT_FORMAT,
                            "%s: decoder Strip: expected one character as \"content\"", where);
        EQI_RETURN_IF(count_of(ctx, json, "start", &k->start, where));
        return count_of(ctx, json, "stop", &k->stop, where);
    } else if (!strcmp(type, "Metaspace")) {
        eqi_prepend prepend;
        k->kind = EQI_DECODE_METASPACE;
        EQI_RETURN_IF(metaspace_members(ctx, json, &s, &n, &prepend, where));
        k->drop_first = prepend != EQI_PREPEND_NEVER;
        EQI_RETURN_IF(eqi_bytes_append(ctx, &k->from, s, n));
        return eqi_bytes_append(ctx, &k->to, " ", 1);
    } else {
        return unsupported(ctx, "decoder", json, where);
    }
    return EQAT_OK;
}

eqat_status eqi_build_decoder(eqi_ctx *ctx, eqi_decoder *d, const json_t *json, const char *where)
{
    d->join_with_space = !json || json_is_null(json);
    return each(ctx, json, "decoders", "decoder", 0, decode_step, d, where);
}
