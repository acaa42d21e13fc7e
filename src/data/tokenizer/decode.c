#include "data/tokenizer/decode.h"

#include "data/tokenizer/byte_level.h"
#include "data/tokenizer/utf8.h"

void eqi_decoder_release(eqi_ctx *ctx, eqi_decoder *d)
{
    eqi_bytes_free(ctx, &d->a);
    eqi_bytes_free(ctx, &d->b);
}

void eqi_decoder_free(eqi_ctx *ctx, eqi_decoder *d)
{
    for (size_t i = 0; i < d->count; i++) {
        eqi_bytes_free(ctx, &d->steps[i].from);
        eqi_bytes_free(ctx, &d->steps[i].to);
    }
    eqi_decoder_release(ctx, d);
    *d = (eqi_decoder){0};
}

static eqat_status replace(eqi_ctx *ctx, const eqi_decode_step *k, const char *s, size_t n,
                           eqi_bytes *out)
{
    size_t done = 0;
    while (done < n) {
        const char *p = memmem(s + done, n - done, k->from.data, k->from.size);
        size_t to = p ? (size_t)(p - s) : n;
        EQI_RETURN_IF(eqi_bytes_append(ctx, out, s + done, to - done));
        if (p) EQI_RETURN_IF(eqi_bytes_append(ctx, out, k->to.data, k->to.size));
        done = p ? to + k->from.size : n;
    }
    return EQAT_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'              ? c - '0'
        : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                             : -1;
}

static eqat_status byte_fallback(eqi_ctx *ctx, const char *s, size_t n, eqi_bytes *out)
{
    if (n == 6 && memcmp(s, "<0x", 3) == 0 && s[5] == '>' && hex_digit(s[3]) >= 0 &&
        hex_digit(s[4]) >= 0) {
        char byte = (char)(hex_digit(s[3]) * 16 + hex_digit(s[4]));
        return eqi_bytes_append(ctx, out, &byte, 1);
    }
    return eqi_bytes_append(ctx, out, s, n);
}

static eqat_status strip(eqi_ctx *ctx, const eqi_decode_step *k, const char *s, size_t n,
                         eqi_bytes *out)
{
    size_t m = k->from.size;
    for (size_t i = 0; i < k->start && n >= m && memcmp(s, k->from.data, m) == 0; i++) {
        s += m;
        n -= m;
    }
    for (size_t i = 0; i < k->stop && n >= m && memcmp(s + n - m, k->from.data, m) == 0; i++)
        n -= m;
    return eqi_bytes_append(ctx, out, s, n);
}

static eqat_status step(eqi_ctx *ctx, const eqi_decode_step *k, const char *s, size_t n, bool first,
                        bool added, eqi_bytes *out)
{
    switch (k->kind) {
    case EQI_DECODE_BYTE_LEVEL:
        return added ? eqi_bytes_append(ctx, out, s, n) : eqi_byte_level_read(ctx, out, s, n);
    case EQI_DECODE_BYTE_FALLBACK: return byte_fallback(ctx, s, n, out);
    case EQI_DECODE_METASPACE:
        if (first && k->drop_first) {
            eqi_decode_step drop = {.kind = EQI_DECODE_REPLACE, .from = k->from};
            return replace(ctx, &drop, s, n, out);
        }
        return replace(ctx, k, s, n, out);
    case EQI_DECODE_REPLACE: return replace(ctx, k, s, n, out);
    case EQI_DECODE_STRIP: return strip(ctx, k, s, n, out);
    default: return eqi_bytes_append(ctx, out, s, n);
    }
}

static size_t fuse_at(const eqi_decoder *d)
{
    for (size_t i = 0; i < d->count; i++)
        if (d->steps[i].kind == EQI_DECODE_FUSE) return i;
    return d->count;
}

eqat_status eqi_decoder_token(eqi_ctx *ctx, eqi_decoder *d, const char *s, size_t n, bool first,
                              bool added, eqi_bytes *out)
{
    size_t steps = fuse_at(d);
    if (d->join_with_space && !first) EQI_RETURN_IF(eqi_bytes_append(ctx, out, " ", 1));
    if (!steps) return eqi_bytes_append(ctx, out, s, n);
    for (size_t i = 0; i + 1 < steps; i++) {
        eqi_bytes *to = i % 2 ? &d->b : &d->a;
        to->size = 0;
        EQI_RETURN_IF(step(ctx, &d->steps[i], s, n, first, added, to));
        s = to->data;
        n = to->size;
    }
    return step(ctx, &d->steps[steps - 1], s, n, first, added, out);
}

eqat_status eqi_decoder_finish(eqi_ctx *ctx, eqi_decoder *d, eqi_bytes *out)
{
    for (size_t i = fuse_at(d) + 1; i < d->count; i++) {
        d->a.size = 0;
        EQI_RETURN_IF(step(ctx, &d->steps[i], out->data, out->size, true, false, &d->a));
        eqi_bytes swap = *out;
        *out = d->a;
        d->a = swap;
    }
    return EQAT_OK;
}
