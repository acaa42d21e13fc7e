/* From a definition to a tokenizer that is ready. */
#include "data/tokenizer/tokenizer.h"

static eqat_status special_ids(eqat_tokenizer *t, const json_t *post, const json_t *piece,
                               eqi_ids *out, const char *where)
{
    const char *name = json_string_value(json_object_get(piece, "id"));
    const json_t *token =
                     name ? json_object_get(json_object_get(post, "special_tokens"), name) : NULL,
                 *ids = json_object_get(token, "ids"), *id;
    if (!json_is_array(ids))
        return eqi_fail(t->ctx, EQAT_FORMAT,
                        "%s: TemplateProcessing: expected ids of special token \"%.60s\"", where,
                        name ? name : "");
    size_t i;
    json_array_foreach(ids, i, id)
    {
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value >= t->vocab_size)
            return eqi_fail(t->ctx, EQAT_FORMAT,
                            "%s: TemplateProcessing: special token \"%.60s\": found id %lld, "
                            "expected one below %d",
                            where, name, (long long)value, (int)t->vocab_size);
        EQI_RETURN_IF(eqi_ids_push(t->ctx, out, (int32_t)value));
    }
    return EQAT_OK;
}

static eqat_status template_ids(eqat_tokenizer *t, const json_t *json, const char *where)
{
    const json_t *single = json_object_get(json, "single"), *piece;
    bool seen = false;
    size_t i;
    /* To the reference the second of two is the template for pairs. */
    if (t->has_template)
        return eqi_fail(t->ctx, EQAT_UNSUPPORTED,
                        "%s: more than one TemplateProcessing is not supported", where);
    t->has_template = true;
    if (!json_is_array(single))
        return eqi_fail(t->ctx, EQAT_FORMAT,
                        "%s: TemplateProcessing: expected a list as \"single\"", where);
    json_array_foreach(single, i, piece)
    {
        const json_t *sequence = json_object_get(piece, "Sequence"),
                     *special = json_object_get(piece, "SpecialToken");
        const char *id = json_string_value(json_object_get(sequence, "id"));
        if (sequence && (seen || !id || strcmp(id, "A") != 0))
            return eqi_fail(t->ctx, EQAT_UNSUPPORTED,
                            "%s: TemplateProcessing: a single template that is not around one "
                            "sequence A is not supported",
                            where);
        if (!sequence && !special)
            return eqi_fail(t->ctx, EQAT_FORMAT,
                            "%s: TemplateProcessing: expected a Sequence or a SpecialToken", where);
        if (sequence)
            seen = true;
        else
            EQI_RETURN_IF(special_ids(t, json, special, seen ? &t->after : &t->before, where));
    }
    return seen ? EQAT_OK
                : eqi_fail(t->ctx, EQAT_FORMAT,
                           "%s: TemplateProcessing: expected sequence A in \"single\"", where);
}

eqat_status eqi_build_post(eqat_tokenizer *t, const json_t *json, const char *where)
{
    if (!json || json_is_null(json)) return EQAT_OK;
    const char *type = eqi_json_type(json);
    if (!strcmp(type, "ByteLevel")) return EQAT_OK; /* moves offsets only */
    if (!strcmp(type, "TemplateProcessing")) return template_ids(t, json, where);
    if (strcmp(type, "Sequence") != 0)
        return eqi_fail(t->ctx, EQAT_UNSUPPORTED, "%s: post-processor \"%.60s\" is not supported",
                        where, type);
    const json_t *list = json_object_get(json, "processors"), *item;
    size_t i;
    if (!json_is_array(list))
        return eqi_fail(t->ctx, EQAT_FORMAT,
                        "%s: post-processor: expected a list as \"processors\" of a Sequence",
                        where);
    json_array_foreach(list, i, item)
    {
        if (!strcmp(eqi_json_type(item), "Sequence"))
            return eqi_fail(t->ctx, EQAT_UNSUPPORTED,
                            "%s: a Sequence of post-processors inside another is not supported",
                            where);
        EQI_RETURN_IF(eqi_build_post(t, item, where));
    }
    return EQAT_OK;
}

static int32_t named(eqat_tokenizer *t, const char *name, const char *what, const char *where)
{
    if (!name) return EQI_NO_ID;
    int32_t id = eqat_tokenizer_token_id(t, name, strlen(name));
    if (id == EQI_NO_ID)
        eqi_log(t->ctx, EQI_LOG_WARN, "%s: %s \"%.60s\" is not in the vocabulary and is ignored",
                where, what, name);
    return id;
}

eqat_status eqi_build(eqat_tokenizer *t, const eqi_definition *d)
{
    eqi_ctx *ctx = t->ctx;
    const json_t *json = d->tokenizer;
    EQI_RETURN_IF(
        eqi_build_normalizer(ctx, &t->normalizers, json_object_get(json, "normalizer"), d->where));
    EQI_RETURN_IF(
        eqi_build_split(ctx, &t->split, json_object_get(json, "pre_tokenizer"), d->where));
    bool byte_level =
        t->split.count && t->split.stages[t->split.count - 1].kind == EQI_STAGE_BYTE_LEVEL;
    EQI_RETURN_IF(eqi_build_model(&t->bpe, json, byte_level, d->where));
    EQI_RETURN_IF(eqi_build_added(t, json, d->where));
    t->vocab_size = t->bpe.vocab.count;
    for (int32_t i = 0; i < t->added.count; i++)
        if (t->added.tokens[i].id >= t->vocab_size) t->vocab_size = t->added.tokens[i].id + 1;
    if (!t->vocab_size)
        return eqi_fail(ctx, EQAT_FORMAT, "%s: found an empty vocabulary, expected tokens",
                        d->where);
    EQI_RETURN_IF(eqi_build_post(t, json_object_get(json, "post_processor"), d->where));
    EQI_RETURN_IF(eqi_build_decoder(ctx, &t->decoder, json_object_get(json, "decoder"), d->where));
    t->bos = named(t, d->bos, "bos_token", d->where);
    t->eos = named(t, d->eos, "eos_token", d->where);
    t->unk = named(t, d->unk, "unk_token", d->where);
    if (t->unk == EQI_NO_ID) t->unk = t->bpe.unk;
    return EQAT_OK;
}
