/* The regular expressions of tokenizer files. They are written for Oniguruma (Ruby's syntax over
 * Unicode); eqi_regex translates the part of it that tokenizers use and runs it on PCRE2. */
#ifndef EQI_TOKENIZER_REGEX_H
#define EQI_TOKENIZER_REGEX_H

#include "data/tokenizer/buffer.h"

typedef struct eqi_regex eqi_regex;

/* `where` names file and place in messages. A construct whose meaning is not known to be the same
 * is EQAT_UNSUPPORTED by name; a malformed pattern is EQAT_FORMAT. */
eqat_status eqi_regex_create(eqi_ctx *ctx, eqi_regex **out, const char *pattern, size_t n,
                             const char *where);
/* A pattern that matches this text and nothing else. */
eqat_status eqi_regex_create_literal(eqi_ctx *ctx, eqi_regex **out, const char *text, size_t n,
                                     const char *where);
void eqi_regex_free(eqi_ctx *ctx, eqi_regex *regex);

/* Walks over the matches in valid UTF-8. An empty match right behind the last one is skipped. */
typedef struct eqi_matches {
    const char *s;
    size_t n;
    size_t at; /* where the search goes on */
    bool any;
    size_t start, end; /* of the match */
} eqi_matches;

/* *found: whether there is another match. */
eqat_status eqi_regex_next(eqi_regex *regex, eqi_matches *m, bool *found);

/* The translation alone, appended to out. */
eqat_status eqi_regex_translate(eqi_ctx *ctx, eqi_bytes *out, const char *pattern, size_t n,
                                const char *where);

#endif
