/* Byte strings: files made by hand. */
#ifndef TESTS_SUPPORT_BYTES_H
#define TESTS_SUPPORT_BYTES_H

#include <check.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct bytes {
    unsigned char *p;
    size_t n, capacity;
} bytes;

static inline void put(bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->capacity) {
        b->capacity = 2 * (b->n + n) + 64;
        b->p = realloc(b->p, b->capacity);
        ck_assert_ptr_nonnull(b->p);
    }
    if (n) memcpy(b->p + b->n, data, n);
    b->n += n;
}

static inline void put_u32(bytes *b, uint32_t x) { put(b, &x, sizeof x); }
static inline void put_u64(bytes *b, uint64_t x) { put(b, &x, sizeof x); }

static inline void put_string(bytes *b, const char *s)
{
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

static inline void put_zeros(bytes *b, size_t n)
{
    static const unsigned char zeros[64];
    for (; n; n -= n < 64 ? n : 64) put(b, zeros, n < 64 ? n : 64);
}

#endif
