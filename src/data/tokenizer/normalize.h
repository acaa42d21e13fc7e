/* Normalizers: what happens to a text before it is split. */
#ifndef EQI_TOKENIZER_NORMALIZE_H
#define EQI_TOKENIZER_NORMALIZE_H

#include "data/tokenizer/buffer.h"
#include "data/tokenizer/regex.h"

typedef enum eqi_normalizer_kind {
    EQI_NORMALIZE_NFC,
    EQI_NORMALIZE_NFD,
    EQI_NORMALIZE_NFKC,
    EQI_NORMALIZE_NFKD,
    EQI_NORMALIZE_PREPEND,
    EQI_NORMALIZE_REPLACE,
    EQI_NORMALIZE_LOWERCASE,
    EQI_NORMALIZE_STRIP
} eqi_normalizer_kind;

typedef struct eqi_normalizer {
    eqi_normalizer_kind kind;
    eqi_bytes text;    /* PREPEND: what; REPLACE: by what */
    eqi_bytes literal; /* REPLACE: what, when it is a plain text */
    eqi_regex *regex;  /* REPLACE: otherwise */
    bool left, right;  /* STRIP */
} eqi_normalizer;

typedef struct eqi_normalizers {
    eqi_normalizer *list;
    size_t count;
    eqi_bytes a, b;  /* scratch: texts in turn */
    int32_t *points; /* scratch: code points of one run */
    size_t points_size;
} eqi_normalizers;

void eqi_normalizers_free(eqi_ctx *ctx, eqi_normalizers *n);
void eqi_normalizers_release(eqi_ctx *ctx, eqi_normalizers *n); /* scratch memory */

/* *out is s itself when nothing changed, otherwise scratch that lives until the next call.
 * *at_start: whether the text begins where the whole input begins; cleared when that beginning is
 * taken away. */
eqat_status eqi_normalize(eqi_ctx *ctx, eqi_normalizers *n, const char *s, size_t size,
                          const char **out, size_t *out_size, bool *at_start);

/* Appends s in one of the four Unicode forms. */
eqat_status eqi_unicode_form(eqi_ctx *ctx, eqi_normalizers *n, eqi_normalizer_kind form,
                             const char *s, size_t size, eqi_bytes *out);
/* Whether a quick look says that s is in the form already. */
bool eqi_unicode_is_plain(eqi_normalizer_kind form, const char *s, size_t size);

#endif
