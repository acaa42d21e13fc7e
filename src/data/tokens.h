/* One long stream of token ids: in memory, or in a file that is read window by window. */
#ifndef EQI_DATA_TOKENS_H
#define EQI_DATA_TOKENS_H

#include "base/file.h"
#include "eqat/tokenizer.h"

typedef enum eqi_token_type {
    EQI_TOKEN_U16,
    EQI_TOKEN_U32,
    EQI_TOKEN_I32,
    EQI_TOKEN_I64
} eqi_token_type;

typedef struct eqi_tokens {
    eqi_ctx *ctx;
    char *name;    /* of the file, for messages */
    int64_t vocab; /* ids lie below; 0: below 2^31 */
    int64_t count;
    int32_t *ids; /* in memory; NULL: in the file */
    int64_t capacity;
    eqi_file *file;
    eqi_token_type type;
    uint64_t offset;    /* of the first token */
    unsigned char *raw; /* a piece of the file */
} eqi_tokens;

/* An empty stream in memory, and more ids for its end. */
eqat_status eqi_tokens_create(eqi_ctx *ctx, eqi_tokens **out, const char *name, int64_t vocab);
eqat_status eqi_tokens_append(eqi_tokens *tokens, const int32_t *ids, size_t count);
/* A .npy, .u16 or .u32 file, every id of it checked here and again when it is read: files change.
 */
eqat_status eqi_tokens_open(eqi_ctx *ctx, eqi_tokens **out, const char *path, int64_t vocab);
/* Ids [first, first + count), which lie inside. */
eqat_status eqi_tokens_read(eqi_tokens *tokens, int64_t first, int64_t count, int32_t *out);
void eqi_tokens_free(eqi_tokens *tokens); /* NULL is fine */

/* True when the name ends so. */
bool eqi_path_ends(const char *path, const char *ending);

/* Appends the tokens of a .txt file, tokenized whole, or of a .jsonl file, tokenized record by
 * record, whose text has this key (NULL: "text"). */
eqat_status eqi_text_read(eqi_tokens *tokens, const char *path, const char *key,
                          const eqat_tokenizer *tokenizer);

#endif
