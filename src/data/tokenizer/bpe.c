#include "data/tokenizer/bpe.h"

#include "data/tokenizer/bpe_cache.h"
#include "data/tokenizer/byte_level.h"
#include "data/tokenizer/utf8.h"

#define NO_RANK UINT32_MAX
/* Below this many symbols a scan for the lowest rank beats a heap. */
#define SHORT_WORD 48

eqat_status eqi_bpe_begin(eqi_bpe *bpe, size_t count)
{
    int bits = 4;
    while (((uint64_t)1 << bits) < 2 * (uint64_t)count + 2) bits++;
    size_t size = (size_t)1 << bits;
    bpe->merges = eqi_alloc(bpe->ctx, size * sizeof *bpe->merges, "a tokenizer's merges");
    if (!bpe->merges) return EQAT_OUT_OF_MEMORY;
    for (size_t i = 0; i < size; i++) bpe->merges[i].pair = UINT64_MAX;
    bpe->merge_shift = 64 - bits;
    bpe->merge_mask = size - 1;
    return EQAT_OK;
}

void eqi_bpe_merge(eqi_bpe *bpe, int32_t left, int32_t right, int32_t id, uint32_t rank)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    uint64_t i = pair * 0x9e3779b97f4a7c15u >> bpe->merge_shift;
    while (bpe->merges[i].pair != UINT64_MAX && bpe->merges[i].pair != pair)
        i = (i + 1) & bpe->merge_mask;
    if (bpe->merges[i].pair != pair) bpe->merge_count++;
    bpe->merges[i] = (eqi_merge){.pair = pair, .rank = rank, .id = id};
}

eqat_status eqi_bpe_finish(eqi_bpe *bpe)
{
    for (int b = 0; b < 256; b++) {
        char text[8] = "<0x00>", *digits = text + 3;
        digits[0] = "0123456789ABCDEF"[b >> 4];
        digits[1] = "0123456789ABCDEF"[b & 15];
        bpe->fallback_ids[b] = eqi_vocab_find(&bpe->vocab, text, 6);
        size_t n = eqi_utf8_put(text, eqi_byte_level_char((unsigned char)b));
        bpe->byte_ids[b] = eqi_vocab_find(&bpe->vocab, text, n);
    }
    bpe->cache =
        eqi_calloc(bpe->ctx, EQI_CACHE_WORDS, sizeof *bpe->cache, "a tokenizer's cache of words");
    return bpe->cache ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

void eqi_bpe_release(eqi_bpe *bpe)
{
    eqi_free(bpe->ctx, bpe->symbols);
    eqi_free(bpe->ctx, bpe->heap);
    eqi_bytes_free(bpe->ctx, &bpe->alphabet);
    bpe->symbols = NULL;
    bpe->heap = NULL;
    bpe->scratch = 0;
}

void eqi_bpe_free(eqi_bpe *bpe)
{
    if (!bpe->ctx) return;
    eqi_bpe_release(bpe);
    eqi_vocab_free(bpe->ctx, &bpe->vocab);
    eqi_free(bpe->ctx, bpe->merges);
    eqi_free(bpe->ctx, bpe->joints);
    eqi_free(bpe->ctx, bpe->cache);
}

/* Splits a word into the tokens of its characters. A character without one becomes its bytes, or
 * the unknown token (a row of them one token with fuse_unk), or nothing. The unknown token waits
 * until the next character that has a token of its own: bytes overtake it, as in the reference. */
static size_t characters(const eqi_bpe *bpe, const char *s, size_t n, eqi_symbol *out)
{
    size_t count = 0;
    bool waiting = false;
    for (size_t i = 0, step; i < n; i += step) {
        int32_t id;
        if (bpe->byte_level) {
            step = 1;
            id = bpe->byte_ids[(unsigned char)s[i]];
        } else {
            step = eqi_utf8_length((unsigned char)s[i]);
            id = eqi_vocab_find(&bpe->vocab, s + i, step);
        }
        if (id != EQI_NO_ID) {
            if (waiting) out[count++].id = bpe->unk;
            waiting = false;
            out[count++].id = id;
            continue;
        }
        if (bpe->byte_fallback) {
            bool all = true;
            for (size_t k = 0; k < step; k++)
                all &= bpe->fallback_ids[(unsigned char)s[i + k]] != EQI_NO_ID;
            for (size_t k = 0; all && k < step; k++)
                out[count++].id = bpe->fallback_ids[(unsigned char)s[i + k]];
            if (all) continue;
        }
        if (bpe->unk == EQI_NO_ID) continue;
        if (waiting && !bpe->fuse_unk) out[count++].id = bpe->unk;
        waiting = true;
    }
    if (waiting) out[count++].id = bpe->unk;
    return count;
}

static uint32_t rank_of(const eqi_bpe *bpe, int32_t left, int32_t right)
{
    const eqi_merge *m = eqi_bpe_find(bpe, left, right);
    return m ? m->rank : NO_RANK;
}

static size_t merge_short(const eqi_bpe *bpe, eqi_symbol *w, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++) w[i].rank = rank_of(bpe, w[i].id, w[i + 1].id);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (w[i].rank < w[best].rank) best = i;
        if (w[best].rank == NO_RANK) break;
        w[best].id = eqi_bpe_find(bpe, w[best].id, w[best + 1].id)->id;
        n--;
        for (size_t i = best + 1; i < n; i++) w[i] = w[i + 1];
        if (best + 1 < n) w[best].rank = rank_of(bpe, w[best].id, w[best + 1].id);
        if (best) w[best - 1].rank = rank_of(bpe, w[best - 1].id, w[best].id);
    }
    return n;
}

static void push(uint64_t *heap, size_t *size, uint64_t key)
{
    size_t i = (*size)++;
    while (i && heap[(i - 1) / 2] > key) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = key;
}

static uint64_t pop(uint64_t *heap, size_t *size)
{
    uint64_t top = heap[0], last = heap[--*size];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < *size) {
        if (child + 1 < *size && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= last) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

/* Symbols stay where they are, linked; the heap holds (rank, position), entries that a merge made
 * stale are skipped. A symbol's rank tells: a pair that changed never has the rank of the one
 * before, because each pair has its own. */
static size_t merge_long(const eqi_bpe *bpe, eqi_symbol *w, size_t n, uint64_t *heap)
{
    size_t queued = 0;
    for (size_t i = 0; i < n; i++) {
        w[i].prev = (uint32_t)i - 1;
        w[i].next = (uint32_t)i + 1;
        w[i].rank = i + 1 < n ? rank_of(bpe, w[i].id, w[i + 1].id) : NO_RANK;
        if (w[i].rank != NO_RANK) push(heap, &queued, (uint64_t)w[i].rank << 32 | i);
    }
    while (queued) {
        uint64_t top = pop(heap, &queued);
        uint32_t i = (uint32_t)top, rank = (uint32_t)(top >> 32);
        if (w[i].rank != rank) continue;
        uint32_t gone = w[i].next, after = w[gone].next;
        w[i].id = eqi_bpe_find(bpe, w[i].id, w[gone].id)->id;
        w[gone].rank = NO_RANK;
        w[gone].id = EQI_NO_ID;
        w[i].next = after;
        w[i].rank = NO_RANK;
        if (after < n) {
            w[after].prev = i;
            w[i].rank = rank_of(bpe, w[i].id, w[after].id);
            if (w[i].rank != NO_RANK) push(heap, &queued, (uint64_t)w[i].rank << 32 | i);
        }
        if (i) {
            uint32_t before = w[i].prev;
            w[before].rank = rank_of(bpe, w[before].id, w[i].id);
            if (w[before].rank != NO_RANK)
                push(heap, &queued, (uint64_t)w[before].rank << 32 | before);
        }
    }
    size_t count = 0;
    for (size_t i = 0; i < n; i = w[i].next) w[count++].id = w[i].id;
    return count;
}

static eqat_status emit(eqi_bpe *bpe, const eqi_symbol *w, size_t n, eqi_ids *out)
{
    EQI_RETURN_IF(eqi_ids_reserve(bpe->ctx, out, n));
    for (size_t i = 0; i < n; i++) out->data[out->size + i] = w[i].id;
    out->size += n;
    return EQAT_OK;
}

static eqat_status long_word(eqi_bpe *bpe, const char *s, size_t n, eqi_ids *out)
{
    if (n > INT32_MAX)
        return eqi_fail(bpe->ctx, EQAT_UNSUPPORTED,
                        "text: found one word of %zu bytes, expected less than 2^31", n);
    if (n > bpe->scratch) {
        eqi_bpe_release(bpe);
        size_t room = n + n / 4;
        bpe->symbols = eqi_alloc(bpe->ctx, room * sizeof *bpe->symbols, "a long word");
        bpe->heap =
            bpe->symbols ? eqi_alloc(bpe->ctx, 2 * room * sizeof *bpe->heap, "a long word") : NULL;
        if (!bpe->heap) return EQAT_OUT_OF_MEMORY;
        bpe->scratch = room;
    }
    size_t count = characters(bpe, s, n, bpe->symbols);
    return emit(bpe, bpe->symbols, merge_long(bpe, bpe->symbols, count, bpe->heap), out);
}

eqat_status eqi_bpe_word_uncached(eqi_bpe *bpe, const char *s, size_t n, eqi_ids *out)
{
    if (bpe->ignore_merges) {
        const char *text = s;
        size_t length = n;
        if (bpe->byte_level) {
            bpe->alphabet.size = 0;
            EQI_RETURN_IF(eqi_byte_level_write(bpe->ctx, &bpe->alphabet, s, n));
            text = bpe->alphabet.data;
            length = bpe->alphabet.size;
        }
        int32_t id = eqi_vocab_find(&bpe->vocab, text, length);
        if (id != EQI_NO_ID) return eqi_ids_push(bpe->ctx, out, id);
    }
    eqi_symbol w[SHORT_WORD];
    if (n > SHORT_WORD) return long_word(bpe, s, n, out);
    return emit(bpe, w, merge_short(bpe, w, characters(bpe, s, n, w)), out);
}

eqat_status eqi_bpe_word(eqi_bpe *bpe, const char *s, size_t n, eqi_ids *out)
{
    if (n > EQI_CACHED_BYTES || !n) return n ? eqi_bpe_word_uncached(bpe, s, n, out) : EQAT_OK;
    EQI_RETURN_IF(eqi_ids_reserve(bpe->ctx, out, EQI_CACHED_IDS));
    uint64_t key[3];
    eqi_cached_word *home = bpe->cache + eqi_cache_key(s, n, key),
                    *found = eqi_cache_find(home, key, n);
    if (found) {
        memcpy(out->data + out->size, found->ids, sizeof found->ids);
        out->size += found->count;
        return EQAT_OK;
    }
    size_t from = out->size;
    EQI_RETURN_IF(eqi_bpe_word_uncached(bpe, s, n, out));
    eqi_cache_put(home, key, n, out->data + from, out->size - from);
    return EQAT_OK;
}
