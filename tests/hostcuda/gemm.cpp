#include "gemm.h"

#include "cuda_bf16.h"
#include "cuda_fp16.h"

#include <algorithm>
#include <string.h>
#include <vector>

namespace hostcuda
{

size_t size_of(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }

static float load(const matrix &m, size_t row, size_t col)
{
    size_t i = col * m.leading + row;
    switch (m.type) {
    case CUDA_R_16BF: return __bfloat162float(((const __nv_bfloat16 *)m.data)[i]);
    case CUDA_R_16F: return __half2float(((const __half *)m.data)[i]);
    default: return ((const float *)m.data)[i];
    }
}

static void store(const matrix &m, size_t row, size_t col, float x)
{
    size_t i = col * m.leading + row;
    switch (m.type) {
    case CUDA_R_16BF: ((__nv_bfloat16 *)m.data)[i] = __float2bfloat16_rn(x); break;
    case CUDA_R_16F: ((__half *)m.data)[i] = __float2half_rn(x); break;
    default: ((float *)m.data)[i] = x;
    }
}

/* Tiles of 16 by 4 sums stay in registers. */
enum { TALL = 16, WIDE = 4 };

/* op(m) cut into strips of `strip` rows (columns for b): for every k, its values one after the
 * other. Rows that are missing are 0. */
static std::vector<float> pack(const matrix &m, bool by_rows, size_t strip)
{
    size_t outer = by_rows ? m.rows : m.cols, inner = by_rows ? m.cols : m.rows;
    std::vector<float> out((outer + strip - 1) / strip * strip * inner);
    for (size_t c = 0; c < m.cols; c++)
        for (size_t r = 0; r < m.rows; r++) {
            size_t o = by_rows ? r : c, i = by_rows ? c : r;
            out[o / strip * strip * inner + i * strip + o % strip] = load(m, r, c);
        }
    return out;
}

/* Wider registers make no difference to the numbers: every sum is made in the order of k. */
#ifdef __x86_64__
#define FOR_PROCESSORS __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define FOR_PROCESSORS
#endif

/* sums = a strip of a times a strip of b. */
FOR_PROCESSORS static void tile(float sums[WIDE][TALL], const float *a, const float *b, size_t n)
{
    typedef float column __attribute__((vector_size(TALL * sizeof(float)), aligned(4), may_alias));
    column s[WIDE] = {};
    for (size_t k = 0; k < n; k++)
        for (int j = 0; j < WIDE; j++) s[j] += *(const column *)(a + k * TALL) * b[k * WIDE + j];
    memcpy(sums, s, sizeof s);
}

static void finish(const float sums[WIDE][TALL], float alpha, float beta, const matrix &c,
                   const matrix &d, size_t row, size_t col)
{
    for (size_t j = col; j < std::min(d.cols, col + WIDE); j++)
        for (size_t i = row; i < std::min(d.rows, row + TALL); i++) {
            float x = alpha * sums[j - col][i - row];
            if (beta != 0) x += beta * load(c, i, j);
            store(d, i, j, x);
        }
}

void multiply(float alpha, const matrix &a, const matrix &b, float beta, const matrix &c,
              const matrix &d)
{
    size_t n = a.transposed ? a.rows : a.cols;
    std::vector<float> left = pack(a, !a.transposed, TALL), right = pack(b, b.transposed, WIDE);
    for (size_t col = 0; col < d.cols; col += WIDE)
        for (size_t row = 0; row < d.rows; row += TALL) {
            float sums[WIDE][TALL];
            tile(sums, left.data() + row * n, right.data() + col * n, n);
            finish(sums, alpha, beta, c, d, row, col);
        }
}

} // namespace hostcuda
