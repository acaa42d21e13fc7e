/* mse, mse_bwd. Bytes moved: each element of each argument once. */
#include "../launch.cuh"
#include "../load.cuh"
#include "../reduce.cuh"

struct warps {
    double sum[EQI_WARP];
};

/* parts[block]: sums of (x - target)^2 in f64 */
__global__ void __launch_bounds__(EQI_BLOCK)
    squared_errors_kernel(double *parts, eqi_view x, eqi_view target)
{
    double sum = 0.0;
    for (int64_t i = grid_first(); i < count(x); i += grid_step()) {
        double e = static_cast<double>(get(x, i)) - static_cast<double>(get(target, i));
        sum += e * e;
    }
    sum = block_sum(sum, block_memory<warps>()->sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

/* Of one block: the sum of parts over the number of elements; of none 0 */
__global__ void __launch_bounds__(EQI_BLOCK)
    mean_kernel(eqi_view loss, const double *parts, int64_t n_parts, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < n_parts; i += EQI_BLOCK) sum += parts[i];
    sum = block_sum(sum, block_memory<warps>()->sum);
    if (threadIdx.x == 0) put(loss, 0, n ? static_cast<float>(sum / static_cast<double>(n)) : 0.0f);
}

/* Blocks at most: their number, and so the order of the sum, follows from the elements alone. */
#define MOST_PARTS 2048

eqat_status eqi_cuda_mse(eqi_ctx *ctx, const eqi_view *loss, const eqi_view *x,
                         const eqi_view *target)
{
    const int64_t n = eqi_cuda_count(x);
    unsigned blocks = eqi_grid(n, EQI_BLOCK);
    if (blocks > MOST_PARTS) blocks = MOST_PARTS;
    void *parts = nullptr;
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_SUMS, blocks * sizeof(double), &parts));
    EQI_CUDA_TRY(eqi_launch(ctx, "mse", squared_errors_kernel, blocks, EQI_BLOCK, sizeof(warps),
                            static_cast<double *>(parts), *x, *target));
    return eqi_launch(ctx, "mse_mean", mean_kernel, 1, EQI_BLOCK, sizeof(warps), *loss,
                      static_cast<const double *>(parts), blocks, n);
}

/* dx (+)= dloss * 2 (x - target) / count */
__global__ void __launch_bounds__(EQI_BLOCK)
    mse_bwd_kernel(eqi_view dx, eqi_view dloss, eqi_view x, eqi_view target, bool acc)
{
    float factor = get(dloss, 0) * 2.0f / static_cast<float>(count(x));
    for (int64_t i = grid_first(); i < count(x); i += grid_step())
        add(dx, i, factor * (get(x, i) - get(target, i)), acc);
}

eqat_status eqi_cuda_mse_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dloss,
                             const eqi_view *x, const eqi_view *target, bool acc)
{
    return eqi_launch(ctx, "mse_bwd", mse_bwd_kernel, eqi_grid(eqi_cuda_count(x), EQI_BLOCK),
                      EQI_BLOCK, 0, *dx, *dloss, *x, *target, acc);
}
