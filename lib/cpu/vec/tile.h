/* Small matrix products inside attention. */
#ifndef EQI_CPU_VEC_TILE_H
#define EQI_CPU_VEC_TILE_H

#include "cpu/vec/vec.h"

/* Columns of every product: the block of pack_b. */
#define TILE_N 64

/* What the inner dimension of a product of bf16 is a multiple of. Rows are computed by 16s with
 * AMX: a and c have room. */
#define TILE_PAIR (EQI_SIMD_AMX ? 32 : 2)

/* Around the products of a task, on its thread. */
void VEC(tile_begin)(eqi_elem elem);
void VEC(tile_end)(eqi_elem elem);

/* c[m][64] (+)= a[m][k] b[k][64]: c F32; a in rows lda apart; b as pack_b leaves a block. k is a
 * multiple of TILE_PAIR for bf16. */
void VEC(tile)(float *c, eqi_elem elem, const void *a, int64_t lda, const void *b, int64_t m,
               int64_t k, bool acc);

/* The same where one operand holds weights, and a weight of 0 adds nothing whatever it meets. Slow.
 */
typedef enum eqi_weights { EQI_WEIGHTS_A, EQI_WEIGHTS_B } eqi_weights;
void VEC(tile_weighted)(float *c, eqi_elem elem, const void *a, int64_t lda, const void *b,
                        int64_t m, int64_t k, bool acc, eqi_weights weights);

#endif
