#include "data/tokenizer/normalize.h"

#include <utf8proc.h>

#include "data/tokenizer/utf8.h"

void eqi_normalizers_release(eqi_ctx *ctx, eqi_normalizers *n)
{
    eqi_bytes_free(ctx, &n->a);
    eqi_bytes_free(ctx, &n->b);
    eqi_free(ctx, n->points);
    n->points = NULL;
    n->points_size = 0;
}

void eqi_normalizers_free(eqi_ctx *ctx, eqi_normalizers *n)
{
    for (size_t i = 0; i < n->count; i++) {
        eqi_bytes_free(ctx, &n->list[i].text);
        eqi_bytes_free(ctx, &n->list[i].literal);
        eqi_regex_free(ctx, n->list[i].regex);
    }
    eqi_free(ctx, n->list);
    eqi_normalizers_release(ctx, n);
    *n = (eqi_normalizers){0};
}

static eqat_status prepend(eqi_ctx *ctx, const eqi_normalizer *k, const char *s, size_t n,
                           eqi_bytes *out)
{
    EQI_RETURN_IF(eqi_bytes_append(ctx, out, k->text.data, k->text.size));
    return eqi_bytes_append(ctx, out, s, n);
}

/* One byte by a short text, the way spaces become U+2581: no call for each of them. */
static eqat_status replace_byte(eqi_ctx *ctx, const eqi_normalizer *k, const char *s, size_t n,
                                eqi_bytes *out)
{
    size_t count = 0;
    char byte = k->literal.data[0];
    for (size_t i = 0; i < n; i++) count += s[i] == byte;
    if (k->text.size && count > (SIZE_MAX - n) / k->text.size)
        return eqi_fail(ctx, EQAT_OUT_OF_MEMORY, "out of memory: %zu replacements", count);
    EQI_RETURN_IF(eqi_bytes_reserve(ctx, out, n + count * k->text.size));
    char *p = out->data + out->size;
    for (size_t i = 0; i < n; i++) {
        if (s[i] != byte) {
            *p++ = s[i];
        } else {
            for (size_t j = 0; j < k->text.size; j++) *p++ = k->text.data[j];
        }
    }
    out->size = (size_t)(p - out->data);
    return EQAT_OK;
}

static eqat_status replace(eqi_ctx *ctx, const eqi_normalizer *k, const char *s, size_t n,
                           eqi_bytes *out, bool *at_start)
{
    if (!k->regex && k->literal.size == 1) {
        if (!k->text.size && n && s[0] == k->literal.data[0]) *at_start = false;
        return replace_byte(ctx, k, s, n, out);
    }
    size_t done = 0;
    eqi_matches m = {.s = s, .n = n};
    for (;;) {
        bool found;
        if (k->regex) {
            EQI_RETURN_IF(eqi_regex_next(k->regex, &m, &found));
        } else {
            const char *p =
                m.at < n ? memmem(s + m.at, n - m.at, k->literal.data, k->literal.size) : NULL;
            found = p != NULL;
            m.start = found ? (size_t)(p - s) : n;
            m.end = m.at = m.start + k->literal.size;
        }
        if (!found) break;
        /* A replacement counts as standing where the last character it replaces stood. */
        if (m.start == 0 && m.end &&
            (!k->text.size || m.end > eqi_utf8_length((unsigned char)s[0])))
            *at_start = false;
        EQI_RETURN_IF(eqi_bytes_append(ctx, out, s + done, m.start - done));
        EQI_RETURN_IF(eqi_bytes_append(ctx, out, k->text.data, k->text.size));
        done = m.end;
    }
    return eqi_bytes_append(ctx, out, s + done, n - done);
}

static eqat_status lowercase(eqi_ctx *ctx, const char *s, size_t n, eqi_bytes *out)
{
    EQI_RETURN_IF(eqi_bytes_reserve(ctx, out, n));
    for (size_t i = 0, step; i < n; i += step) {
        uint32_t c = eqi_utf8_get(s + i, &step);
        EQI_RETURN_IF(eqi_bytes_reserve(ctx, out, 8));
        if (c < 0x80) {
            out->data[out->size++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        } else if (c == 0x130) { /* the one letter whose lower case is two characters */
            EQI_RETURN_IF(eqi_bytes_append(ctx, out, "i\xcc\x87", 3));
        } else {
            out->size += eqi_utf8_put(out->data + out->size,
                                      (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
        }
    }
    return EQAT_OK;
}

static void strip(const eqi_normalizer *k, const char **s, size_t *n, bool *at_start)
{
    size_t step;
    while (k->left && *n && eqi_char_is_space(eqi_utf8_get(*s, &step))) {
        *s += step;
        *n -= step;
        *at_start = false;
    }
    while (k->right && *n) {
        size_t i = *n;
        do i--;
        while (i && ((*s)[i] & 0xc0) == 0x80);
        if (!eqi_char_is_space(eqi_utf8_get(*s + i, &step))) break;
        *n = i;
    }
}

eqat_status eqi_normalize(eqi_ctx *ctx, eqi_normalizers *all, const char *s, size_t n,
                          const char **out, size_t *out_size, bool *at_start)
{
    for (size_t i = 0; i < all->count && n; i++) {
        const eqi_normalizer *k = &all->list[i];
        if (k->kind == EQI_NORMALIZE_STRIP) {
            strip(k, &s, &n, at_start);
            continue;
        }
        if (k->kind <= EQI_NORMALIZE_NFKD && eqi_unicode_is_plain(k->kind, s, n)) continue;
        /* s may lie inside the buffer written last. */
        bool in_a = all->a.data && s >= all->a.data && s < all->a.data + all->a.capacity;
        eqi_bytes *to = in_a ? &all->b : &all->a;
        to->size = 0;
        if (k->kind == EQI_NORMALIZE_PREPEND)
            EQI_RETURN_IF(prepend(ctx, k, s, n, to));
        else if (k->kind == EQI_NORMALIZE_REPLACE)
            EQI_RETURN_IF(replace(ctx, k, s, n, to, at_start));
        else if (k->kind == EQI_NORMALIZE_LOWERCASE)
            EQI_RETURN_IF(lowercase(ctx, s, n, to));
        else
            EQI_RETURN_IF(eqi_unicode_form(ctx, all, k->kind, s, n, to));
        s = to->data;
        n = to->size;
    }
    *out = s;
    *out_size = n;
    return EQAT_OK;
}
