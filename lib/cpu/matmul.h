/* Matrix products of fixed shape, made for one thread and kept in the context: c[m, n] (+)= a[m, k]
 * b[k, n], c F32, a contiguous, b packed as eqi_simd.pack_b does. The sums are of F32 and their
 * order is that of the shape. A build links one of matmul_onednn.c and matmul_own.c. */
#ifndef EQI_CPU_MATMUL_H
#define EQI_CPU_MATMUL_H

#include "cpu/cpu.h"

typedef struct eqi_mm eqi_mm;

/* Columns in a block of b, where b is blocked. */
#define EQI_MM_BLOCK 64

typedef struct eqi_mm_shape {
    int64_t m, n, k;
    bool bf16; /* operands; else F32 */
    bool acc;
} eqi_mm_shape;

/* Who computes them: "oneDNN 2.6.3". */
void eqi_mm_name(char *buffer, size_t size);

static inline bool eqi_mm_same(const eqi_mm_shape *a, const eqi_mm_shape *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->bf16 == b->bf16 && a->acc == b->acc;
}

/* EQAT_UNSUPPORTED when the oneDNN in the process is not of the major version built against. */
eqat_status eqi_mm_cache_create(eqi_ctx *ctx, eqi_mm_cache **out);
void eqi_mm_cache_free(eqi_ctx *ctx, eqi_mm_cache *cache);

/* The cache owns *out. */
eqat_status eqi_mm_get(eqi_ctx *ctx, const eqi_mm_shape *shape, const eqi_mm **out);
int64_t eqi_mm_block(const eqi_mm_cache *cache, bool bf16,
                     int64_t n); /* of pack_b, for n columns */
size_t eqi_mm_scratch(const eqi_mm *mm);
/* From the worker's thread; scratch: eqi_mm_scratch bytes, 64-byte aligned. */
bool eqi_mm_run(const eqi_mm *mm, int worker, const void *a, const void *b, float *c,
                void *scratch);
/* Finds out which layouts of b this processor's products take, and whether they run on bf16
 * operands. Comes first. */
eqat_status eqi_mm_probe(eqi_ctx *ctx, eqi_mm_cache *cache, bool *bf16);

#endif
