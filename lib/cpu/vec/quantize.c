#include "cpu/vec/quant.h"
#include "cpu/vec/rows.h"

/* Eight codes, a byte each, to `bits` bytes: the lower code of a pair, then of pairs, then of fours comes first. */
static inline uint64_t squeeze(uint64_t x, int bits)
{
    x = (x & UINT64_C(0x00ff00ff00ff00ff)) | (x & UINT64_C(0xff00ff00ff00ff00)) >> (8 - bits);
    x = (x & UINT64_C(0x0000ffff0000ffff)) | (x & UINT64_C(0xffff0000ffff0000)) >> (16 - 2 * bits);
    return (x & UINT64_C(0xffffffff)) | (x & UINT64_C(0xffffffff00000000)) >> (32 - 4 * bits);
}

/* A weight whose code is not a number gets code 0. */
static inline __attribute__((always_inline)) void quantize(uint32_t *out, const eqi_rows *w, eqi_dtype dtype, int64_t row)
{
    const char *from = (const char *)w->data + (size_t)(row * w->ld) * (dtype == EQI_F32 ? 4 : 2);
    const vf top = v_set1(quant_top(&w->q));
    const int bits = w->q.bits;
    uint8_t *to = (uint8_t *)out, *to_end = to + w->cols / 8 * bits;
    union {
        uint8_t code[QUANT_STRIP + VL];
        uint64_t eight[QUANT_STRIP / 8];
    } strip;
    int64_t g = 0, group_end = w->q.group;
    for (int64_t i = 0; i < w->cols;) {
        const int64_t first = i, last = eqi_min_i64(i + QUANT_STRIP, w->cols);
        while (i < last) {
            const int64_t end = eqi_min_i64(group_end, last);
            const vf s = v_set1(quant_step(w, row, g)), z = v_set1(quant_zero(w, row, g));
            for (; i < end; i += VL) {
                vf u = v_add(v_rint(v_div(vec_load(from, dtype, i, vec_step(end - i)), s)), z);
                v_store_u8(strip.code + (i - first), v_min(top, v_max(u, v_zero())));
            }
            i = end;
            if (i < group_end) continue;
            g++;
            group_end += w->q.group;
        }
        const int64_t eights = (last - first) / 8;
        for (int64_t k = 0; k < eights; k++) strip.eight[k] = squeeze(strip.eight[k], bits);
        /* Whole words overlap what comes after, but never the next row, which another thread may have written. */
        for (int64_t k = 0; k < eights; k++, to += bits) memcpy(to, &strip.eight[k], to_end - to < 8 ? (size_t)bits : 8);
    }
}

void VEC(quantize)(uint32_t *out, const eqi_rows *w, int64_t row)
{
    if (w->dtype == EQI_F32) quantize(out, w, EQI_F32, row);
    else if (w->dtype == EQI_BF16) quantize(out, w, EQI_BF16, row);
    else quantize(out, w, EQI_F16, row);
}
