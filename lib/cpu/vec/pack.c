/* Copies of the operands of a matrix product in the order in which the product reads them. */
#include "cpu/vec/vec.h"

#include "cpu/vec/rows.h"

/* Rows of the source pass through a strip that stays in the first-level cache. */
#define STRIP 256
#define AHEAD 8 /* rows that are fetched before their turn */

static void zero_tail(char *row, size_t used, size_t size)
{
    if (used < size) memset(row + used, 0, size - used);
}

/* Pieces of rows are too short for the processor to foresee the next ones. */
static void fetch(const eqi_rows *src, int64_t row, int64_t col, int64_t n)
{
    if (row >= src->rows || src->kind == EQI_ROWS_PACKED) return;
    const size_t size = src->dtype == EQI_F32 ? 4 : 2;
    eqi_fetch((const char *)src->data + (size_t)(row * src->ld + col) * size, (size_t)n * size);
}

/* Rows that pass: where they are, or copied to a strip. */
typedef struct strip {
    const void *data;
    int64_t ld;
} strip;

static bool passes_as_it_is(const eqi_pack *p)
{
    return p->src->kind == EQI_ROWS_DENSE &&
        p->src->dtype == (p->elem == EQI_ELEM_BF16 ? EQI_BF16 : EQI_F32) &&
        p->elem != EQI_ELEM_F32_OF_BF16;
}

/* `count` rows from `row`, columns col..col+n, as `pad` rows and `wide` columns. */
static strip strip_of(char *room, const eqi_pack *p, int64_t row, int64_t count, int64_t pad,
                      int64_t col, int64_t n, int64_t wide)
{
    const size_t size = eqi_elem_size(p->elem), ld = STRIP * size;
    for (int64_t r = 0; r < pad; r++) fetch(p->src, row + r + AHEAD, col, n);
    if (count == pad && n == wide && passes_as_it_is(p))
        return (strip){(const char *)p->src->data + (size_t)(row * p->src->ld + col) * size,
                       p->src->ld};
    for (int64_t r = 0; r < pad; r++) {
        char *to = room + (size_t)r * ld;
        if (r < count) VEC(rows)(to, p->elem, p->src, row + r, col, n);
        zero_tail(to, r < count ? (size_t)n * size : 0, (size_t)wide * size);
    }
    return (strip){room, STRIP};
}

static int64_t rest(int64_t have, int64_t at, int64_t most)
{
    return have <= at ? 0 : eqi_min_i64(have - at, most);
}

#if EQI_SIMD_BF16
/* 32 inner x 32 outer values from column j: a strip's row = inner index. to: 32 rows of 32 values,
 * ld apart */
static void turn_pairs(uint16_t *to, int64_t ld, const strip *s, int64_t j)
{
    const uint16_t *from = (const uint16_t *)s->data + j;
    vi left[VL], right[VL];
    for (int i = 0; i < VL; i++) {
        vi both[2];
        v_pairs(from + 2 * i * s->ld, from + (2 * i + 1) * s->ld, both);
        left[i] = both[0];
        right[i] = both[1];
    }
    vi_transpose(left);
    vi_transpose(right);
    for (int i = 0; i < VL; i++) {
        vi_store(to + i * ld, left[i]);
        vi_store(to + (i + VL) * ld, right[i]);
    }
}

static void pack_a_across_bf16(uint16_t *dst, const eqi_pack *p, void *scratch)
{
    for (int64_t n = 0; n < p->pn; n += STRIP) {
        int64_t have = rest(p->n, n, STRIP), wide = eqi_min_i64(p->pn - n, STRIP),
                padded = (wide + 31) / 32 * 32;
        for (int64_t k = 0; k < p->pk; k += 32) {
            const strip s =
                strip_of(scratch, p, p->k0 + k, rest(p->k, k, 32), 32, p->n0 + n, have, padded);
            for (int64_t j = 0; j < wide; j += 32) {
                if (wide - j >= 32) {
                    turn_pairs(dst + (n + j) * p->pk + k, p->pk, &s, j);
                    continue;
                }
                uint16_t edge[32 * 32];
                turn_pairs(edge, 32, &s, j);
                for (int64_t i = 0; i < wide - j; i++)
                    memcpy(dst + (n + j + i) * p->pk + k, edge + i * 32, 64);
            }
        }
    }
}

static void pack_b_across_bf16(uint16_t *dst, const eqi_pack *p, void *scratch)
{
    for (int64_t n = 0; n < p->pn; n += STRIP) {
        int64_t have = rest(p->n, n, STRIP), wide = eqi_min_i64(p->pn - n, STRIP);
        for (int64_t k = 0; k < p->pk; k += 2) {
            const strip s =
                strip_of(scratch, p, p->k0 + k, rest(p->k, k, 2), 2, p->n0 + n, have, wide);
            const uint16_t *from = s.data;
            for (int64_t j = 0; j < wide; j += 32) {
                vi both[2];
                v_pairs(from + j, from + s.ld + j, both);
                int64_t block = (n + j) / p->block, in = (n + j) % p->block;
                uint16_t *to = dst + (block * p->pk + k) * p->block + in * 2;
                vi_store(to, both[0]);
                vi_store(to + 32, both[1]);
            }
        }
    }
}

static void pack_b_along_bf16(uint16_t *dst, const eqi_pack *p, void *scratch)
{
    for (int64_t n = 0; n < p->pn; n += VL) {
        uint16_t *to = dst + n / p->block * p->block * p->pk + n % p->block * 2;
        for (int64_t k = 0; k < p->pk; k += STRIP) {
            int64_t wide = eqi_min_i64(p->pk - k, STRIP);
            const strip s = strip_of(scratch, p, p->n0 + n, rest(p->n, n, VL), VL, p->k0 + k,
                                     rest(p->k, k, STRIP), wide);
            for (int64_t j = 0; j < wide; j += 32) {
                vi t[VL];
                for (int i = 0; i < VL; i++)
                    t[i] = vi_load((const uint16_t *)s.data + i * s.ld + j);
                vi_transpose(t);
                for (int i = 0; i < VL; i++) vi_store(to + ((k + j) / 2 + i) * p->block * 2, t[i]);
            }
        }
    }
}
#endif

static void turn(float *to, int64_t ld, const strip *s, int64_t j)
{
    vi t[VL];
    for (int i = 0; i < VL; i++) t[i] = vi_load((const float *)s->data + i * s->ld + j);
    vi_transpose(t);
    for (int i = 0; i < VL; i++) vi_store(to + i * ld, t[i]);
}

static void pack_a_across_f32(float *dst, const eqi_pack *p, void *scratch)
{
    for (int64_t n = 0; n < p->pn; n += STRIP) {
        int64_t have = rest(p->n, n, STRIP), wide = eqi_min_i64(p->pn - n, STRIP);
        for (int64_t k = 0; k < p->pk; k += VL) {
            const strip s =
                strip_of(scratch, p, p->k0 + k, rest(p->k, k, VL), VL, p->n0 + n, have, wide);
            for (int64_t j = 0; j < wide; j += VL) turn(dst + (n + j) * p->pk + k, p->pk, &s, j);
        }
    }
}

static void pack_b_across_f32(float *dst, const eqi_pack *p)
{
    for (int64_t k = 0; k < p->pk; k++)
        for (int64_t n = 0; n < p->pn; n += p->block) {
            float *to = dst + n * p->pk + k * p->block;
            int64_t have = k < p->k ? rest(p->n, n, p->block) : 0;
            if (have > 0) VEC(rows)(to, p->elem, p->src, p->k0 + k, p->n0 + n, have);
            zero_tail((char *)to, (size_t)have * sizeof *to, (size_t)p->block * sizeof *to);
        }
}

static void pack_b_along_f32(float *dst, const eqi_pack *p, void *scratch)
{
    for (int64_t n = 0; n < p->pn; n += VL) {
        float *to = dst + n / p->block * p->block * p->pk + n % p->block;
        for (int64_t k = 0; k < p->pk; k += STRIP) {
            int64_t wide = eqi_min_i64(p->pk - k, STRIP);
            const strip s = strip_of(scratch, p, p->n0 + n, rest(p->n, n, VL), VL, p->k0 + k,
                                     rest(p->k, k, STRIP), wide);
            for (int64_t j = 0; j < wide; j += VL) turn(to + (k + j) * p->block, p->block, &s, j);
        }
    }
}

void VEC(pack_a)(void *dst, const eqi_pack *p, void *scratch)
{
    if (!p->across) {
        size_t size = eqi_elem_size(p->elem), ld = (size_t)p->pk * size;
        for (int64_t n = 0; n < p->pn; n++) {
            char *to = (char *)dst + (size_t)n * ld;
            if (n < p->n) VEC(rows)(to, p->elem, p->src, p->n0 + n, p->k0, p->k);
            zero_tail(to, n < p->n ? (size_t)p->k * size : 0, ld);
        }
        return;
    }
#if EQI_SIMD_BF16
    if (p->elem == EQI_ELEM_BF16) {
        pack_a_across_bf16(dst, p, scratch);
        return;
    }
#endif
    pack_a_across_f32(dst, p, scratch);
}

void VEC(pack_b)(void *dst, const eqi_pack *p, void *scratch)
{
#if EQI_SIMD_BF16
    if (p->elem == EQI_ELEM_BF16) {
        if (p->across)
            pack_b_across_bf16(dst, p, scratch);
        else
            pack_b_along_bf16(dst, p, scratch);
        return;
    }
#endif
    if (p->across)
        pack_b_across_f32(dst, p);
    else
        pack_b_along_f32(dst, p, scratch);
}
