/* The BPE model and the added tokens as tokenizer.json describes them. */
#include "data/tokenizer/bpe_cut.h"
#include "data/tokenizer/tokenizer.h"

static eqat_status add_token(eqi_bpe *bpe, const char *text, size_t n, const json_t *id,
                             const char *where)
{
    eqi_ctx *ctx = bpe->ctx;
    json_int_t value = json_integer_value(id);
    if (!json_is_integer(id) || value < 0 || value >= EQI_VOCAB_MAX)
        return eqi_fail(ctx, EQAT_FORMAT,
                        "%s: token \"%.60s\": found no id or one that is out of range, expected a "
                        "number from 0 to %d",
                        where, text, EQI_VOCAB_MAX - 1);
    eqat_status st = eqi_vocab_add(ctx, &bpe->vocab, (int32_t)value, text, n);
    if (st == EQAT_EXISTS) {
        const char *other = eqi_vocab_text(&bpe->vocab, (int32_t)value, NULL);
        return eqi_fail(
            ctx, EQAT_FORMAT,
            "%s: tokens \"%.60s\" and \"%.60s\" both have id %d, expected one token per id", where,
            other ? other : text, text, (int)value);
    }
    return st;
}

static eqat_status merge_parts(eqi_ctx *ctx, const json_t *merge, size_t rank, const char *parts[2],
                               size_t lengths[2], const char *where)
{
    if (json_is_array(merge) && json_array_size(merge) == 2 &&
        json_is_string(json_array_get(merge, 0)) && json_is_string(json_array_get(merge, 1))) {
        for (size_t k = 0; k < 2; k++) {
            parts[k] = json_string_value(json_array_get(merge, k));
            lengths[k] = json_string_length(json_array_get(merge, k));
        }
        return EQAT_OK;
    }
    const char *s = json_string_value(merge);
    size_t n = json_string_length(merge);
    const char *space = s ? memchr(s, ' ', n) : NULL;
    if (!space || memchr(space + 1, ' ', n - (size_t)(space + 1 - s)))
        return eqi_fail(ctx, EQAT_FORMAT, "%s: merge %zu: found \"%.60s\", expected two tokens",
                        where, rank, s ? s : "something else");
    parts[0] = s;
    lengths[0] = (size_t)(space - s);
    parts[1] = space + 1;
    lengths[1] = n - lengths[0] - 1;
    return EQAT_OK;
}

static eqat_status add_merge(eqi_bpe *bpe, const json_t *merge, size_t rank, eqi_bytes *joined,
                             const char *where)
{
    const char *parts[2];
    size_t lengths[2];
    int32_t ids[2];
    EQI_RETURN_IF(merge_parts(bpe->ctx, merge, rank, parts, lengths, where));
    joined->size = 0;
    for (size_t k = 0; k < 2; k++) {
        ids[k] = eqi_vocab_find(&bpe->vocab, parts[k], lengths[k]);
        if (ids[k] == EQI_NO_ID)
            return eqi_fail(bpe->ctx, EQAT_FORMAT,
                            "%s: merge %zu: token \"%.*s\" is not in the vocabulary", where, rank,
                            lengths[k] > 60 ? 60 : (int)lengths[k], parts[k]);
        EQI_RETURN_IF(eqi_bytes_append(bpe->ctx, joined, parts[k], lengths[k]));
    }
    int32_t id = eqi_vocab_find(&bpe->vocab, joined->data, joined->size);
    if (id == EQI_NO_ID)
        return eqi_fail(bpe->ctx, EQAT_FORMAT,
                        "%s: merge %zu: its result \"%.*s\" is not in the vocabulary", where, rank,
                        joined->size > 60 ? 60 : (int)joined->size, joined->data);
    eqi_bpe_merge(bpe, ids[0], ids[1], id, (uint32_t)rank);
    return EQAT_OK;
}

static eqat_status add_merges(eqi_bpe *bpe, const json_t *merges, const char *where)
{
    if (!json_is_array(merges))
        return eqi_fail(bpe->ctx, EQAT_FORMAT, "%s: expected a list as \"merges\" of the model",
                        where);
    EQI_RETURN_IF(eqi_bpe_begin(bpe, json_array_size(merges)));
    eqi_bytes joined = {0};
    eqat_status st = EQAT_OK;
    size_t i, rank = 0;
    const json_t *merge;
    json_array_foreach(merges, i, merge)
    {
        const char *s = json_string_value(merge);
        if (s && !strncmp(s, "#version", 8)) continue;
        if ((st = add_merge(bpe, merge, rank++, &joined, where)) != EQAT_OK) break;
    }
    eqi_bytes_free(bpe->ctx, &joined);
    return st;
}

static eqat_status empty_option(eqi_ctx *ctx, const json_t *model, const char *key,
                                const char *where)
{
    const json_t *value = json_object_get(model, key);
    if (!value || json_is_null(value) || (json_is_string(value) && !json_string_length(value)) ||
        (json_is_number(value) && json_number_value(value) == 0))
        return EQAT_OK;
    return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: BPE model with \"%s\" is not supported", where,
                    key);
}

eqat_status eqi_build_model(eqi_bpe *bpe, const json_t *tokenizer, bool byte_level,
                            const char *where)
{
    eqi_ctx *ctx = bpe->ctx;
    const json_t *model = json_object_get(tokenizer, "model"),
                 *vocab = json_object_get(model, "vocab"), *id;
    if (!json_is_object(model))
        return eqi_fail(ctx, EQAT_FORMAT, "%s: expected an object as \"model\"", where);
    if (json_object_get(model, "type") && strcmp(eqi_json_type(model), "BPE") != 0)
        return eqi_fail(ctx, EQAT_UNSUPPORTED, "%s: model \"%.60s\" is not supported, only BPE is",
                        where, eqi_json_type(model));
    static const char *const refused[] = {"dropout", "continuing_subword_prefix",
                                          "end_of_word_suffix"};
    for (size_t k = 0; k < EQI_COUNT(refused); k++)
        EQI_RETURN_IF(empty_option(ctx, model, refused[k], where));
    bpe->byte_level = byte_level;
    EQI_RETURN_IF(eqi_json_bool(ctx, model, "fuse_unk", false, &bpe->fuse_unk, where));
    EQI_RETURN_IF(eqi_json_bool(ctx, model, "byte_fallback", false, &bpe->byte_fallback, where));
    EQI_RETURN_IF(eqi_json_bool(ctx, model, "ignore_merges", false, &bpe->ignore_merges, where));
    if (!json_is_object(vocab))
        return eqi_fail(ctx, EQAT_FORMAT, "%s: expected an object as \"vocab\" of the model",
                        where);
    const char *text;
    json_object_foreach((json_t *)vocab, text, id)
        EQI_RETURN_IF(add_token(bpe, text, strlen(text), id, where));
    const json_t *unk = json_object_get(model, "unk_token");
    text = "";
    bpe->unk = EQI_NO_ID;
    if (unk && !json_is_null(unk)) {
        EQI_RETURN_IF(eqi_json_text(ctx, model, "unk_token", &text, &(size_t){0}, where));
        bpe->unk = eqi_vocab_find(&bpe->vocab, text, json_string_length(unk));
    }
    EQI_RETURN_IF(add_merges(bpe, json_object_get(model, "merges"), where));
    EQI_RETURN_IF(eqi_bpe_finish(bpe));
    EQI_RETURN_IF(eqi_bpe_plan_cuts(bpe));
    bool complete = true;
    for (int b = 0; b < 256; b++)
        complete &= (byte_level ? bpe->byte_ids : bpe->fallback_ids)[b] != EQI_NO_ID;
    if (byte_level && bpe->byte_fallback && !complete)
        return eqi_fail(
            ctx, EQAT_UNSUPPORTED,
            "%s: byte_fallback with ByteLevel and an incomplete alphabet is not supported", where);
    if (unk && !json_is_null(unk) && bpe->unk == EQI_NO_ID &&
        !(complete && (byte_level || bpe->byte_fallback)))
        return eqi_fail(ctx, EQAT_FORMAT, "%s: unk_token \"%.60s\" is not in the vocabulary", where,
                        text);
    return EQAT_OK;
}

static eqat_status add_added(eqat_tokenizer *t, const json_t *json, int32_t *next,
                             const char *where)
{
    eqi_ctx *ctx = t->ctx;
    const char *text;
    size_t n;
    eqi_added_token k = {0};
    if (!json_is_object(json))
        return eqi_fail(ctx, EQAT_FORMAT, "%s: expected objects in \"added_tokens\"", where);
    EQI_RETURN_IF(eqi_json_text(ctx, json, "content", &text, &n, where));
    if (!n) return EQAT_OK;
    EQI_RETURN_IF(eqi_json_bool(ctx, json, "special", false, &k.special, where));
    EQI_RETURN_IF(eqi_json_bool(ctx, json, "single_word", false, &k.single_word, where));
    EQI_RETURN_IF(eqi_json_bool(ctx, json, "lstrip", false, &k.lstrip, where));
    EQI_RETURN_IF(eqi_json_bool(ctx, json, "rstrip", false, &k.rstrip, where));
    EQI_RETURN_IF(eqi_json_bool(ctx, json, "normalized", !k.special, &k.normalized, where));
    const eqi_added_token *old = eqi_added_by_text(&t->added, text, n);
    k.id = old ? old->id : eqi_vocab_find(&t->bpe.vocab, text, n);
    if (k.id == EQI_NO_ID) {
        k.id = (*next)++;
        if (eqi_vocab_text(&t->bpe.vocab, k.id, NULL) || k.id >= EQI_VOCAB_MAX)
            return eqi_fail(ctx, EQAT_FORMAT,
                            "%s: added token \"%.60s\": id %d is taken or out of range", where,
                            text, (int)k.id);
    }
    /* The reference numbers added tokens itself and ignores the id in the file; where the two
     * differ somebody is wrong. */
    const json_t *id = json_object_get(json, "id");
    if (id && (!json_is_integer(id) || json_integer_value(id) != k.id))
        return eqi_fail(ctx, EQAT_FORMAT, "%s: added token \"%.60s\": found id %lld, expected %d",
                        where, text, (long long)json_integer_value(id), (int)k.id);
    return eqi_added_put(ctx, &t->added, &k, text, n);
}

eqat_status eqi_build_added(eqat_tokenizer *t, const json_t *tokenizer, const char *where)
{
    const json_t *list = json_object_get(tokenizer, "added_tokens"), *item;
    if (list && !json_is_null(list) && !json_is_array(list))
        return eqi_fail(t->ctx, EQAT_FORMAT, "%s: expected a list as \"added_tokens\"", where);
    size_t i;
    int32_t next = (int32_t)t->bpe.vocab.used;
    json_array_foreach(list, i, item) EQI_RETURN_IF(add_added(t, item, &next, where));
    for (int32_t k = 0; k < t->added.count; k++) {
        if (!t->added.tokens[k].normalized) continue;
        size_t n, m;
        bool at_start = true;
        const char *form, *text = eqi_added_text(&t->added, &t->added.tokens[k], &n);
        EQI_RETURN_IF(eqi_normalize(t->ctx, &t->normalizers, text, n, &form, &m, &at_start));
        if (n != m || memcmp(form, text, n) != 0)
            EQI_RETURN_IF(eqi_added_set_form(t->ctx, &t->added, k, form, m));
    }
    return eqi_added_finish(t->ctx, &t->added);
}
