/* NFC, NFD, NFKC and NFKD. Most text needs none of it: whatever the form, nothing happens inside
 * plain runs (ASCII, ideographs, and for NFC all letters below U+0300 and more), so that utf8proc
 * sees only what lies between them. */
#include <utf8proc.h>

#include "data/tokenizer/normalize.h"
#include "data/tokenizer/unicode_news.h"
#include "data/tokenizer/utf8.h"

/* A character that stands for itself in the form and never combines with one in front of it. */
static bool plain(eqi_normalizer_kind form, uint32_t c)
{
    if (c < 0x80 || (c >= 0x4000 && c < 0xa000)) return true;
    if (form != EQI_NORMALIZE_NFC) return false;
    return c < 0x300 || (c >= 0x388 && c < 0x483) || (c >= 0x3041 && c < 0x3097) ||
        (c >= 0x30a1 && c < 0x30fb) || (c >= 0xac00 && c < 0xd7a4);
}

bool eqi_unicode_is_plain(eqi_normalizer_kind form, const char *s, size_t n)
{
    for (size_t i = 0, step; i < n; i += step) {
        uint64_t eight;
        if (n - i >= 8 && (memcpy(&eight, s + i, 8), !(eight & 0x8080808080808080u)))
            step = 8;
        else if (!plain(form, eqi_utf8_get(s + i, &step)))
            return false;
    }
    return true;
}

static int class_of(int32_t c)
{
    return c < 0x300 || eqi_char_is_foreign_to_forms((uint32_t)c)
        ? 0
        : utf8proc_get_property(c)->combining_class;
}

/* Stable order by combining class between characters of class 0: by insertion when short, otherwise
 * by counting, so that a long row of marks is not quadratic. spare has as much room as p. */
static void order_marks(int32_t *p, size_t n, int32_t *spare)
{
    if (n < 32) {
        for (size_t i = 1; i < n; i++) {
            int32_t c = p[i];
            int k = class_of(c);
            size_t j = i;
            for (; j && class_of(p[j - 1]) > k; j--) p[j] = p[j - 1];
            p[j] = c;
        }
        return;
    }
    size_t where[257] = {0};
    for (size_t i = 0; i < n; i++) where[class_of(p[i]) + 1]++;
    for (size_t k = 1; k < 257; k++) where[k] += where[k - 1];
    for (size_t i = 0; i < n; i++) spare[where[class_of(p[i])]++] = p[i];
    memcpy(p, spare, n * sizeof *p);
}

/* Full decomposition of each character, appended to points. */
static eqat_status decompose(eqi_ctx *ctx, eqi_normalizers *all, eqi_normalizer_kind form,
                             const char *s, size_t n, size_t *count)
{
    bool compatible = form == EQI_NORMALIZE_NFKC || form == EQI_NORMALIZE_NFKD;
    int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
    for (size_t i = 0, step; i < n; i += step) {
        int32_t c = (int32_t)eqi_utf8_get(s + i, &step), many[32] = {c};
        int boundary = 0;
        utf8proc_ssize_t k = eqi_char_is_foreign_to_forms((uint32_t)c)
            ? 1
            : utf8proc_decompose_char(c, many, 32, options, &boundary);
        if (k < 1 || k > 32) k = 1, many[0] = c;
        /* Twice the room: sorting needs a copy. */
        if (2 * (*count + 32) > all->points_size) {
            size_t size = 3 * (*count + 32) + 512;
            int32_t *p = eqi_realloc(ctx, all->points, size * sizeof *p, "a tokenizer's buffer");
            if (!p) return EQAT_OUT_OF_MEMORY;
            all->points = p;
            all->points_size = size;
        }
        memcpy(all->points + *count, many, (size_t)k * sizeof *many);
        *count += (size_t)k;
    }
    return EQAT_OK;
}

/* Composes in place what lies between characters that take no part, and returns the new count. */
static size_t compose(int32_t *p, size_t count)
{
    size_t to = 0;
    for (size_t from = 0, end; from < count; from = end) {
        end = from;
        while (end < count && !eqi_char_is_foreign_to_forms((uint32_t)p[end])) end++;
        utf8proc_ssize_t k = utf8proc_normalize_utf32(p + from, (utf8proc_ssize_t)(end - from),
                                                      UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        size_t kept = k < 0 ? end - from : (size_t)k;
        memmove(p + to, p + from, kept * sizeof *p);
        to += kept;
        if (end < count) p[to++] = p[end++];
    }
    return to;
}

static eqat_status run(eqi_ctx *ctx, eqi_normalizers *all, eqi_normalizer_kind form, const char *s,
                       size_t n, eqi_bytes *out)
{
    size_t count = 0;
    EQI_RETURN_IF(decompose(ctx, all, form, s, n, &count));
    int32_t *p = all->points;
    for (size_t i = 0; i < count;) {
        size_t end = i;
        while (end < count && class_of(p[end])) end++;
        if (end > i + 1) order_marks(p + i, end - i, p + count);
        i = end > i ? end : i + 1;
    }
    if (form == EQI_NORMALIZE_NFC || form == EQI_NORMALIZE_NFKC) count = compose(p, count);
    EQI_RETURN_IF(eqi_bytes_reserve(ctx, out, 4 * count));
    for (size_t i = 0; i < count; i++)
        out->size += eqi_utf8_put(out->data + out->size, (uint32_t)p[i]);
    return EQAT_OK;
}

eqat_status eqi_unicode_form(eqi_ctx *ctx, eqi_normalizers *all, eqi_normalizer_kind form,
                             const char *s, size_t n, eqi_bytes *out)
{
    EQI_RETURN_IF(eqi_bytes_reserve(ctx, out, n));
    size_t done = 0, last = 0, step; /* last: where the latest plain character begins */
    for (size_t i = 0; i < n; i += step) {
        if (plain(form, eqi_utf8_get(s + i, &step))) {
            last = i;
            continue;
        }
        /* The plain character in front may take a mark that follows. */
        size_t from = last < i ? last : i, to = i + step, k;
        if (from < done) from = done;
        while (to < n && !plain(form, eqi_utf8_get(s + to, &k))) to += k;
        EQI_RETURN_IF(eqi_bytes_append(ctx, out, s + done, from - done));
        EQI_RETURN_IF(run(ctx, all, form, s + from, to - from, out));
        done = last = to;
        step = to - i;
    }
    return eqi_bytes_append(ctx, out, s + done, n - done);
}
