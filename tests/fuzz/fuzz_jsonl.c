/* Damaged JSON Lines, and the same bytes as plain text. */
#include <stdlib.h>
#include <unistd.h>

#include "data/tokens.h"
#include "tokenizers.h"

static eqat_status read_as(eqi_ctx *ctx, const char *ending, const eqat_tokenizer *tokenizer)
{
    const char *name = eqat_fuzz_name(ending);
    eqi_tokens *t = NULL;
    eqat_status st = eqi_tokens_create(ctx, &t, name, eqat_tokenizer_vocab_size(tokenizer));
    if (st == EQAT_OK) st = eqi_text_read(t, name, NULL, tokenizer);
    for (int64_t i = 0; st == EQAT_OK && i < t->count; i++)
        if (t->ids[i] < 0 || t->ids[i] >= eqat_tokenizer_vocab_size(tokenizer)) abort();
    eqi_tokens_free(t);
    unlink(name);
    return st;
}

eqat_status eqat_fuzz_one(eqi_ctx *ctx, const char *path, const uint8_t *data, size_t size)
{
    (void)path, (void)data, (void)size;
    static eqat_tokenizer *kept;
    const eqat_tokenizer *t = open_once(&kept, TOKENIZERS "/fuzz_words.json", EQI_TOKENIZER_JSON);
    const eqat_status lines = read_as(ctx, ".jsonl", t), text = read_as(ctx, ".txt", t);
    return tell(ctx, t, lines == EQAT_OK ? text : lines);
}
