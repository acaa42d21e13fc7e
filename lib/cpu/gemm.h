/* The matrix product behind every linear: c[m, n] = sum over k of a[m, k] b[k, n], cut into tiles
 * that are handed to `store` while they are in the cache. The order of every sum is that of the
 * shape, whatever the number of threads. */
#ifndef EQI_CPU_GEMM_H
#define EQI_CPU_GEMM_H

#include "cpu/cpu.h"

typedef struct eqi_tile {
    int64_t m0, m, n0, n;
    const float *c; /* [m, ld] */
    int64_t ld;
} eqi_tile;

typedef void (*eqi_tile_fn)(void *arg, const eqi_tile *tile, int worker);

typedef struct eqi_gemm {
    int64_t m, n, k;
    eqi_dtype dtype; /* of the operands as the product sees them: F32 or BF16 */
    const eqi_rows *a, *b;
    bool a_across; /* a(m, k) is row k, column m of its matrix, else row m, column k */
    bool b_across; /* b(k, n) is row k, column n of its matrix, else row n, column k */
    /* Tiles never straddle a multiple of `period` columns (0: n) and, but for the last of a period,
     * are whole multiples of `unit` columns (0: any); then tile i of period p begins at column p *
     * period + i * eqi_gemm_tile_n(). */
    int64_t period, unit;
    eqi_tile_fn store;
    void *arg;
} eqi_gemm;

/* What operands of this dtype are held in. */
eqi_elem eqi_gemm_elem(const eqi_cpu *cpu, eqi_dtype dtype);
eqat_status eqi_gemm_run(eqi_ctx *ctx, const eqi_gemm *g);
int64_t eqi_gemm_tile_n(const eqi_gemm *g);

/* The matrices that operands are read from. */
eqi_rows eqi_rows_of(const eqi_view *v);
eqi_rows eqi_rows_fake_quant(const eqi_view *w, const eqi_view *s, const eqi_view *z,
                             const eqi_quant_desc *q);
eqi_rows eqi_rows_packed(const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                         const eqi_quant_desc *q, int64_t cols);

#endif
