#include "data/tokenizer/byte_level.h"

#include "data/tokenizer/utf8.h"

static bool printable(uint32_t c)
{
    return (c > 0x20 && c < 0x7f) || (c > 0xa0 && c <= 0xff && c != 0xad);
}

/* The bytes without a printable form are 0..20, 7f..a0 and ad, numbered in this order. */
uint32_t eqi_byte_level_char(unsigned char byte)
{
    if (printable(byte)) return byte;
    return 0x100u + (byte <= 0x20 ? byte : byte <= 0xa0 ? 0x21u + (byte - 0x7fu) : 0x43u);
}

int eqi_byte_level_byte(uint32_t c)
{
    if (c < 0x100) return printable(c) ? (int)c : -1;
    uint32_t k = c - 0x100;
    return k <= 0x20 ? (int)k : k <= 0x42 ? (int)(k - 0x21 + 0x7f) : k == 0x43 ? 0xad : -1;
}

eqat_status eqi_byte_level_write(eqi_ctx *ctx, eqi_bytes *out, const char *s, size_t n)
{
    EQI_RETURN_IF(eqi_bytes_reserve(ctx, out, 2 * n));
    for (size_t i = 0; i < n; i++)
        out->size += eqi_utf8_put(out->data + out->size, eqi_byte_level_char((unsigned char)s[i]));
    return EQAT_OK;
}

eqat_status eqi_byte_level_read(eqi_ctx *ctx, eqi_bytes *out, const char *s, size_t n)
{
    EQI_RETURN_IF(eqi_bytes_reserve(ctx, out, n));
    size_t from = out->size;
    for (size_t i = 0, step; i < n; i += step) {
        int byte = eqi_byte_level_byte(eqi_utf8_get(s + i, &step));
        if (byte < 0) {
            out->size = from;
            return eqi_bytes_append(ctx, out, s, n);
        }
        out->data[out->size++] = (char)byte;
    }
    return EQAT_OK;
}
