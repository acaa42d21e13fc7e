/* The operands of matrix products. */
#ifndef EQI_CPU_VEC_OPERAND_H
#define EQI_CPU_VEC_OPERAND_H

#include "backend/backend.h"

/* What the operands of a matrix product are held in. */
typedef enum eqi_elem {
    EQI_ELEM_F32,
    EQI_ELEM_BF16,
    EQI_ELEM_F32_OF_BF16 /* f32 holding values rounded to bf16: for processors that cannot multiply
                            bf16 */
} eqi_elem;

static inline size_t eqi_elem_size(eqi_elem e) { return e == EQI_ELEM_BF16 ? 2 : 4; }

typedef enum eqi_rows_kind { EQI_ROWS_DENSE, EQI_ROWS_FAKE_QUANT, EQI_ROWS_PACKED } eqi_rows_kind;

/* A matrix that is read by pieces of rows: an activation, or a weight in one of its three forms. */
typedef struct eqi_rows {
    eqi_rows_kind kind;
    eqi_dtype dtype;  /* dense */
    const void *data; /* values, or words of codes */
    int64_t ld;       /* elements (words) from row to row */
    int64_t rows, cols;
    const float *s;
    const void *z;
    bool z_u8;
    int64_t s_ld, z_ld;
    eqi_quant_desc q;
} eqi_rows;

/* A rectangle of an operand: k0..k0+k of the inner dimension, n0..n0+n of the outer one. The copy
 * has pk >= k and pn >= n; what is beyond is zero. across: the outer dimension runs along the rows
 * of the matrix. */
typedef struct eqi_pack {
    const eqi_rows *src;
    eqi_elem elem;
    bool across;
    int64_t n0, n, pn, k0, k, pk;
    int64_t block; /* B: outer elements per block, see pack_b */
} eqi_pack;

/* Asks for memory that is used soon. */
static inline void eqi_fetch(const void *p, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)p + at);
}

#define EQI_PACK_SCRATCH ((size_t)64 << 10)

#endif
