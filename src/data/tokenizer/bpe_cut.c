/* SentencePiece-style tokenizers see a whole text as one word. Most of it can be cut all the same:
 * a merge joins two tokens where the last character of the one meets the first of the other, so
 * between two characters that no merge in the list brings together nothing ever merges, provided
 * that both have tokens of their own. In the vocabularies at hand nothing reaches from a letter
 * over a following U+2581, which gives words again, and with them the cache. */
#include "data/tokenizer/bpe_cut.h"

#include "data/tokenizer/bpe_cache.h"
#include "data/tokenizer/utf8.h"

#define SPACE "\xe2\x96\x81"
#define SPACE_CHAR 0x2581u

static uint64_t joint_key(uint32_t left, uint32_t right)
{
    return ((uint64_t)left << 21 | right) + 1;
}

static uint32_t joint_slot(const eqi_bpe *bpe, uint64_t key)
{
    uint32_t i = (uint32_t)(key * 0x9e3779b97f4a7c15u >> 32) & bpe->joint_mask;
    while (bpe->joints[i] && bpe->joints[i] != key) i = (i + 1) & bpe->joint_mask;
    return i;
}

static bool joined(const eqi_bpe *bpe, uint32_t left, uint32_t right)
{
    if (left < 128 && right < 128) return bpe->ascii_joints[left][right / 32] >> right % 32 & 1;
    return bpe->joints[joint_slot(bpe, joint_key(left, right))] != 0;
}

static uint32_t last_char(const char *s, size_t n)
{
    size_t i = n - 1, step;
    while (i && (s[i] & 0xc0) == 0x80) i--;
    return eqi_utf8_get(s + i, &step);
}

eqat_status eqi_bpe_plan_cuts(eqi_bpe *bpe)
{
    if (bpe->byte_level || bpe->ignore_merges) return EQAT_OK;
    uint32_t size = 64;
    while (size < 2 * bpe->merge_count + 2) size *= 2;
    bpe->joints = eqi_calloc(bpe->ctx, size, sizeof *bpe->joints, "a tokenizer's merges");
    if (!bpe->joints) return EQAT_OUT_OF_MEMORY;
    bpe->joint_mask = size - 1;
    bpe->cut_before_space = eqi_vocab_find(&bpe->vocab, SPACE, 3) != EQI_NO_ID;
    for (uint64_t i = 0; i <= bpe->merge_mask; i++) {
        if (bpe->merges[i].pair == UINT64_MAX) continue;
        size_t n = 0, m = 0, step;
        const char *a = eqi_vocab_text(&bpe->vocab, (int32_t)(bpe->merges[i].pair >> 32), &n);
        const char *b = eqi_vocab_text(&bpe->vocab, (int32_t)(uint32_t)bpe->merges[i].pair, &m);
        if (!n || !m) continue;
        uint32_t left = last_char(a, n), right = eqi_utf8_get(b, &step);
        if (left < 128 && right < 128)
            bpe->ascii_joints[left][right / 32] |= (uint32_t)1 << right % 32;
        uint64_t key = joint_key(left, right);
        bpe->joints[joint_slot(bpe, key)] = key;
        if (right == SPACE_CHAR && left != SPACE_CHAR) bpe->cut_before_space = false;
    }
    return EQAT_OK;
}

static eqat_status cut_finely(eqi_bpe *bpe, const char *s, size_t n, eqi_ids *out)
{
    size_t from = 0, step;
    uint32_t left = eqi_utf8_get(s, &step);
    bool left_known = eqi_vocab_find(&bpe->vocab, s, step) != EQI_NO_ID;
    for (size_t i = step; i < n; i += step) {
        uint32_t right = eqi_utf8_get(s + i, &step);
        bool known = eqi_vocab_find(&bpe->vocab, s + i, step) != EQI_NO_ID;
        if (known && left_known && !joined(bpe, left, right)) {
            EQI_RETURN_IF(eqi_bpe_word(bpe, s + from, i - from, out));
            from = i;
        }
        left = right;
        left_known = known;
    }
    return eqi_bpe_word(bpe, s + from, n - from, out);
}

static bool is_space(const char *s, size_t n) { return n >= 3 && memcmp(s, SPACE, 3) == 0; }

/* The next U+2581 after `from` that does not follow another one. */
static size_t next_word(const char *s, size_t n, size_t from)
{
    for (size_t i = from + 1; i < n; i++) {
        const char *p = memchr(s + i, SPACE[0], n - i);
        if (!p) break;
        i = (size_t)(p - s);
        if (is_space(p, n - i) && !(i >= from + 3 && is_space(p - 3, 3))) return i;
    }
    return n;
}

eqat_status eqi_bpe_text(eqi_bpe *bpe, const char *s, size_t n, eqi_ids *out)
{
    if (bpe->byte_level || bpe->ignore_merges) return eqi_bpe_word(bpe, s, n, out);
    for (size_t from = 0, to; from < n; from = to) {
        to = bpe->cut_before_space ? next_word(s, n, from) : n;
        if (to - from <= EQI_CACHED_BYTES)
            EQI_RETURN_IF(eqi_bpe_word(bpe, s + from, to - from, out));
        else
            EQI_RETURN_IF(cut_finely(bpe, s + from, to - from, out));
    }
    return EQAT_OK;
}
