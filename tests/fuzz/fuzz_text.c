/* Any bytes as text of tokenizers that are sound: ids in range, and what is decoded from them ends
 * as it says. The first byte chooses the tokenizer and how specials are taken. */
#include <stdlib.h>
#include <string.h>

#include "data/tokenizer/utf8.h"
#include "tokenizers.h"

static const struct {
    const char *path;
    eqi_tokenizer_source form;
    bool exact; /* every byte is a token, so that text comes back as it was */
} tokenizers[] = {
    {TOKENIZERS "/fuzz_gpt2.gguf", EQI_TOKENIZER_GGUF, false},
    {TOKENIZERS "/fuzz_llama.gguf", EQI_TOKENIZER_GGUF, false},
    {TOKENIZERS "/fuzz_stages.json", EQI_TOKENIZER_JSON, false},
    {TOKENIZERS "/fuzz_words.json", EQI_TOKENIZER_JSON, false},
    {TOKENIZERS "/fuzz_bytes.json", EQI_TOKENIZER_JSON, true},
};

static eqat_status back_and_forth(const eqat_tokenizer *t, const char *text, size_t n, int flags,
                                  bool exact)
{
    const int32_t *ids;
    const char *back;
    size_t count, length;
    EQI_RETURN_IF(eqat_tokenizer_encode(t, text, n, flags, &ids, &count));
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= eqat_tokenizer_vocab_size(t) ||
            !eqat_tokenizer_token_text(t, ids[i], NULL))
            abort();
    EQI_RETURN_IF(eqat_tokenizer_decode(t, ids, count, EQAT_TOKENIZE_PLAIN, &back, &length));
    if (back[length]) abort();
    if (exact && eqi_utf8_valid(text, n) == n && (length != n || memcmp(back, text, n) != 0))
        abort();
    return EQAT_OK;
}

eqat_status eqat_fuzz_one(eqi_ctx *ctx, const char *path, const uint8_t *data, size_t size)
{
    (void)path;
    if (!size) return EQAT_OK;
    const size_t which = data[0] % EQI_COUNT(tokenizers);
    const int flags = (data[0] & 32 ? EQAT_TOKENIZE_ADD_SPECIAL : 0) |
        (data[0] & 64 ? EQAT_TOKENIZE_PARSE_SPECIAL : 0);
    static eqat_tokenizer *kept[EQI_COUNT(tokenizers)];
    const eqat_tokenizer *t =
        open_once(&kept[which], tokenizers[which].path, tokenizers[which].form);
    /* Of exactly its size, so that a read past its end is seen. */
    char *text = malloc(size);
    if (!text) abort();
    memcpy(text, data + 1, size - 1);
    text = realloc(text, size > 1 ? size - 1 : 1);
    const eqat_status st =
        back_and_forth(t, text, size - 1, flags, tokenizers[which].exact && !flags);
    free(text);
    return tell(ctx, t, st);
}
