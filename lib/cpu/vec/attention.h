/* One task of attention, forward or backward: a head of one sequence. Scores are held transposed,
 * [keys][queries], so that what belongs to a query (maximum, sum, lse) is a lane and what belongs
 * to a pair of products is a row. */
#ifndef EQI_CPU_VEC_ATTENTION_H
#define EQI_CPU_VEC_ATTENTION_H

#include "base/threads.h"
#include "cpu/vec/operand.h"

/* Queries and keys per block. */
#define EQI_ATT_Q 64
#define EQI_ATT_K 64

typedef struct eqi_attention_head {
    const eqi_attention_desc *desc;
    int64_t queries, keys, size;
    eqi_rows q, k, v;        /* of this head: rows are tokens */
    const int32_t *segments; /* of this sequence or NULL */
    eqi_elem elem;
    eqi_stop *stop;
} eqi_attention_head;

/* What all query blocks of a head read: k in rows of `inner` values, padded with zeros to whole
 * blocks, and v transposed, per block of keys [outer][EQI_ATT_K]. */
typedef struct eqi_attention_keys {
    const void *k, *v;
} eqi_attention_keys;

/* A row per token, `ld` elements apart. */
typedef struct eqi_attention_rows {
    void *data;
    eqi_dtype dtype;
    int64_t ld;
} eqi_attention_rows;

typedef struct eqi_attention_out {
    eqi_attention_rows o;
    float *lse; /* [queries] or NULL */
} eqi_attention_out;

typedef struct eqi_attention_grad {
    eqi_rows o, d_o;
    const float *lse;
    eqi_attention_rows dq, dk, dv; /* dk, dv: of this query head alone */
} eqi_attention_grad;

static inline int64_t eqi_att_inner(int64_t size) { return (size + 31) / 32 * 32; }
static inline int64_t eqi_att_outer(int64_t size) { return (size + 15) / 16 * 16; }
static inline int64_t eqi_att_blocks(int64_t count) { return (count + EQI_ATT_K - 1) / EQI_ATT_K; }

#endif
