/* Which queries see which keys, on vectors of queries. */
#ifndef EQI_CPU_VEC_ATTENTION_MASK_H
#define EQI_CPU_VEC_ATTENTION_MASK_H

#include "cpu/vec/vec.h"

/* A block of queries: positions of lanes, and their segments. */
typedef struct att_block {
    int64_t q0, count;
    int32_t position[EQI_ATT_Q], segment[EQI_ATT_Q];
} att_block;

static inline bool att_causal(const eqi_attention_desc *d) { return d->causal || d->window > 0; }

static inline void att_block_init(att_block *b, const eqi_attention_head *h, int64_t q0)
{
    b->q0 = q0;
    b->count = eqi_min_i64(EQI_ATT_Q, h->queries - q0);
    for (int64_t i = 0; i < EQI_ATT_Q; i++) {
        int64_t p = h->desc->q_offset + q0 + eqi_min_i64(i, b->count - 1);
        b->position[i] = (int32_t)p;
        b->segment[i] = h->segments ? h->segments[p] : 0;
    }
}

/* Keys that some query of the block may see: [*first, *last). */
static inline void att_keys(const eqi_attention_head *h, int64_t q0, int64_t count, int64_t *first,
                            int64_t *last)
{
    const eqi_attention_desc *d = h->desc;
    int64_t low = d->q_offset + q0, high = low + count - 1;
    *first = d->window > 0 && low - d->window + 1 > 0 ? low - d->window + 1 : 0;
    *last = att_causal(d) ? eqi_min_i64(high + 1, h->keys) : h->keys;
    if (*first > *last) *first = *last;
}

/* Whether every query of the block sees all keys k0..k0+n. */
static inline bool att_all(const eqi_attention_head *h, int64_t q0, int64_t count, int64_t k0,
                           int64_t n)
{
    const eqi_attention_desc *d = h->desc;
    int64_t low = d->q_offset + q0, high = low + count - 1;
    if (h->segments) return false;
    if (att_causal(d) && k0 + n - 1 > low) return false;
    return d->window <= 0 || k0 > high - d->window;
}

/* Lanes of the vector at query `at` of the block that see `key`. */
static inline vm att_sees(const eqi_attention_head *h, const att_block *b, int at, int64_t key)
{
    const eqi_attention_desc *d = h->desc;
    vi p = vi_load(b->position + at);
    vm sees = vi_eq(p, p);
    if (att_causal(d)) sees = vi_gt(p, vi_set1((int32_t)key - 1));
    if (d->window > 0 && d->window < INT32_MAX - key)
        sees = vm_and(sees, vi_gt(vi_set1((int32_t)(key + d->window)), p));
    if (h->segments)
        sees = vm_and(sees, vi_eq(vi_load(b->segment + at), vi_set1(h->segments[key])));
    return sees;
}

#endif
