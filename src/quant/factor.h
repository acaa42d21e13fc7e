/* Triangular factors of symmetric matrices, on the device of the matrix. */
#ifndef EQI_QUANT_FACTOR_H
#define EQI_QUANT_FACTOR_H

#include "tensor/tensor.h"

#define EQI_FACTOR_BLOCK 64 /* rows and columns that the host works on at a time */

/* Rows [row, row + rows) and columns [column, column + columns) of a [N, K], contiguous. */
eqi_view eqi_part_of(const eqi_tensor *a, int64_t row, int64_t rows, int64_t column,
                     int64_t columns);
/* The first elements of a scratch tensor F32, as a contiguous matrix. */
eqi_view eqi_matrix_in(const eqi_tensor *t, int64_t rows, int64_t columns);
/* The square on a's diagonal at `first` to the host, through `square`, F32 with room for it. */
eqat_status eqi_factor_square(const eqi_tensor *a, int64_t first, int64_t n, eqi_tensor *square,
                              float *host);

/* a F32 [K, K], symmetric, becomes V of a = V V^T, upper triangular with a positive diagonal; below
 * it is anything. EQAT_NUMERIC: a is not positive definite, or not finite, and is lost. */
eqat_status eqi_factor(eqi_tensor *a);

#endif
