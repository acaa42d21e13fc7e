/* Where the reference and the libraries know different versions of Unicode. */
#ifndef EQI_TOKENIZER_UNICODE_NEWS_H
#define EQI_TOKENIZER_UNICODE_NEWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct eqi_char_news {
    uint32_t first, last;
    char category[3];
} eqi_char_news;

/* Characters that the reference's patterns know and a PCRE2 with Unicode 14 does not, in order. */
extern const eqi_char_news eqi_chars_new_to_patterns[];
extern const size_t eqi_chars_new_to_patterns_count;

/* Characters that utf8proc may compose, decompose or reorder and the reference leaves alone. */
bool eqi_char_is_foreign_to_forms(uint32_t c);

#endif
