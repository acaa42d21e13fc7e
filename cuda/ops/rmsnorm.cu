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

/* Sums over rows: a block has EQI_WARP columns, thread i column i % EQI_WARP of every LANES-th row
 * from i / EQI_WARP. */
constexpr int LANES = EQI_BLOCK / EQI_WARP;

struct column_memory {
    float part[LANES][EQI_WARP];
};

static __device__ __forceinline__ int64_t column()
{
    return static_cast<int64_t>(blockIdx.x) * EQI_WARP + threadIdx.x % EQI_WARP;
}

/* The sum of the lanes' sums, for the threads of the first lane. */
static __device__ __forceinline__ float sum_lanes(column_memory *memory, float sum)
{
    memory->part[threadIdx.x / EQI_WARP][threadIdx.x % EQI_WARP] = sum;
    __syncthreads();
    for (int i = 1; i < LANES && threadIdx.x < EQI_WARP; i++) sum += memory->part[i][threadIdx.x];
    return sum;
}

/* part [pieces, H]: sums of dy x rstd over pieces of `per` rows, piece blockIdx.y */
__global__ void __launch_bounds__(EQI_BLOCK)
    rmsnorm_bwd_part_kernel(float *part, int64_t per, eqi_view dy, eqi_view x, eqi_view rstd)
{
    int64_t j = column(), r = blockIdx.y * per, end = r + per;
    if (end > rows(x)) end = rows(x);
    float sum = 0.0f;
    for (r += threadIdx.x / EQI_WARP; r < end && j < width(x); r += LANES)
        sum += get(dy, at2(dy, r, j)) * (get(x, at2(x, r, j)) * get(rstd, r));
    sum = sum_lanes(block_memory<column_memory>(), sum);
    if (threadIdx.x < EQI_WARP && j < width(x)) part[blockIdx.y * width(x) + j] = sum;
}

__global__ void __launch_bounds__(EQI_BLOCK)
    rmsnorm_bwd_gain_kernel(eqi_view dgain, const float *part, int64_t pieces, bool acc)
{
    int64_t n = width(dgain), j = column();
    float sum = 0.0f;
    for (int64_t i = threadIdx.x / EQI_WARP; i < pieces && j < n; i += LANES)
        sum += part[i * n + j];
    sum = sum_lanes(block_memory<column_memory>(), sum);
    if (threadIdx.x < EQI_WARP && j < n) add(dgain, j, sum, acc);
}

/* Pieces of at least 32 rows, and at most 256 pieces. */
static eqat_status sum_gain(eqi_ctx *ctx, const eqi_view *dgain, const eqi_view *dy,
                            const eqi_view *x, const eqi_view *rstd, bool acc)
{
    int64_t n = eqi_cuda_width(x), all = eqi_cuda_rows(x), per = (all + 255) / 256;
    if (per < 32) per = 32;
    int64_t pieces = (all + per - 1) / per;
    void *part = nullptr;
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_SUMS,
                                  static_cast<size_t>(pieces * n) * sizeof(float), &part));
    unsigned blocks = static_cast<unsigned>((n + EQI_WARP - 1) / EQI_WARP);
    EQI_CUDA_TRY(eqi_launch(
        ctx, "rmsnorm_bwd", rmsnorm_bwd_part_kernel, dim3(blocks, static_cast<unsigned>(pieces)),
        EQI_BLOCK, sizeof(column_memory), static_cast<float *>(part), per, *dy, *x, *rstd));
    return eqi_launch(ctx, "rmsnorm_bwd", rmsnorm_bwd_gain_kernel, blocks, EQI_BLOCK,
                      sizeof(column_memory), *dgain, static_cast<const float *>(part), pieces, acc);
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
