/* rmsnorm, rmsnorm_bwd. Bytes moved: forward x twice (the second time a row is in the cache) and y
 * once; backward dy and x twice and dx once, for dgain dy and x once more. A block has one row, and
 * for dgain a piece of the columns of some rows. */
#include "../launch.cuh"
#include "../load.cuh"
#include "../reduce.cuh"

struct norm_memory {
    float part[EQI_BLOCK / EQI_WARP];
};

/* y, x [R, H]; rstd [R]; gain [H] */
__global__ void __launch_bounds__(EQI_BLOCK)
    rmsnorm_kernel(eqi_view y, eqi_view rstd, eqi_view x, eqi_view gain, float eps, float offset)
{
    norm_memory *memory = block_memory<norm_memory>();
    int64_t n = width(x);
    for (int64_t r = blockIdx.x; r < rows(x); r += gridDim.x) {
        float sum = 0.0f;
        for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
            float v = get(x, at2(x, r, j));
            sum += v * v;
        }
        sum = block_sum(sum, memory->part);
        float rs = 1.0f / sqrtf(sum / static_cast<float>(n) + eps);
        for (int64_t j = threadIdx.x; j < n; j += blockDim.x)
            put(y, at2(y, r, j), get(x, at2(x, r, j)) * rs * (offset + get(gain, j)));
        if (threadIdx.x == 0) put(rstd, r, rs);
    }
}

eqat_status eqi_cuda_rmsnorm(eqi_ctx *ctx, const eqi_view *y, const eqi_view *rstd,
                             const eqi_view *x, const eqi_view *gain, double eps, double offset)
{
    return eqi_launch(ctx, "rmsnorm", rmsnorm_kernel, eqi_grid(eqi_cuda_rows(x), 1),
                      eqi_row_block(eqi_cuda_width(x)), sizeof(norm_memory), *y, *rstd, *x, *gain,
                      static_cast<float>(eps), static_cast<float>(offset));
}

/* With n = x rstd, g = dy (offset + gain): dx = rstd (g - n mean(g n)). */
__global__ void __launch_bounds__(EQI_BLOCK)
    rmsnorm_bwd_x_kernel(eqi_view dx, eqi_view dy, eqi_view x, eqi_view gain, eqi_view rstd,
                         float offset, bool acc)
{
    norm_memory *memory = block_memory<norm_memory>();
    int64_t n = width(x);
    for (int64_t r = blockIdx.x; r < rows(x); r += gridDim.x) {
        float rs = get(rstd, r), sum = 0.0f;
        for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
            float g = get(dy, at2(dy, r, j)) * (offset + get(gain, j));
            sum += g * (get(x, at2(x, r, j)) * rs);
        }
        float mean = block_sum(sum, memory->part) / static_cast<float>(n);
        for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
            float g = get(dy, at2(dy, r, j)) * (offset + get(gain, j));
            add(dx, at2(dx, r, j), rs * (g - get(x, at2(x, r, j)) * rs * mean), acc);
        }
    }
}

/* part [pieces, H]: sums of dy x rstd over pieces of `per` rows, piece blockIdx.y */
__global__ void __launch_bounds__(EQI_BLOCK)
    rmsnorm_bwd_part_kernel(float *part, int64_t per, eqi_view dy, eqi_view x, eqi_view rstd)
{
    int64_t n = width(x), j = grid_first(), r = blockIdx.y * per, end = r + per;
    if (j >= n) return;
    if (end > rows(x)) end = rows(x);
    float sum = 0.0f;
    for (; r < end; r++) sum += get(dy, at2(dy, r, j)) * (get(x, at2(x, r, j)) * get(rstd, r));
    part[blockIdx.y * n + j] = sum;
}

__global__ void __launch_bounds__(EQI_BLOCK)
    rmsnorm_bwd_gain_kernel(eqi_view dgain, const float *part, int64_t pieces, bool acc)
{
    int64_t n = width(dgain);
    for (int64_t j = grid_first(); j < n; j += grid_step()) {
        float sum = 0.0f;
        for (int64_t i = 0; i < pieces; i++) sum += part[i * n + j];
        add(dgain, j, sum, acc);
    }
}

/* Pieces of at least 16 rows, and at most 256 pieces. */
static eqat_status sum_gain(eqi_ctx *ctx, const eqi_view *dgain, const eqi_view *dy,
                            const eqi_view *x, const eqi_view *rstd, bool acc)
{
    int64_t n = eqi_cuda_width(x), all = eqi_cuda_rows(x), per = (all + 255) / 256;
    if (per < 16) per = 16;
    int64_t pieces = (all + per - 1) / per;
    void *part = nullptr;
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_SUMS,
                                  static_cast<size_t>(pieces * n) * sizeof(float), &part));
    unsigned block = eqi_row_block(n), columns = static_cast<unsigned>((n + block - 1) / block);
    EQI_CUDA_TRY(eqi_launch(ctx, "rmsnorm_bwd", rmsnorm_bwd_part_kernel,
                            dim3(columns, static_cast<unsigned>(pieces)), block, 0,
                            static_cast<float *>(part), per, *dy, *x, *rstd));
    return eqi_launch(ctx, "rmsnorm_bwd", rmsnorm_bwd_gain_kernel, eqi_grid(n, block), block, 0,
                      *dgain, static_cast<const float *>(part), pieces, acc);
}

eqat_status eqi_cuda_rmsnorm_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dgain,
                                 const eqi_view *dy, const eqi_view *x, const eqi_view *gain,
                                 const eqi_view *rstd, double offset, bool acc_dx, bool acc_dgain)
{
    if (dgain) EQI_CUDA_TRY(sum_gain(ctx, dgain, dy, x, rstd, acc_dgain));
    if (!dx) return EQAT_OK;
    return eqi_launch(ctx, "rmsnorm_bwd", rmsnorm_bwd_x_kernel, eqi_grid(eqi_cuda_rows(x), 1),
                      eqi_row_block(eqi_cuda_width(x)), sizeof(norm_memory), *dx, *dy, *x, *gain,
                      *rstd, static_cast<float>(offset), acc_dx);
}
