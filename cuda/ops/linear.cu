/* linear, linear_bwd_x, linear_bwd_w, bias_bwd. Bytes moved: a product reads its operands and
 * writes its result; a weight of another dtype than x is first rounded to it in scratch, one read
 * and one write more; a bias costs F32 y one write and one read more, BF16 y a result in F32. */
#include "../launch.cuh"
#include "../load.cuh"
#include "../operand.h"
#include "../shared.cuh"

/* The weight as a product with activations of `dtype` sees it. */
static eqat_status seen(eqi_ctx *ctx, eqi_view *out, const eqi_view *w, eqi_dtype dtype)
{
    *out = *w;
    if (w->dtype == dtype) return EQAT_OK;
    EQI_CUDA_TRY(eqi_cuda_operand(ctx, out, dtype, eqi_cuda_rows(w), eqi_cuda_width(w)));
    return eqi_cuda_copy(ctx, out, w);
}

/* y[R, N] (+)= x[R, K] w[N, K]^T, w in x's dtype. */
static eqat_status times(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *w,
                         bool acc)
{
    return eqi_cuda_product(ctx, y->data, y->dtype, eqi_cuda_stride(y), eqi_cuda_rows(x),
                            eqi_cuda_rows(w), eqi_cuda_width(x), eqi_cuda_matrix_of(x, false),
                            eqi_cuda_matrix_of(w, true), acc);
}

/* y[R, N] = bias[N] + sums[R, N]; no sums: 0. */
__global__ void __launch_bounds__(EQI_BLOCK) bias_kernel(eqi_view y, eqi_view bias, eqi_view sums)
{
    for (int64_t i = grid_first(); i < count(y); i += grid_step()) {
        int64_t r = i / width(y), n = i % width(y);
        float v = get(bias, at4(bias, 0, 0, 0, n));
        if (sums.data) v += get(sums, at4(sums, 0, 0, r, n));
        put(y, at4(y, 0, 0, r, n), v);
    }
}

static eqat_status add_bias(eqi_ctx *ctx, const eqi_view *y, const eqi_view *bias,
                            const eqi_view *sums)
{
    return eqi_launch(ctx, "linear_bias", bias_kernel, eqi_grid(eqi_cuda_count(y), EQI_BLOCK),
                      EQI_BLOCK, 0, *y, *bias, eqi_or_none(sums));
}

/* Sums of a chunk of rows in F32 scratch, so that y is rounded once. */
static eqat_status in_chunks(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *w,
                             const eqi_view *bias)
{
    const int64_t rows = eqi_cuda_rows(y), width = eqi_cuda_width(y), each = width * 4,
                  chunk = eqi_cuda_chunk(rows, each, EQI_CUDA_CHUNK_BYTES);
    void *data = nullptr;
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_RESULT, static_cast<size_t>(chunk * each), &data));
    for (int64_t first = 0; first < rows; first += chunk) {
        int64_t n = rows - first < chunk ? rows - first : chunk;
        eqi_view sums = eqi_cuda_dense(data, EQI_F32, n, width),
                 from = eqi_cuda_some_rows(x, first, n), to = eqi_cuda_some_rows(y, first, n);
        EQI_CUDA_TRY(times(ctx, &sums, &from, w, false));
        EQI_CUDA_TRY(add_bias(ctx, &to, bias, &sums));
    }
    return EQAT_OK;
}

eqat_status eqi_cuda_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *w,
                            const eqi_view *bias)
{
    eqi_view weight;
    EQI_CUDA_TRY(seen(ctx, &weight, w, x->dtype));
    if (!bias) return times(ctx, y, x, &weight, false);
    if (y->dtype != EQI_F32) return in_chunks(ctx, y, x, &weight, bias);
    EQI_CUDA_TRY(add_bias(ctx, y, bias, nullptr));
    return times(ctx, y, x, &weight, true);
}

/* dx[R, K] (+)= dy[R, N] w[N, K] */
eqat_status eqi_cuda_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                  const eqi_view *w, bool acc)
{
    eqi_view weight;
    EQI_CUDA_TRY(seen(ctx, &weight, w, dy->dtype));
    return eqi_cuda_product(ctx, dx->data, dx->dtype, eqi_cuda_stride(dx), eqi_cuda_rows(dy),
                            eqi_cuda_width(dx), eqi_cuda_width(dy), eqi_cuda_matrix_of(dy, false),
                            eqi_cuda_matrix_of(&weight, false), acc);
}

/* dw[N, K] (+)= dy[R, N]^T x[R, K] */
eqat_status eqi_cuda_linear_bwd_w(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *dy,
                                  const eqi_view *x, bool acc)
{
    return eqi_cuda_product(ctx, dw->data, dw->dtype, eqi_cuda_stride(dw), eqi_cuda_width(dy),
                            eqi_cuda_width(x), eqi_cuda_rows(x), eqi_cuda_matrix_of(dy, true),
                            eqi_cuda_matrix_of(x, false), acc);
}

/* ---- bias_bwd: rows in parts, the rows of a part by the lanes of a block, then lanes and parts in
 * order ---- */
constexpr int COLUMNS = 32, LANES = 8, SUMMERS = COLUMNS * LANES;
constexpr int64_t PART_ROWS = 256, PARTS = 1024;

struct lanes {
    float sum[LANES][COLUMNS];
};

/* parts[part, N] of dy[R, N]: the sums over rows part * per to (part + 1) * per */
__global__ void __launch_bounds__(SUMMERS)
    column_sums_kernel(float *parts, eqi_view dy, int64_t per)
{
    lanes *m = block_memory<lanes>();
    int64_t first = blockIdx.y * per, last = first + per < rows(dy) ? first + per : rows(dy);
    for (int64_t n0 = static_cast<int64_t>(blockIdx.x) * COLUMNS; n0 < width(dy);
         n0 += static_cast<int64_t>(gridDim.x) * COLUMNS) {
        int64_t n = n0 + threadIdx.x;
        float sum = 0.0f;
        for (int64_t r = first + threadIdx.y; r < last && n < width(dy); r += LANES)
            sum += get(dy, at4(dy, 0, 0, r, n));
        __syncthreads(); /* the sums of the columns before may not be read yet */
        m->sum[threadIdx.y][threadIdx.x] = sum;
        __syncthreads();
        if (threadIdx.y || n >= width(dy)) continue;
        for (int i = 1; i < LANES; i++) sum += m->sum[i][threadIdx.x];
        parts[blockIdx.y * width(dy) + n] = sum;
    }
}

/* dbias[N] (+)= the sum over parts */
__global__ void __launch_bounds__(EQI_BLOCK)
    add_parts_kernel(eqi_view dbias, const float *parts, int64_t n_parts, bool acc)
{
    for (int64_t n = grid_first(); n < width(dbias); n += grid_step()) {
        float sum = 0.0f;
        for (int64_t i = 0; i < n_parts; i++) sum += parts[i * width(dbias) + n];
        add(dbias, at4(dbias, 0, 0, 0, n), sum, acc);
    }
}

eqat_status eqi_cuda_bias_bwd(eqi_ctx *ctx, const eqi_view *dbias, const eqi_view *dy, bool acc)
{
    int64_t rows = eqi_cuda_rows(dy), width = eqi_cuda_width(dy),
            n = (rows + PART_ROWS - 1) / PART_ROWS;
    if (n > PARTS) n = PARTS;
    const int64_t per = n ? (rows + n - 1) / n : 0;
    void *parts = nullptr;
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_SUMS, static_cast<size_t>(n * width) * 4, &parts));
    EQI_CUDA_TRY(eqi_launch(ctx, "bias_bwd", column_sums_kernel,
                            dim3(eqi_grid(width, COLUMNS), static_cast<unsigned>(n)),
                            dim3(COLUMNS, LANES), sizeof(lanes), static_cast<float *>(parts), *dy,
                            per));
    return eqi_launch(ctx, "bias_bwd_parts", add_parts_kernel, eqi_grid(width, EQI_BLOCK),
                      EQI_BLOCK, 0, *dbias, static_cast<const float *>(parts), n, acc);
}
