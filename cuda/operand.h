/* What the ops that multiply share: the weight of a product in scratch, parts of matrices, chunks
 * of rows. */
#ifndef EQI_CUDA_OPERAND_H
#define EQI_CUDA_OPERAND_H

#include "backend.h"

/* What an op keeps at once of a result that goes on in chunks of rows; of logits and their
 * gradient. */
#ifndef EQI_CUDA_CHUNK_BYTES
#define EQI_CUDA_CHUNK_BYTES (INT64_C(64) << 20)
#define EQI_CUDA_LOGITS_BYTES (INT64_C(256) << 20)
#endif

/* A contiguous matrix. */
inline eqi_view eqi_cuda_dense(void *data, eqi_dtype dtype, int64_t rows, int64_t columns)
{
    return {data, dtype, 2, {rows, columns, 0, 0}, {columns, 1, 0, 0}};
}

/* Room in scratch for the weight [N, K] of a product with activations of `dtype`. */
inline eqat_status eqi_cuda_operand(eqi_ctx *ctx, eqi_view *out, eqi_dtype dtype, int64_t n,
                                    int64_t k)
{
    void *data = nullptr;
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_OPERAND,
                                  static_cast<size_t>(n * k) * eqi_cuda_size(dtype), &data));
    *out = eqi_cuda_dense(data, dtype, n, k);
    return EQAT_OK;
}

inline eqi_cuda_matrix eqi_cuda_matrix_of(const eqi_view *v, bool turned)
{
    return {v->data, v->dtype, eqi_cuda_stride(v), turned};
}

/* Rows first to first + count of a matrix. */
inline eqi_view eqi_cuda_some_rows(const eqi_view *v, int64_t first, int64_t count)
{
    eqi_view part = *v;
    part.data = static_cast<char *>(v->data) +
        first * v->stride[0] * static_cast<int64_t>(eqi_cuda_size(v->dtype));
    part.shape[0] = count;
    return part;
}

/* Rows of a chunk of which each takes `each` bytes, all of them `limit` at most, but one at least.
 * Whole sixteens where there are as many, so that every chunk is as well aligned as the first. */
inline int64_t eqi_cuda_chunk(int64_t rows, int64_t each, int64_t limit)
{
    int64_t most = limit / (each > 0 ? each : 1);
    if (most >= rows) return rows;
    if (most >= 16) return most / 16 * 16;
    return most > 1 ? most : 1;
}

/* grad[count, K] F32, contiguous: rows first to first + count of dy[R, N]^T x[R, K]. */
inline eqat_status eqi_cuda_weight_rows_grad(eqi_ctx *ctx, float *grad, int64_t first,
                                             int64_t count, const eqi_view *dy, const eqi_view *x)
{
    const int64_t width = eqi_cuda_width(x);
    eqi_cuda_matrix columns = eqi_cuda_matrix_of(dy, true);
    columns.data = static_cast<const char *>(dy->data) +
        first * static_cast<int64_t>(eqi_cuda_size(dy->dtype));
    return eqi_cuda_product(ctx, grad, EQI_F32, width, count, width, eqi_cuda_rows(x), columns,
                            eqi_cuda_matrix_of(x, false), false);
}

/* Rows of a chunk of the gradient of a weight [N, K]. */
inline int64_t eqi_cuda_weight_chunk(int64_t rows, int64_t width)
{
    return eqi_cuda_chunk(rows, width * 4, EQI_CUDA_CHUNK_BYTES);
}

/* Calls use(grad, first, count) for one chunk of dy[R, N]^T x[R, K] after another: grad[count, K],
 * F32 in scratch, is of rows `first` on. */
template <typename Use>
eqat_status eqi_cuda_weight_grad(eqi_ctx *ctx, const eqi_view *dy, const eqi_view *x, Use use)
{
    const int64_t rows = eqi_cuda_width(dy), width = eqi_cuda_width(x),
                  chunk = eqi_cuda_weight_chunk(rows, width);
    void *data = nullptr;
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_RESULT,
                                  static_cast<size_t>(chunk * width) * sizeof(float), &data));
    float *grad = static_cast<float *>(data);
    for (int64_t first = 0; first < rows; first += chunk) {
        int64_t count = rows - first < chunk ? rows - first : chunk;
        EQI_CUDA_TRY(eqi_cuda_weight_rows_grad(ctx, grad, first, count, dy, x));
        EQI_CUDA_TRY(use(grad, first, count));
    }
    return EQAT_OK;
}

#endif
