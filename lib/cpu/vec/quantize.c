#include "cpu/vec/quant.h"
#include "cpu/vec/rows.h"

#if defined(__BMI2__)
#include <immintrin.h>
#endif

/* 32 codes, a byte each, to `bits` words: the words are one stream of bits, lowest first. */
static void pack(uint32_t *out, const uint8_t code[32], int bits)
{
#if defined(__BMI2__)
    /* Eight codes fill `bits` whole bytes. */
    uint8_t stream[40];
    const uint64_t mask = ((UINT64_C(1) << bits) - 1) * UINT64_C(0x0101010101010101);
    for (int i = 0; i < 4; i++) {
        uint64_t eight;
        memcpy(&eight, code + 8 * i, sizeof eight);
        eight = _pext_u64(eight, mask);
        memcpy(stream + i * bits, &eight, sizeof eight);
    }
    memcpy(out, stream, (size_t)bits * sizeof *out);
#else
    uint64_t stream = 0;
    int have = 0;
    for (int i = 0; i < 32; i++) {
        stream |= (uint64_t)code[i] << have;
        have += bits;
        if (have < 32) continue;
        *out++ = (uint32_t)stream;
        stream >>= 32;
        have -= 32;
    }
#endif
}

/* A weight whose code is not a number gets code 0. */
static inline __attribute__((always_inline)) void quantize(uint32_t *out, const eqi_rows *w, eqi_dtype dtype, int64_t row)
{
    const char *from = (const char *)w->data + (size_t)(row * w->ld) * (dtype == EQI_F32 ? 4 : 2);
    const vf top = v_set1(quant_top(&w->q));
    for (int64_t i = 0; i < w->cols; out += w->q.bits) {
        uint8_t code[32 + VL];
        for (int64_t end = i + 32; i < end;) {
            int64_t g = i / w->q.group, piece = quant_piece(w, i, end);
            const vf s = v_set1(quant_step(w, row, g)), z = v_set1(quant_zero(w, row, g));
            for (; i < piece; i += VL) {
                vf u = v_add(v_rint(v_div(vec_load(from, dtype, i, vec_step(piece - i)), s)), z);
                v_store_u8(code + i % 32, v_min(top, v_max(u, v_zero())));
            }
            i = piece;
        }
        pack(out, code, w->q.bits);
    }
}

void VEC(quantize)(uint32_t *out, const eqi_rows *w, int64_t row)
{
    if (w->dtype == EQI_F32) quantize(out, w, EQI_F32, row);
    else if (w->dtype == EQI_BF16) quantize(out, w, EQI_BF16, row);
    else quantize(out, w, EQI_F16, row);
}
