/* The printable alphabet in which byte-level vocabularies write bytes. */
#ifndef EQI_TOKENIZER_BYTE_LEVEL_H
#define EQI_TOKENIZER_BYTE_LEVEL_H

#include "data/tokenizer/buffer.h"

/* The code point that stands for a byte: printable Latin-1 for itself, the others from U+0100 on in
 * byte order. */
uint32_t eqi_byte_level_char(unsigned char byte);
/* The byte that a code point stands for, or -1. */
int eqi_byte_level_byte(uint32_t c);
/* Appends raw bytes in the alphabet. */
eqat_status eqi_byte_level_write(eqi_ctx *ctx, eqi_bytes *out, const char *s, size_t n);
/* Appends the bytes that a text in the alphabet stands for; text with any other character is
 * appended as it is. */
eqat_status eqi_byte_level_read(eqi_ctx *ctx, eqi_bytes *out, const char *s, size_t n);

#endif
