/* A cache of words of fixed size: pairs of neighbouring lines, the newer word first. */
#ifndef EQI_TOKENIZER_BPE_CACHE_H
#define EQI_TOKENIZER_BPE_CACHE_H

#include "data/tokenizer/bpe.h"

#define EQI_CACHE_WORDS 65536u

static inline uint64_t eqi_load8(const char *s)
{
    uint64_t w;
    memcpy(&w, s, 8);
    return w;
}

/* A word of 1 to 24 bytes as three numbers that, with its length, determine it (the loads overlap),
 * and the first line of its pair. */
static inline size_t eqi_cache_key(const char *s, size_t n, uint64_t key[3])
{
    uint64_t a, b = 0, c = 0;
    if (n >= 8) {
        a = eqi_load8(s);
        b = eqi_load8(n > 16 ? s + 8 : s + n - 8);
        c = eqi_load8(s + n - 8);
    } else if (n >= 4) {
        uint32_t low, high;
        memcpy(&low, s, 4);
        memcpy(&high, s + n - 4, 4);
        a = low | (uint64_t)high << 32;
    } else {
        a = (unsigned char)s[0] | (uint64_t)(unsigned char)s[n / 2] << 8 |
            (uint64_t)(unsigned char)s[n - 1] << 16;
    }
    key[0] = a;
    key[1] = b;
    key[2] = c;
    uint64_t h = (a ^ n) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 32 ^ b) * 0xff51afd7ed558ccdu;
    h = (h ^ h >> 32 ^ c) * 0xc4ceb9fe1a85ec53u;
    return (size_t)(h >> 40) & (EQI_CACHE_WORDS - 2);
}

static inline bool eqi_cache_is(const eqi_cached_word *w, const uint64_t key[3], size_t n)
{
    return w->length == n && w->key[0] == key[0] && w->key[1] == key[1] && w->key[2] == key[2];
}

static inline eqi_cached_word *eqi_cache_find(eqi_cached_word *home, const uint64_t key[3],
                                              size_t n)
{
    return eqi_cache_is(home, key, n) ? home : eqi_cache_is(home + 1, key, n) ? home + 1 : NULL;
}

static inline void eqi_cache_put(eqi_cached_word *home, const uint64_t key[3], size_t n,
                                 const int32_t *ids, size_t count)
{
    if (count > EQI_CACHED_IDS) return;
    home[1] = home[0];
    memcpy(home->key, key, sizeof home->key);
    memcpy(home->ids, ids, count * sizeof *ids);
    home->length = (uint8_t)n;
    home->count = (uint8_t)count;
}

#endif
