/* SHA-256 (FIPS 180-4), which tells what data a run read. */
#ifndef EQAT_TOOL_SHA256_H
#define EQAT_TOOL_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct sha256 {
    uint32_t state[8];
    uint64_t bytes;
    unsigned char block[64];
} sha256;

#define SHA256_TEXT 65

void sha256_begin(sha256 *h);
void sha256_add(sha256 *h, const void *data, size_t n);
/* 64 hexadecimal digits and the final 0; h must begin anew. */
void sha256_end(sha256 *h, char text[SHA256_TEXT]);

#endif
