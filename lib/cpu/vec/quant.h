/* The arithmetic of fake quantization on vectors: the f32 operations of lib/cpu/ref/quant.h, in its order. */
#ifndef EQI_CPU_VEC_QUANT_H
#define EQI_CPU_VEC_QUANT_H

#include "cpu/vec/vec.h"

static inline float quant_top(const eqi_quant_desc *q) { return (float)((1 << q->bits) - 1); }

/* A NaN stays one. */
static inline float quant_clamp(float x, float lo, float hi) { return x < lo ? lo : x > hi ? hi : x; }

static inline float quant_step(const eqi_rows *m, int64_t row, int64_t g)
{
    float s = m->s[row * m->s_ld + g];
    return m->kind == EQI_ROWS_FAKE_QUANT && m->q.clamp ? quant_clamp(s, EQI_STEP_MIN, EQI_STEP_MAX) : s;
}

static inline float quant_zero(const eqi_rows *m, int64_t row, int64_t g)
{
    int64_t at = row * m->z_ld + g;
    float z = m->z_u8 ? (float)((const uint8_t *)m->z)[at] : __builtin_rintf(((const float *)m->z)[at]);
    return quant_clamp(z, 0.0f, quant_top(&m->q));
}

/* clamp(r + z, 0, top) of r = rne(w / s). v_min and v_max give the second operand for a NaN. */
static inline vf quant_code(vf r, vf z, float top) { return v_min(v_set1(top), v_max(v_zero(), v_add(r, z))); }

/* The 32 codes of a block. */
static inline void quant_unpack(float code[32], const uint32_t *word, int bits)
{
#if VL >= 8
    uint32_t w[9] = { 0 };
    for (int b = 0; b < bits; b++) w[b] = word[b];
    const vi mask = vi_set1((1 << bits) - 1);
    for (int i = 0; i < 32; i += VL) {
        vi at = vi_mul(vi_add(vi_iota(), vi_set1(i)), vi_set1(bits));
        vi index = vi_shr(at, vi_set1(5)), shift = vi_and(at, vi_set1(31));
        vi lo = vi_shr(vi_lookup8(w, index), shift);
        /* A shift by 32 gives 0, as it should when nothing crosses into the next word. */
        vi hi = vi_shl(vi_lookup8(w + 1, index), vi_sub(vi_set1(32), shift));
        v_store(code + i, v_from_i(vi_and(vi_or(lo, hi), mask)));
    }
#else
    uint64_t stream = 0;
    int have = 0;
    for (int i = 0; i < 32; i++, have -= bits, stream >>= bits) {
        if (have < bits) {
            stream |= (uint64_t)*word++ << have;
            have += 32;
        }
        code[i] = (float)(stream & ((1u << bits) - 1u));
    }
#endif
}

/* The end, at most `end`, of what follows column `at` within its group and its block of packed codes. */
static inline int64_t quant_piece(const eqi_rows *m, int64_t at, int64_t end)
{
    int64_t group = (at / m->q.group + 1) * m->q.group, block = (at / 32 + 1) * 32;
    if (group < end) end = group;
    return block < end ? block : end;
}

#endif
