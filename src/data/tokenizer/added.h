/* Added tokens: texts that are taken out of the input before anything else looks at it. */
#ifndef EQI_TOKENIZER_ADDED_H
#define EQI_TOKENIZER_ADDED_H

#include "data/tokenizer/vocab.h"

typedef struct eqi_added_token {
    int32_t id;
    bool special, single_word, lstrip, rstrip;
    bool normalized; /* looked for in normalized text, in normalized form */
    bool other_form; /* the normalized form differs from the text */
    size_t form, form_length;
} eqi_added_token;

typedef struct eqi_trie_node {
    int32_t child, sibling; /* -1: none */
    int32_t token;          /* index of the token that ends here; -1: none */
    unsigned char byte;
} eqi_trie_node;

typedef struct eqi_trie {
    eqi_trie_node *nodes;
    int32_t count, capacity;
    int32_t first[256]; /* node of a first byte; -1: none */
    int single;         /* the only first byte; -1: several or none */
} eqi_trie;

typedef struct eqi_added {
    eqi_added_token *tokens;
    int32_t count, capacity;
    eqi_vocab texts; /* by index in tokens */
    int32_t *by_id;  /* indices in the order of ids */
    eqi_bytes forms;
    eqi_trie raw, normalized;
} eqi_added;

void eqi_added_init(eqi_added *a);
void eqi_added_free(eqi_ctx *ctx, eqi_added *a);
/* A copy of the token with this text; given again, a text replaces the flags it had. */
eqat_status eqi_added_put(eqi_ctx *ctx, eqi_added *a, const eqi_added_token *token,
                          const char *text, size_t n);
/* What a normalized token looks like in normalized text. */
eqat_status eqi_added_set_form(eqi_ctx *ctx, eqi_added *a, int32_t index, const char *form,
                               size_t n);
/* When all tokens are in. */
eqat_status eqi_added_finish(eqi_ctx *ctx, eqi_added *a);

const eqi_added_token *eqi_added_by_id(const eqi_added *a,
                                       int32_t id); /* NULL: none; only when finished */
const eqi_added_token *eqi_added_by_text(const eqi_added *a, const char *text,
                                         size_t n); /* NULL: none */

const char *eqi_added_text(const eqi_added *a, const eqi_added_token *token, size_t *n);
const char *eqi_added_form(const eqi_added *a, const eqi_added_token *token,
                           size_t *n); /* the text where it is the same */

/* Walks over a text: pieces of it that are tokens (id >= 0) and pieces between them (id EQI_NO_ID,
 * never empty). */
typedef struct eqi_pieces {
    const char *s;
    size_t n;
    size_t done;   /* everything before was handed out */
    size_t search; /* where the search for the next token goes on */
    bool normalized, parse_special;
    bool held; /* the token found lies behind the piece handed out last */
    size_t held_stop;
    int32_t held_id;
    size_t start, end;
    int32_t id;
} eqi_pieces;

bool eqi_added_next(const eqi_added *a, eqi_pieces *p);

#endif
