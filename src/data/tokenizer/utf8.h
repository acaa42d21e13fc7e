/* UTF-8: the few steps over code points that every stage takes. */
#ifndef EQI_TOKENIZER_UTF8_H
#define EQI_TOKENIZER_UTF8_H

#include "data/tokenizer/buffer.h"

/* Bytes of the sequence that begins with this lead byte; the text is known to be valid. */
static inline size_t eqi_utf8_length(unsigned char lead)
{
    return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/* The code point at p in valid UTF-8; *n receives its length. */
static inline uint32_t eqi_utf8_get(const char *p, size_t *n)
{
    const unsigned char *s = (const unsigned char *)p;
    if (s[0] < 0x80) {
        *n = 1;
        return s[0];
    }
    if (s[0] < 0xe0) {
        *n = 2;
        return (uint32_t)(s[0] & 0x1f) << 6 | (s[1] & 0x3f);
    }
    if (s[0] < 0xf0) {
        *n = 3;
        return (uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3f);
    }
    *n = 4;
    return (uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 |
        (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3f);
}

/* Writes a code point in at most 4 bytes and returns how many. */
size_t eqi_utf8_put(char *p, uint32_t c);
/* Length of the longest valid prefix. */
size_t eqi_utf8_valid(const char *s, size_t n);
/* Appends s with every maximal ill-formed part replaced by U+FFFD. */
eqat_status eqi_utf8_repair(eqi_ctx *ctx, eqi_bytes *out, const char *s, size_t n);

/* Unicode's White_Space; N*; P* or an ASCII symbol; what \w means to tokenizer files
 * (Alphabetic, marks, decimal digits, connectors, joiners). */
bool eqi_char_is_space(uint32_t c);
bool eqi_char_is_numeric(uint32_t c);
bool eqi_char_is_punctuation(uint32_t c);
bool eqi_char_is_word(uint32_t c);

#endif
