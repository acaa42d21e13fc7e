#include "format/moves.h"

static int clamp(int value, int least, int most)
{
    return value < least ? least : value > most ? most : value;
}

/* A group whose values q - z go from `low` to `high` fits into 0..top with any z of -low..top -
 * high. Returns the one of `zeros` nearest to z, or -1. */
static int place(int low, int high, int top, int z, eqi_zeros zeros)
{
    int least = -low > zeros.least ? -low : zeros.least,
        most = top - high < zeros.most ? top - high : zeros.most;
    return least > most ? -1 : clamp(z, least, most);
}

bool eqi_move_group(uint8_t *codes, int64_t n, uint8_t *z, float *s, int bits, eqi_zeros zeros)
{
    int top = (1 << bits) - 1, low = top, high = -top;
    for (int64_t i = 0; i < n; i++) {
        int value = codes[i] - *z;
        if (value < low) low = value;
        if (value > high) high = value;
    }
    int sign = 1, to = place(low, high, top, *z, zeros);
    if (to < 0) {
        sign = -1;
        to = place(-high, -low, top, top - *z, zeros);
    }
    if (to < 0) return false;
    for (int64_t i = 0; i < n; i++) codes[i] = (uint8_t)(sign * (codes[i] - *z) + to);
    *z = (uint8_t)to;
    *s *= (float)sign;
    return true;
}

eqat_status eqi_move_linear(eqi_ctx *ctx, eqi_packed *p, const eqi_layout_linear *l,
                            eqi_zeros zeros, int64_t *left)
{
    int64_t groups = eqi_packed_groups(l), words = eqi_packed_words(l);
    uint8_t *row = eqi_alloc(ctx, (size_t)l->in, "a row of codes");
    if (!row) return EQAT_OUT_OF_MEMORY;
    if (left) *left = 0;
    for (int64_t n = 0; n < l->out; n++) {
        eqi_bits_unpack(p->codes + n * words, l->q.bits, l->in, row);
        for (int64_t g = 0; g < groups; g++) {
            int64_t at = n * groups + g;
            bool moved = eqi_move_group(row + g * l->q.group, l->q.group, &p->z[at], &p->s[at],
                                        l->q.bits, zeros);
            if (left) *left += !moved;
        }
        eqi_bits_pack(row, l->q.bits, l->in, p->codes + n * words);
    }
    eqi_free(ctx, row);
    return EQAT_OK;
}
