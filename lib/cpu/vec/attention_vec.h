/* What forward and backward attention share. */
#ifndef EQI_CPU_VEC_ATTENTION_VEC_H
#define EQI_CPU_VEC_ATTENTION_VEC_H

#include <math.h>

#include "cpu/vec/attention_mask.h"
#include "cpu/vec/math.h"
#include "cpu/vec/rows.h"
#include "cpu/vec/tile.h"

_Static_assert(EQI_ATT_Q == TILE_N, "a block of queries is a strip of columns");

static inline size_t att_align(size_t n) { return (n + 63) / 64 * 64; }
/* The inner dimension of a product. */
static inline int64_t att_depth(eqi_elem elem, int64_t n)
{
    return elem == EQI_ELEM_BF16 ? (n + TILE_PAIR - 1) / TILE_PAIR * TILE_PAIR : n;
}

static inline void *att_take(char **at, size_t size)
{
    void *p = *at;
    *at += att_align(size);
    return p;
}

/* Operands of products, of n rows from row `first`: the inner dimension runs over the head size, */
static inline eqi_pack att_rows(const eqi_attention_head *h, const eqi_rows *src, int64_t first,
                                int64_t n, int64_t pn)
{
    return (eqi_pack){.src = src,
                      .elem = h->elem,
                      .n0 = first,
                      .n = n,
                      .pn = pn,
                      .k = h->size,
                      .pk = eqi_att_inner(h->size)};
}

/* and over the rows. */
static inline eqi_pack att_turned(const eqi_attention_head *h, const eqi_rows *src, int64_t first,
                                  int64_t n, int64_t pn, int64_t pk)
{
    return (eqi_pack){.src = src,
                      .elem = h->elem,
                      .across = true,
                      .n = h->size,
                      .pn = pn,
                      .k0 = first,
                      .k = n,
                      .pk = pk};
}

/* Rows j and j + 1, columns from i, of an operand b of a product. */
static inline void att_store_pair(eqi_elem elem, void *to, int64_t j, int i, vf even, vf odd)
{
#if EQI_SIMD_BF16
    if (elem == EQI_ELEM_BF16) {
        v_store_pairs((uint16_t *)to + j * TILE_N + 2 * i, even, odd);
        return;
    }
#endif
    (void)elem;
    v_store((float *)to + j * TILE_N + i, even);
    v_store((float *)to + (j + 1) * TILE_N + i, odd);
}

/* The n values of an operand. */
static inline bool att_finite(eqi_elem elem, const void *x, int64_t n)
{
    return VEC(is_finite)(x, elem == EQI_ELEM_BF16 ? EQI_BF16 : EQI_F32, n);
}

/* c (+)= a b, with weights in one operand. Hidden pairs have weight 0, and `hide` says that there
 * may be some: nothing that is not finite may come through them. */
static inline void att_gather(float *c, eqi_elem elem, const void *a, int64_t lda, const void *b,
                              int64_t m, int64_t k, bool acc, eqi_weights weights, bool hide)
{
    bool in_a = weights == EQI_WEIGHTS_A;
    if (hide && !att_finite(elem, in_a ? b : a, in_a ? k * TILE_N : m * lda))
        VEC(tile_weighted)(c, elem, a, lda, b, m, k, acc, weights);
    else
        VEC(tile)(c, elem, a, lda, b, m, k, acc);
}

/* `count` rows from row `first`, of `size` values: from[c][i] * factor[i]. */
static inline void att_store_turned(const eqi_attention_rows *to, int64_t first, int64_t count,
                                    int64_t size, const float *from, const float *factor)
{
    for (int64_t i = 0; i < count; i += VL) {
        const vf scale = v_load(factor + i);
        for (int64_t c = 0; c < size; c += VL) {
            vi t[VL];
            for (int v = 0; v < VL; v++)
                t[v] = c + v < size ? v_bits(v_mul(v_load(from + (c + v) * TILE_N + i), scale))
                                    : vi_set1(0);
            vi_transpose(t);
            for (int v = 0; v < VL && i + v < count; v++)
                vec_store(to->data, to->dtype, (first + i + v) * to->ld + c, v_from_bits(t[v]),
                          vec_step(size - c));
        }
    }
}

#endif
