/* The public handle: tokens by id and by text. */
#include "data/tokenizer/tokenizer.h"

int32_t eqat_tokenizer_vocab_size(const eqat_tokenizer *t) { return t ? t->vocab_size : 0; }

const char *eqat_tokenizer_token_text(const eqat_tokenizer *t, int32_t id, size_t *length)
{
    if (length) *length = 0;
    if (!t) return NULL;
    const eqi_added_token *added = eqi_added_by_id(&t->added, id);
    return added ? eqi_added_text(&t->added, added, length)
                 : eqi_vocab_text(&t->bpe.vocab, id, length);
}

int32_t eqat_tokenizer_token_id(const eqat_tokenizer *t, const char *text, size_t length)
{
    if (!t || !text) return EQI_NO_ID;
    const eqi_added_token *added = eqi_added_by_text(&t->added, text, length);
    return added ? added->id : eqi_vocab_find(&t->bpe.vocab, text, length);
}

bool eqat_tokenizer_is_special(const eqat_tokenizer *t, int32_t id)
{
    if (!t) return false;
    const eqi_added_token *added = eqi_added_by_id(&t->added, id);
    return added && added->special;
}

int32_t eqat_tokenizer_bos(const eqat_tokenizer *t) { return t ? t->bos : EQI_NO_ID; }

int32_t eqat_tokenizer_eos(const eqat_tokenizer *t) { return t ? t->eos : EQI_NO_ID; }

int32_t eqat_tokenizer_unk(const eqat_tokenizer *t) { return t ? t->unk : EQI_NO_ID; }
