#include "data/tokenizer/utf8.h"

#include <utf8proc.h>

#include "data/tokenizer/unicode_news.h"

size_t eqi_utf8_put(char *p, uint32_t c)
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)p);
}

/* Length of the well-formed sequence at s, or 0 and in *bad the length of the maximal ill-formed
 * part. */
static size_t sequence(const unsigned char *s, size_t n, size_t *bad)
{
    *bad = 1;
    if (s[0] < 0x80) return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4) return 0;
    size_t need = eqi_utf8_length(s[0]);
    unsigned low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    for (size_t i = 1; i < need; i++) {
        if (i >= n || s[i] < low || s[i] > high) {
            *bad = i;
            return 0;
        }
        low = 0x80;
        high = 0xbf;
    }
    return need;
}

size_t eqi_utf8_valid(const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t i = 0, bad;
    while (i < n) {
        uint64_t eight;
        if (n - i >= 8 && (memcpy(&eight, s + i, 8), !(eight & 0x8080808080808080u))) {
            i += 8;
            continue;
        }
        size_t step = sequence(s + i, n - i, &bad);
        if (!step) return i;
        i += step;
    }
    return n;
}

eqat_status eqi_utf8_repair(eqi_ctx *ctx, eqi_bytes *out, const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        size_t good = eqi_utf8_valid(s + i, n - i), bad = 0;
        EQI_RETURN_IF(eqi_bytes_append(ctx, out, s + i, good));
        i += good;
        if (i == n) break;
        sequence((const unsigned char *)s + i, n - i, &bad);
        EQI_RETURN_IF(eqi_bytes_append(ctx, out, "\xef\xbf\xbd", 3));
        i += bad;
    }
    return EQAT_OK;
}

bool eqi_char_is_space(uint32_t c)
{
    if (c < 0x85) return c == ' ' || (c >= 9 && c <= 13);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
        c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static utf8proc_category_t category(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c); }

/* The first letter of the category of a character that utf8proc may be too old to know. */
static char news(uint32_t c)
{
    size_t low = 0, high = eqi_chars_new_to_patterns_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (eqi_chars_new_to_patterns[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < eqi_chars_new_to_patterns_count && eqi_chars_new_to_patterns[low].first <= c
        ? eqi_chars_new_to_patterns[low].category[0]
        : 0;
}

/* The reference's stage of digits knows a newer Unicode, 17, than its patterns. */
static bool is_numeric_since_17(uint32_t c)
{
    return (c >= 0x11de0 && c <= 0x11de9) || (c >= 0x16ff4 && c <= 0x16ff6);
}

bool eqi_char_is_numeric(uint32_t c)
{
    if (c < 0x80) return c >= '0' && c <= '9';
    if (is_numeric_since_17(c)) return true;
    utf8proc_category_t k = category(c);
    if (k == UTF8PROC_CATEGORY_CN) return news(c) == 'N';
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool eqi_char_is_punctuation(uint32_t c)
{
    if (c < 0x80)
        return c > ' ' && c < 0x7f && !(c >= '0' && c <= '9') &&
            !((c | 32) >= 'a' && (c | 32) <= 'z');
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool eqi_char_is_word(uint32_t c)
{
    if (c < 0x80) return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_';
    utf8proc_category_t k = category(c);
    if ((k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC)
        return true;
    if (k == UTF8PROC_CATEGORY_CN) {
        char kind = news(c);
        return kind == 'L' || kind == 'M' ||
            (kind == 'N' && !(c >= 0x1d2c0 && c <= 0x1d2d3)); /* those are No */
    }
    /* Alphabetic without being letters: circled and squared Latin; and the two joiners. */
    return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
        (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c ||
        c == 0x200d;
}
