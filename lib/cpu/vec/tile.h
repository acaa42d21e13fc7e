/* Small matrix products inside attention. */
#ifndef EQI_CPU_VEC_TILE_H
#define EQI_CPU_VEC_TILE_H

#include "cpu/vec/vec.h"

/* Columns of every product: the block of pack_b. */
#define TILE_N 64

/* c[m][64] (+)= a[m][k] b[k][64]: c F32; a in rows lda apart; b as pack_b leaves a block. k is even for bf16. */
void VEC(tile)(float *c, eqi_elem elem, const void *a, int64_t lda, const void *b, int64_t m, int64_t k, bool acc);

#endif
