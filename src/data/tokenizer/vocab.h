/* Token texts by id, and ids by text. */
#ifndef EQI_TOKENIZER_VOCAB_H
#define EQI_TOKENIZER_VOCAB_H

#include "data/tokenizer/buffer.h"

#define EQI_NO_ID (-1)
/* An id table is allocated in full, so a hostile file must not choose its size freely. */
#define EQI_VOCAB_MAX (1 << 22)

typedef struct eqi_vocab {
    eqi_bytes texts; /* one after the other, each with a NUL behind it */
    size_t *start;   /* by id: 1 + position in texts; 0: the id has no token */
    uint32_t *length;
    int32_t count; /* highest id + 1 */
    int32_t capacity;
    int32_t *slots; /* open addressing by text: id + 1; 0: free */
    uint32_t mask;
    uint32_t used;
} eqi_vocab;

/* EQAT_EXISTS when the id already has a token or the text already has an id (nothing is changed and
 * no message set); EQAT_INVALID_ARGUMENT when the id is out of range. */
eqat_status eqi_vocab_add(eqi_ctx *ctx, eqi_vocab *v, int32_t id, const char *text, size_t n);
void eqi_vocab_free(eqi_ctx *ctx, eqi_vocab *v);

int32_t eqi_vocab_find(const eqi_vocab *v, const char *text, size_t n); /* EQI_NO_ID: none */
/* Borrowed; NULL: none. */
const char *eqi_vocab_text(const eqi_vocab *v, int32_t id, size_t *n);

#endif
