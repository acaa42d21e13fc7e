/* The arithmetic of matrix products. */
#ifndef HOSTCUDA_GEMM_H
#define HOSTCUDA_GEMM_H

#include "cublasLt.h"

#include <stddef.h>

namespace hostcuda
{

size_t size_of(cudaDataType type);

/* A column-major matrix in memory. */
struct matrix {
    const void *data;
    cudaDataType type;
    size_t rows, cols, leading;
    bool transposed;
};

/* d = alpha op(a) op(b) + beta c; sums in f32. `d.data` is written; c is not read for beta 0. */
void multiply(float alpha, const matrix &a, const matrix &b, float beta, const matrix &c,
              const matrix &d);

} // namespace hostcuda

#endif
