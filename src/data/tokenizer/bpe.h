/* Byte-pair encoding of one word: adjacent symbols merge in the order of the merge list, leftmost
 * first. */
#ifndef EQI_TOKENIZER_BPE_H
#define EQI_TOKENIZER_BPE_H

#include "data/tokenizer/vocab.h"

typedef struct eqi_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: free slot */
    uint32_t rank;
    int32_t id;
} eqi_merge;

/* A word and its ids in one cache line; longer words are encoded anew each time. */
#define EQI_CACHED_BYTES 24
#define EQI_CACHED_IDS 8

typedef struct eqi_cached_word {
    uint64_t key[3]; /* the word's bytes, see bpe_cache.h */
    int32_t ids[EQI_CACHED_IDS];
    uint8_t length; /* 0: free */
    uint8_t count;
    uint8_t unused[6];
} eqi_cached_word;

typedef struct eqi_symbol {
    int32_t id;
    uint32_t rank; /* of the merge with the next symbol; UINT32_MAX: none, or this symbol is gone */
    uint32_t prev, next;
} eqi_symbol;

typedef struct eqi_bpe {
    eqi_ctx *ctx;    /* borrowed */
    eqi_vocab vocab; /* of the model, without added tokens */
    eqi_merge *merges;
    int merge_shift; /* 64 - log2(slots) */
    uint64_t merge_mask;
    size_t merge_count;

    bool byte_level;    /* words come as raw bytes and stand for their printable form */
    bool byte_fallback; /* characters without a token become <0xXX> tokens */
    bool fuse_unk;
    bool ignore_merges; /* a word that is a token is that token */
    int32_t unk;
    int32_t byte_ids[256];     /* byte level: the token of one byte; EQI_NO_ID: none */
    int32_t fallback_ids[256]; /* <0x00> ... <0xFF> */

    /* Where a text may be cut without changing its ids, see bpe_cut.h. */
    bool cut_before_space;
    uint64_t
        *joints; /* open addressing: code point pairs across which some merge reaches; 0: free */
    uint32_t joint_mask;
    uint32_t ascii_joints[128][4];

    eqi_cached_word *cache;
    eqi_symbol *symbols; /* scratch of words too long for the stack */
    uint64_t *heap;
    size_t scratch;     /* symbols that fit */
    eqi_bytes alphabet; /* scratch: a word in the printable alphabet */
} eqi_bpe;

/* After vocab and the flags are set: makes the merge table ready for `count` merges. */
eqat_status eqi_bpe_begin(eqi_bpe *bpe, size_t count);
/* Adds the merge of two tokens into a third; a pair given again takes the later rank. */
void eqi_bpe_merge(eqi_bpe *bpe, int32_t left, int32_t right, int32_t id, uint32_t rank);
/* When all merges are in; eqi_bpe_plan_cuts comes next. */
eqat_status eqi_bpe_finish(eqi_bpe *bpe);
void eqi_bpe_free(eqi_bpe *bpe);
void eqi_bpe_release(eqi_bpe *bpe); /* scratch memory */

/* Appends the ids of a word (never split further by the caller's rules). */
eqat_status eqi_bpe_word(eqi_bpe *bpe, const char *s, size_t n, eqi_ids *out);
/* The same without the cache. */
eqat_status eqi_bpe_word_uncached(eqi_bpe *bpe, const char *s, size_t n, eqi_ids *out);

static inline const eqi_merge *eqi_bpe_find(const eqi_bpe *bpe, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t i = pair * 0x9e3779b97f4a7c15u >> bpe->merge_shift;
    while (bpe->merges[i].pair != pair) {
        if (bpe->merges[i].pair == UINT64_MAX) return NULL;
        i = (i + 1) & bpe->merge_mask;
    }
    return &bpe->merges[i];
}

#endif
