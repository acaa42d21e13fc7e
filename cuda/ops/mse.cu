/* mse, mse_bwd. Bytes needed and moved: each element of each argument once (that of a dx that is
 * added to twice), and 8 a block. Of an element: mse F32 8, BF16 4; mse_bwd F32 12, BF16 6. */
#include "../launch.cuh"
#include "../load.cuh"
#include "../reduce.cuh"
#include "../vector.cuh"

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

/* The same by packs. The difference is f32, so that f64, which many devices are slow at, takes no
 * more than a conversion and a fused product. */
template <class T>
__global__ void __launch_bounds__(EQI_BLOCK)
    squared_errors_packs_kernel(double *parts, vector_rows<T> x, vector_rows<T> target, int packs)
{
    constexpr int N = EQI_LANES<T>;
    double sum = 0.0;
    for (int i = pack_first(); i < packs; i += pack_step()) {
        pack<N> a = load_pack<N>(x, 0, i), b = load_pack<N>(target, 0, i);
        EQI_UNROLL
        for (int k = 0; k < N; k++) {
            double e = a.v[k] - b.v[k];
            sum = __fma_rn(e, e, sum);
        }
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

static eqat_status squared_errors(eqi_ctx *ctx, double *parts, unsigned blocks, const eqi_view *x,
                                  const eqi_view *target, const eqi_packs *p)
{
    if (!p)
        return eqi_launch(ctx, "mse", squared_errors_kernel, blocks, EQI_BLOCK, sizeof(warps),
                          parts, *x, *target);
    return eqi_with(x->dtype, [&](auto type) {
        using T = decltype(type);
        return eqi_launch(ctx, "mse", squared_errors_packs_kernel<T>, blocks, EQI_BLOCK,
                          sizeof(warps), parts, eqi_vector<T>(*p, x, 0),
                          eqi_vector<T>(*p, target, 1), p->packs);
    });
}

eqat_status eqi_cuda_mse(eqi_ctx *ctx, const eqi_view *loss, const eqi_view *x,
                         const eqi_view *target)
{
    const int64_t n = eqi_cuda_count(x);
    eqi_packs p;
    const bool whole = eqi_as_packs(&p, {x, target}) && p.rows == 1;
    unsigned blocks = eqi_grid(whole ? p.packs : n, EQI_BLOCK);
    if (blocks > MOST_PARTS) blocks = MOST_PARTS;
    void *parts = nullptr;
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_SUMS, blocks * sizeof(double), &parts));
    EQI_CUDA_TRY(
        squared_errors(ctx, static_cast<double *>(parts), blocks, x, target, whole ? &p : nullptr));
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

template <class T>
__global__ void __launch_bounds__(EQI_BLOCK)
    mse_bwd_packs_kernel(vector_rows<T> dx, eqi_view dloss, vector_rows<T> x, vector_rows<T> target,
                         int packs, int64_t n, bool acc)
{
    constexpr int N = EQI_LANES<T>;
    float factor = get(dloss, 0) * 2.0f / static_cast<float>(n);
    for (int i = pack_first(); i < packs; i += pack_step()) {
        pack<N> a = load_pack<N>(x, 0, i), b = load_pack<N>(target, 0, i);
        EQI_UNROLL
        for (int k = 0; k < N; k++) a.v[k] = factor * (a.v[k] - b.v[k]);
        add_pack(dx, 0, i, a, acc);
    }
}

eqat_status eqi_cuda_mse_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dloss,
                             const eqi_view *x, const eqi_view *target, bool acc)
{
    eqi_packs p;
    if (eqi_as_packs(&p, {dx, x, target}) && p.rows == 1)
        return eqi_with(x->dtype, [&](auto type) {
            using T = decltype(type);
            return eqi_launch(ctx, "mse_bwd", mse_bwd_packs_kernel<T>, p.grid, p.block, 0,
                              eqi_vector<T>(p, dx, 0), *dloss, eqi_vector<T>(p, x, 1),
                              eqi_vector<T>(p, target, 2), p.packs, eqi_cuda_count(x), acc);
        });
    return eqi_launch(ctx, "mse_bwd", mse_bwd_kernel, eqi_grid(eqi_cuda_count(x), EQI_BLOCK),
                      EQI_BLOCK, 0, *dx, *dloss, *x, *target, acc);
}
