/* The arithmetic of fake quantization on vectors: the f32 operations of lib/cpu/ref/quant.h, in its
 * order. */
#ifndef EQI_CPU_VEC_QUANT_H
#define EQI_CPU_VEC_QUANT_H

#include "cpu/vec/vec.h"

static inline float quant_top(const eqi_quant_desc *q) { return (float)((1 << q->bits) - 1); }

/* A NaN stays one. */
static inline float quant_clamp(float x, float lo, float hi)
{
    return x < lo ? lo : x > hi ? hi : x;
}

static inline float quant_step(const eqi_rows *m, int64_t row, int64_t g)
{
    float s = m->s[row * m->s_ld + g];
    return m->kind == EQI_ROWS_FAKE_QUANT && m->q.clamp
        ? quant_clamp(s, EQI_SCALE_MIN, EQI_SCALE_MAX)
        : s;
}

static inline float quant_zero(const eqi_rows *m, int64_t row, int64_t g)
{
    int64_t at = row * m->z_ld + g;
    float z =
        m->z_u8 ? (float)((const uint8_t *)m->z)[at] : __builtin_rintf(((const float *)m->z)[at]);
    return quant_clamp(z, 0.0f, quant_top(&m->q));
}

/* clamp(r + z, 0, top) of r = rne(w / s). v_min and v_max give the second operand for a NaN. */
static inline vf quant_code(vf r, vf z, float top)
{
    return v_min(v_set1(top), v_max(v_zero(), v_add(r, z)));
}

/* Codes that are unpacked at a time: as floats they stay in the first-level cache. */
#define QUANT_STRIP 256

/* Codes of whole blocks of 32. */
static inline void quant_unpack_blocks(float *code, const uint32_t *word, int64_t blocks, int bits)
{
#if VL >= 8
    /* A half of a block is at most 16 bytes: those of its first words, or those of its last. */
    const int loaded = bits < 4 ? bits : 4, last = bits - loaded;
    const vi mask = vi_set1((1 << bits) - 1);
    vi pick[32 / VL], shift[32 / VL];
    for (int i = 0; i < 32 / VL; i++) {
        vi at = vi_mul(vi_add(vi_iota(), vi_set1(i * VL)), vi_set1(bits));
        vi byte = vi_sub(vi_shr(at, vi_set1(3)), vi_set1(i * VL < 16 ? 0 : 4 * last));
        pick[i] =
            vi_add(vi_mul(byte, vi_set1(0x0101)), vi_set1(0x0100)); /* and the byte after it */
        shift[i] = vi_and(at, vi_set1(7));
    }
    for (; blocks > 0; blocks--, code += 32, word += bits)
        for (int i = 0; i < 32 / VL; i++) {
            vi two = vi_pick_bytes(vi_load4(word + (i * VL < 16 ? 0 : last), loaded), pick[i]);
            v_store(code + i * VL, v_from_i(vi_and(vi_shr(two, shift[i]), mask)));
        }
#else
    uint64_t stream = 0;
    int have = 0;
    for (int64_t i = 0; i < 32 * blocks; i++, have -= bits, stream >>= bits) {
        if (have < bits) {
            stream |= (uint64_t)*word++ << have;
            have += 32;
        }
        code[i] = (float)(stream & ((1u << bits) - 1u));
    }
#endif
}

/* Codes of columns at..at+n of a row, n up to QUANT_STRIP; they lie in buffer. */
static inline const float *quant_unpack(float buffer[QUANT_STRIP + 32], const eqi_rows *m,
                                        int64_t row, int64_t at, int64_t n)
{
    const uint32_t *words = (const uint32_t *)m->data + row * m->ld;
    quant_unpack_blocks(buffer, words + at / 32 * m->q.bits, (at % 32 + n + 31) / 32, m->q.bits);
    return buffer + at % 32;
}

#endif
