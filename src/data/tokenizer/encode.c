/* Encoding: repair, added tokens of the raw text, normalizing, added tokens of the normalized text,
 * splitting, merging. */
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"

static eqat_status normalized(eqat_tokenizer *t, const char *s, size_t n, bool parse_special,
                              bool at_start)
{
    const char *text;
    EQI_RETURN_IF(eqi_normalize(t->ctx, &t->normalizers, s, n, &text, &n, &at_start));
    eqi_pieces p = {.s = text, .n = n, .normalized = true, .parse_special = parse_special};
    while (eqi_added_next(&t->added, &p)) {
        if (p.id != EQI_NO_ID)
            EQI_RETURN_IF(eqi_ids_push(t->ctx, &t->ids, p.id));
        else
            EQI_RETURN_IF(eqi_split_encode(&t->split, &t->bpe, text + p.start, p.end - p.start,
                                           at_start && p.start == 0, &t->ids));
    }
    return EQAT_OK;
}

static eqat_status encode(eqat_tokenizer *t, const char *s, size_t n, uint32_t flags)
{
    bool special = flags & EQAT_TOKENIZE_ADD_SPECIAL;
    if (eqi_utf8_valid(s, n) != n) {
        t->repaired.size = 0;
        EQI_RETURN_IF(eqi_utf8_repair(t->ctx, &t->repaired, s, n));
        s = t->repaired.data;
        n = t->repaired.size;
    }
    for (size_t i = 0; special && i < t->before.size; i++)
        EQI_RETURN_IF(eqi_ids_push(t->ctx, &t->ids, t->before.data[i]));
    eqi_pieces p = {.s = s, .n = n, .parse_special = flags & EQAT_TOKENIZE_PARSE_SPECIAL};
    while (eqi_added_next(&t->added, &p)) {
        if (p.id != EQI_NO_ID)
            EQI_RETURN_IF(eqi_ids_push(t->ctx, &t->ids, p.id));
        else
            EQI_RETURN_IF(
                normalized(t, s + p.start, p.end - p.start, p.parse_special, p.start == 0));
    }
    for (size_t i = 0; special && i < t->after.size; i++)
        EQI_RETURN_IF(eqi_ids_push(t->ctx, &t->ids, t->after.data[i]));
    return EQAT_OK;
}

/* A const handle promises callers that the vocabulary stays; buffers, cache and results change
 * behind it. */
static eqat_tokenizer *working(const eqat_tokenizer *t) { return (eqat_tokenizer *)t; }

eqat_status eqat_tokenizer_encode(const eqat_tokenizer *tokenizer, const char *text, size_t length,
                                  uint32_t flags, const int32_t **ids, size_t *count)
{
    eqat_tokenizer *t = working(tokenizer);
    if (ids) *ids = NULL;
    if (count) *count = 0;
    EQI_ENTER_OF(t);
    EQI_NEED(t->ctx, ids, count);
    if (flags &
        ~(uint32_t)(EQAT_TOKENIZE_ADD_SPECIAL | EQAT_TOKENIZE_PARSE_SPECIAL |
                    EQAT_TOKENIZE_SKIP_SPECIAL))
        return eqi_fail(t->ctx, EQAT_INVALID_ARGUMENT,
                        "encode: flags: found %#x, expected eqat_tokenize_flags", (unsigned)flags);
    if (!text && length)
        return eqi_fail(t->ctx, EQAT_INVALID_ARGUMENT, "encode: found no text, expected %zu bytes",
                        length);
    t->ids.size = 0;
    EQI_RETURN_IF(eqi_ids_reserve(t->ctx, &t->ids, EQI_CACHED_IDS + length / 4));
    EQI_RETURN_IF(encode(t, text ? text : "", length, flags));
    *ids = t->ids.data;
    *count = t->ids.size;
    return EQAT_OK;
}

eqat_status eqat_tokenizer_decode(const eqat_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                  uint32_t flags, const char **text, size_t *length)
{
    eqat_tokenizer *t = working(tokenizer);
    bool first = true;
    if (text) *text = NULL;
    if (length) *length = 0;
    EQI_ENTER_OF(t);
    EQI_NEED(t->ctx, text, length);
    if (count) EQI_NEED(t->ctx, ids);
    t->text.size = 0;
    for (size_t i = 0; i < count; i++) {
        size_t n;
        const eqi_added_token *added = eqi_added_by_id(&t->added, ids[i]);
        const char *s = added ? eqi_added_form(&t->added, added, &n)
                              : eqi_vocab_text(&t->bpe.vocab, ids[i], &n);
        if (!s)
            return eqi_fail(t->ctx, EQAT_INVALID_ARGUMENT,
                            "decode: id %zu: found %d, expected a token's id below %d", i,
                            (int)ids[i], (int)t->vocab_size);
        if (added && added->special && (flags & EQAT_TOKENIZE_SKIP_SPECIAL)) continue;
        EQI_RETURN_IF(eqi_decoder_token(t->ctx, &t->decoder, s, n, first, added != NULL, &t->text));
        first = false;
    }
    EQI_RETURN_IF(eqi_decoder_finish(t->ctx, &t->decoder, &t->text));
    EQI_RETURN_IF(eqi_bytes_append(t->ctx, &t->text, "", 1));
    *text = t->text.data;
    *length = t->text.size - 1;
    return EQAT_OK;
}

void eqat_tokenizer_release_buffers(const eqat_tokenizer *tokenizer)
{
    eqat_tokenizer *t = working(tokenizer);
    if (!t) return;
    EQI_GUARD(t->ctx);
    eqi_bpe_release(&t->bpe);
    eqi_normalizers_release(t->ctx, &t->normalizers);
    eqi_split_release(t->ctx, &t->split);
    eqi_decoder_release(t->ctx, &t->decoder);
    eqi_bytes_free(t->ctx, &t->repaired);
    eqi_bytes_free(t->ctx, &t->text);
    eqi_ids_free(t->ctx, &t->ids);
}
