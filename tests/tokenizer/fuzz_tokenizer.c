/* Damaged tokenizer.json and GGUF vocabularies, and the same bytes as a text. */
#include <stdlib.h>

#include "data/tokenizer/tokenizer.h"
#include "fuzz.h"

static eqat_status use(const eqat_tokenizer *t, const char *text, size_t n)
{
    const int32_t *ids;
    const char *back;
    size_t count, length;
    EQI_RETURN_IF(eqat_tokenizer_encode(
        t, text, n, EQAT_TOKENIZE_ADD_SPECIAL | EQAT_TOKENIZE_PARSE_SPECIAL, &ids, &count));
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= eqat_tokenizer_vocab_size(t) ||
            !eqat_tokenizer_token_text(t, ids[i], NULL))
            abort();
    EQI_RETURN_IF(eqat_tokenizer_decode(t, ids, count, EQAT_TOKENIZE_PLAIN, &back, &length));
    return back[length] ? (abort(), EQAT_OK) : EQAT_OK;
}

eqat_status eqat_fuzz_one(eqi_ctx *ctx, const char *path, const uint8_t *data, size_t size)
{
    static const char text[] = "Hello  world's <s>12\n\xe2\x96\x81 e\xcc\x81\xff";
    eqat_tokenizer *t;
    bool gguf = size >= 4 && data[0] == 'G';
    eqat_status st =
        eqi_tokenizer_open_as(ctx, &t, path, gguf ? EQI_TOKENIZER_GGUF : EQI_TOKENIZER_JSON);
    if (st != EQAT_OK)
        return st == EQAT_NOT_FOUND ? EQAT_FORMAT : st; /* a GGUF file without a tokenizer */
    st = use(t, text, sizeof text - 1);
    if (st == EQAT_OK) st = use(t, (const char *)data, size < 4096 ? size : 4096);
    eqat_tokenizer_free(t);
    return st;
}
