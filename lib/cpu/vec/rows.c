#include "cpu/vec/rows.h"
#include "cpu/vec/quant.h"

static inline void put(void *out, eqi_elem elem, int64_t at, vf v, int n)
{
    if (elem == EQI_ELEM_F32_OF_BF16) v = v_round_bf16(v);
    vec_store(out, elem == EQI_ELEM_BF16 ? EQI_BF16 : EQI_F32, at, v, n);
}

/* Every caller passes a constant elem, so that the loops hold no choices. */
static inline __attribute__((always_inline)) void dense(void *out, eqi_elem elem, eqi_dtype dtype,
                                                        const void *data, int64_t n)
{
    for (int64_t i = 0; i < n; i += VL) {
        int step = vec_step(n - i);
        put(out, elem, i, vec_load(data, dtype, i, step), step);
    }
}

static inline __attribute__((always_inline)) void fake_quant(void *out, eqi_elem elem,
                                                             const eqi_rows *src, int64_t row,
                                                             int64_t col, int64_t n)
{
    const float *w = (const float *)src->data + row * src->ld + col;
    const float top = quant_top(&src->q);
    for (int64_t i = 0; i < n;) {
        int64_t g = (col + i) / src->q.group, end = (g + 1) * src->q.group - col;
        if (end > n) end = n;
        const vf s = v_set1(quant_step(src, row, g)), z = v_set1(quant_zero(src, row, g));
        for (; i < end; i += VL) {
            int step = vec_step(end - i);
            vf c = quant_code(v_rint(v_div(vec_load(w, EQI_F32, i, step), s)), z, top);
            put(out, elem, i, v_mul(v_sub(c, z), s), step);
        }
        i = end;
    }
}

static inline __attribute__((always_inline)) void packed(void *out, eqi_elem elem,
                                                         const eqi_rows *src, int64_t row,
                                                         int64_t col, int64_t n)
{
    float buffer[QUANT_STRIP + 32];
    int64_t g = col / src->q.group, group_end = (g + 1) * src->q.group - col;
    for (int64_t i = 0; i < n;) {
        const int64_t first = i, last = eqi_min_i64(i + QUANT_STRIP, n);
        const float *code = quant_unpack(buffer, src, row, col + first, last - first);
        while (i < last) {
            const int64_t end = eqi_min_i64(group_end, last);
            const vf s = v_set1(quant_step(src, row, g)), z = v_set1(quant_zero(src, row, g));
            for (; i < end; i += VL) {
                int step = vec_step(end - i);
                put(out, elem, i, v_mul(v_sub(vec_load(code, EQI_F32, i - first, step), z), s),
                    step);
            }
            i = end;
            if (i < group_end) continue;
            g++;
            group_end += src->q.group;
        }
    }
}

#if EQI_SIMD_BF16
/* A group has up to 16 values: its codes look them up. Whole blocks of 32 codes, each within a
 * group. */
static void packed_lookup(uint16_t *out, const eqi_rows *src, int64_t row, int64_t col, int64_t n)
{
    const int bits = src->q.bits;
    const uint32_t *word = (const uint32_t *)src->data + row * src->ld + col / 32 * bits;
    /* Codes 2i and 2i + 1 go to the halves of word i: the byte in which a code begins and the one
     * after it, shifted. What is above a code then does no harm, as the values repeat. */
    const vi even = vi_mul(vi_iota(), vi_set1(2 * bits)), odd = vi_add(even, vi_set1(bits));
    const vi byte = vi_or(vi_shr(even, vi_set1(3)), vi_shl(vi_shr(odd, vi_set1(3)), vi_set1(16)));
    const vi pick = vi_add(vi_mul(byte, vi_set1(0x0101)), vi_set1(0x01000100));
    const vi shift = vi_or(vi_and(even, vi_set1(7)), vi_shl(vi_and(odd, vi_set1(7)), vi_set1(16)));
    const vf code = v_from_i(vi_and(vi_iota(), vi_set1((1 << bits) - 1)));
    for (int64_t i = 0, g = col / src->q.group; i < n; g++) {
        const vf s = v_set1(quant_step(src, row, g)), z = v_set1(quant_zero(src, row, g));
        const vi values = v_twice_bf16(v_mul(v_sub(code, z), s));
        for (const int64_t end = eqi_min_i64((g + 1) * src->q.group - col, n); i < end;
             i += 32, word += bits)
            vi_store(
                out + i,
                vi_lookup16(values, vi_shr16(vi_pick_bytes(vi_load4(word, bits), pick), shift)));
    }
}
#endif

static inline __attribute__((always_inline)) void rows(void *out, eqi_elem elem,
                                                       const eqi_rows *src, int64_t row,
                                                       int64_t col, int64_t n)
{
    switch (src->kind) {
    case EQI_ROWS_FAKE_QUANT: fake_quant(out, elem, src, row, col, n); return;
    case EQI_ROWS_PACKED:
#if EQI_SIMD_BF16
        if (elem == EQI_ELEM_BF16 && src->q.bits <= 4 && src->q.group % 32 == 0 &&
            (col | n) % 32 == 0) {
            packed_lookup(out, src, row, col, n);
            return;
        }
#endif
        packed(out, elem, src, row, col, n);
        return;
    case EQI_ROWS_DENSE: break;
    }
    int64_t at = row * src->ld + col;
    if (src->dtype == EQI_F32)
        dense(out, elem, EQI_F32, (const float *)src->data + at, n);
    else if (src->dtype == EQI_F16)
        dense(out, elem, EQI_F16, (const uint16_t *)src->data + at, n);
    else if (elem == EQI_ELEM_BF16)
        memcpy(out, (const uint16_t *)src->data + at, (size_t)n * sizeof(uint16_t));
    else
        dense(out, EQI_ELEM_F32, EQI_BF16, (const uint16_t *)src->data + at, n);
}

void VEC(rows)(void *out, eqi_elem elem, const eqi_rows *src, int64_t row, int64_t col, int64_t n)
{
    switch (elem) {
    case EQI_ELEM_F32: rows(out, EQI_ELEM_F32, src, row, col, n); break;
    case EQI_ELEM_BF16: rows(out, EQI_ELEM_BF16, src, row, col, n); break;
    case EQI_ELEM_F32_OF_BF16: rows(out, EQI_ELEM_F32_OF_BF16, src, row, col, n); break;
    }
}
