#include "cpu/vec/tile.h"

#include "cpu/vec/rows.h"

#if EQI_SIMD_AMX
#include "cpu/amx/matrix.h"
#endif

/* Rows and vectors of c in registers at a time: rows * vectors accumulators, and `vectors` of b,
 * fit the register file. */
#if VL == 16
#define ROWS 4
#define VECTORS 4
#else
#define ROWS 6
#define VECTORS 2
#endif

/* Inner elements of a product at a time: what they take of b stays in the nearest caches. */
#define DEPTH 256

#define INLINE static inline __attribute__((always_inline))

INLINE void load_c(vf s[ROWS][VECTORS], const float *c, int64_t ldc, int rows, bool acc)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) s[r][v] = acc ? v_load(c + r * ldc + v * VL) : v_zero();
}

INLINE void store_c(float *c, int64_t ldc, vf s[ROWS][VECTORS], int rows)
{
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) v_store(c + r * ldc + v * VL, s[r][v]);
}

INLINE void rows_f32(float *c, int64_t ldc, const float *a, int64_t lda, const float *b, int64_t k,
                     bool acc, int rows)
{
    vf s[ROWS][VECTORS];
    load_c(s, c, ldc, rows, acc);
    for (int64_t i = 0; i < k; i++, b += TILE_N) {
        vf y[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) y[v] = v_load(b + v * VL);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            vf x = v_set1(a[r * lda + i]);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) s[r][v] = v_fma(x, y[v], s[r][v]);
        }
    }
    store_c(c, ldc, s, rows);
}

#if EQI_SIMD_AMX
static void strip_bf16(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint16_t *b,
                       int64_t m, int64_t k, bool acc)
{
    for (int64_t n = 0; n < TILE_N; n += 32)
        for (int64_t i = 0; i < m; i += 32) {
            float *to = c + i * ldc + n;
            if (m - i > 16)
                amx_tile(to, ldc, a + i * lda, lda, b + 2 * n, 2 * TILE_N, k, acc, 32);
            else
                amx_tile(to, ldc, a + i * lda, lda, b + 2 * n, 2 * TILE_N, k, acc, 16);
        }
}
#elif EQI_SIMD_BF16
INLINE void rows_bf16(float *c, int64_t ldc, const uint16_t *a, int64_t lda, const uint16_t *b,
                      int64_t k, bool acc, int rows)
{
    vf s[ROWS][VECTORS];
    load_c(s, c, ldc, rows, acc);
    for (int64_t i = 0; i < k; i += 2, b += 2 * TILE_N) {
        __m512bh y[VECTORS];
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; v++) y[v] = v_pair_load(b + 2 * v * VL);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            __m512bh x = v_pair_set1(a + r * lda + i);
#pragma GCC unroll 8
            for (int v = 0; v < VECTORS; v++) s[r][v] = v_pair_fma(x, y[v], s[r][v]);
        }
    }
    store_c(c, ldc, s, rows);
}
#endif

/* All rows of one strip of columns; `rows` and `acc` become constants. */
#define STRIP(kind, type)                                                                      \
    static void strip_##kind(float *c, int64_t ldc, const type *a, int64_t lda, const type *b, \
                             int64_t m, int64_t k, bool acc)                                   \
    {                                                                                          \
        int64_t i = 0;                                                                         \
        if (acc)                                                                               \
            for (; i + ROWS <= m; i += ROWS)                                                   \
                rows_##kind(c + i * ldc, ldc, a + i * lda, lda, b, k, true, ROWS);             \
        else                                                                                   \
            for (; i + ROWS <= m; i += ROWS)                                                   \
                rows_##kind(c + i * ldc, ldc, a + i * lda, lda, b, k, false, ROWS);            \
        c += i * ldc;                                                                          \
        a += i * lda;                                                                          \
        switch (m - i) {                                                                       \
        case 5: rows_##kind(c, ldc, a, lda, b, k, acc, ROWS > 5 ? 5 : 1); break;               \
        case 4: rows_##kind(c, ldc, a, lda, b, k, acc, ROWS > 4 ? 4 : 1); break;               \
        case 3: rows_##kind(c, ldc, a, lda, b, k, acc, 3); break;                              \
        case 2: rows_##kind(c, ldc, a, lda, b, k, acc, 2); break;                              \
        case 1: rows_##kind(c, ldc, a, lda, b, k, acc, 1); break;                              \
        default: break;                                                                        \
        }                                                                                      \
    }

STRIP(f32, float)
#if EQI_SIMD_BF16 && !EQI_SIMD_AMX
STRIP(bf16, uint16_t)
#endif

void VEC(tile_begin)(eqi_elem elem)
{
#if EQI_SIMD_AMX
    if (elem == EQI_ELEM_BF16) amx_begin();
#endif
    (void)elem;
}

void VEC(tile_end)(eqi_elem elem)
{
#if EQI_SIMD_AMX
    if (elem == EQI_ELEM_BF16) amx_end();
#endif
    (void)elem;
}

static void strip(float *c, int64_t ldc, eqi_elem elem, const void *a, int64_t lda, const void *b,
                  int64_t m, int64_t k, bool acc)
{
#if EQI_SIMD_BF16
    if (elem == EQI_ELEM_BF16) {
        strip_bf16(c, ldc, a, lda, b, m, k, acc);
        return;
    }
#endif
    (void)elem;
    for (int n = 0; n < TILE_N; n += VECTORS * VL)
        strip_f32(c + n, ldc, a, lda, (const float *)b + n, m, k, acc);
}

void VEC(tile)(float *c, eqi_elem elem, const void *a, int64_t lda, const void *b, int64_t m,
               int64_t k, bool acc)
{
    strip(c, TILE_N, elem, a, lda, b, m, k, acc);
}

static float value_of(eqi_elem elem, const void *x, int64_t i)
{
    return elem == EQI_ELEM_BF16 ? eqi_bf16_to_f32(((const uint16_t *)x)[i])
                                 : ((const float *)x)[i];
}

void VEC(tile_weighted)(float *c, eqi_elem elem, const void *a, int64_t lda, const void *b,
                        int64_t m, int64_t k, bool acc, eqi_weights weights)
{
    if (!acc) memset(c, 0, (size_t)(m * TILE_N) * sizeof *c);
    for (int64_t j = 0; j < k; j++) {
        float row[TILE_N];
        for (int64_t i = 0; i < TILE_N; i++)
            row[i] = value_of(elem, b,
                              elem == EQI_ELEM_BF16 ? j / 2 * 2 * TILE_N + 2 * i + j % 2
                                                    : j * TILE_N + i);
        for (int64_t r = 0; r < m; r++) {
            const vf x = v_set1(value_of(elem, a, r * lda + j));
            for (float *to = c + r * TILE_N, *y = row; y < row + TILE_N; to += VL, y += VL) {
                vf other = v_load(y), weight = weights == EQI_WEIGHTS_A ? x : other;
                vm counts = vm_not(v_eq(weight, v_zero()));
                v_store(to, v_add(v_load(to), v_only(counts, v_mul(x, other))));
            }
        }
    }
}

void VEC(product)(float *c, eqi_elem elem, const void *a, const void *b, const int64_t mnk[3],
                  bool acc)
{
    const size_t size = eqi_elem_size(elem);
    const int64_t m = mnk[0], n = mnk[1], k = mnk[2];
    VEC(tile_begin)(elem);
    for (int64_t i = 0; i < k; i += DEPTH)
        for (int64_t j = 0; j < n; j += TILE_N)
            strip(c + j, n, elem, (const char *)a + (size_t)i * size, k,
                  (const char *)b + (size_t)(j * k + i * TILE_N) * size, m,
                  eqi_min_i64(k - i, DEPTH), acc || i > 0);
    VEC(tile_end)(elem);
}
