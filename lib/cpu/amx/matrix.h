/* The matrix registers of AMX, or a plain C model of them by which the kernels are tested on
 * processors without. Registers are named by constants 0 to 7; each holds 16 rows of 64 bytes. */
#ifndef EQI_CPU_AMX_MATRIX_H
#define EQI_CPU_AMX_MATRIX_H

#include <stdint.h>
#include <string.h>

#define AMX_ROWS 16
#define AMX_PAIRS 16

#if EQI_AMX_MODEL

#include "base/half.h"

typedef union amx_register {
    float f[AMX_ROWS][16];
    uint16_t h[AMX_ROWS][32];
} amx_register;

#define AMX_REGISTERS amx_register amx_r[8]
#define amx_zero(i) memset(&amx_r[i], 0, sizeof amx_r[i])
#define amx_load(i, p, stride) amx_copy_in(&amx_r[i], (p), (stride))
#define amx_store(i, p, stride) amx_copy_out((p), (stride), &amx_r[i])
#define amx_product(c, a, b) amx_multiply(&amx_r[c], &amx_r[a], &amx_r[b])

static inline void amx_begin(void) {}
static inline void amx_end(void) {}

static inline void amx_copy_in(amx_register *r, const void *p, int64_t stride)
{
    for (int i = 0; i < AMX_ROWS; i++)
        memcpy(r->f[i], (const char *)p + i * stride, sizeof r->f[i]);
}
static inline void amx_copy_out(void *p, int64_t stride, const amx_register *r)
{
    for (int i = 0; i < AMX_ROWS; i++) memcpy((char *)p + i * stride, r->f[i], sizeof r->f[i]);
}
static inline void amx_multiply(amx_register *c, const amx_register *a, const amx_register *b)
{
    for (int i = 0; i < AMX_ROWS; i++)
        for (int k = 0; k < AMX_PAIRS; k++)
            for (int j = 0; j < 16; j++) {
                c->f[i][j] += eqi_bf16_to_f32(a->h[i][2 * k]) * eqi_bf16_to_f32(b->h[k][2 * j]);
                c->f[i][j] +=
                    eqi_bf16_to_f32(a->h[i][2 * k + 1]) * eqi_bf16_to_f32(b->h[k][2 * j + 1]);
            }
}

#else

#include <immintrin.h>

#define AMX_REGISTERS
#define amx_zero(i) _tile_zero(i)
#define amx_load(i, p, stride) _tile_loadd(i, (p), (stride))
#define amx_store(i, p, stride) _tile_stored(i, (p), (stride))
#define amx_product(c, a, b) _tile_dpbf16ps(c, a, b)

typedef struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} amx_config;

/* All registers of full size, for this thread until amx_end; others configure them differently. */
static inline void amx_begin(void)
{
    static const amx_config full = {.palette = 1,
                                    .bytes = {64, 64, 64, 64, 64, 64, 64, 64},
                                    .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&full);
}
static inline void amx_end(void) { _tile_release(); }

#endif

/* rows: 16 or 32 rows of c, 32 columns; ld in elements. k is a multiple of 32, and b has rows of
 * pairs, ldb values apart. */
static inline __attribute__((always_inline)) void amx_tile(float *c, int64_t ldc, const uint16_t *a,
                                                           int64_t lda, const uint16_t *b,
                                                           int64_t ldb, int64_t k, bool acc,
                                                           int rows)
{
    AMX_REGISTERS;
    /* The intrinsics do not tell the compiler that they read memory. */
    __asm__ volatile("" ::: "memory");
    const int64_t cs = ldc * 4, as = lda * 2, bs = ldb * 2;
    if (acc) {
        amx_load(0, c, cs);
        amx_load(1, c + 16, cs);
        if (rows > 16) amx_load(2, c + 16 * ldc, cs);
        if (rows > 16) amx_load(3, c + 16 * ldc + 16, cs);
    } else {
        amx_zero(0);
        amx_zero(1);
        if (rows > 16) amx_zero(2);
        if (rows > 16) amx_zero(3);
    }
    for (int64_t i = 0; i < k; i += 32, a += 32, b += AMX_PAIRS * ldb) {
        amx_load(6, b, bs);
        amx_load(4, a, as);
        amx_product(0, 4, 6);
        amx_load(7, b + 32, bs);
        amx_product(1, 4, 7);
        if (rows > 16) {
            amx_load(5, a + 16 * lda, as);
            amx_product(2, 5, 6);
            amx_product(3, 5, 7);
        }
    }
    amx_store(0, c, cs);
    amx_store(1, c + 16, cs);
    if (rows > 16) amx_store(2, c + 16 * ldc, cs);
    if (rows > 16) amx_store(3, c + 16 * ldc + 16, cs);
    __asm__ volatile("" ::: "memory");
}

#endif
