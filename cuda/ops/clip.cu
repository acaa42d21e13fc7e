/* sum_squares: 4 bytes an element needed and moved, and 8 a block. clip_factor: three numbers. */
#include <cmath>

#include "../launch.cuh"
#include "../load.cuh"
#include "../reduce.cuh"
#include "../vector.cuh"

/* Blocks whose sums the second stage adds; a constant, so that every device adds alike. */
constexpr int64_t SUMS = 1024;

struct squares_memory {
    double part[EQI_BLOCK / EQI_WARP];
};

/* part [gridDim.x] */
__global__ void __launch_bounds__(EQI_BLOCK) sum_squares_kernel(double *part, eqi_view g)
{
    double sum = 0.0;
    for (int64_t i = grid_first(); i < count(g); i += grid_step()) {
        double x = get(g, elem(g, i));
        sum += x * x;
    }
    sum = block_sum(sum, block_memory<squares_memory>()->part);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

/* The same by packs. The square of an f32 is exact in f64: fused or not, the sum is the same. */
__global__ void __launch_bounds__(EQI_BLOCK)
    sum_squares_packs_kernel(double *part, vector_rows<float> g, int packs)
{
    constexpr int N = EQI_LANES<float>;
    double sum = 0.0;
    for (int i = pack_first(); i < packs; i += pack_step()) {
        pack<N> p = load_pack<N>(g, 0, i);
        EQI_UNROLL
        for (int k = 0; k < N; k++) {
            double x = p.v[k];
            sum = __fma_rn(x, x, sum);
        }
    }
    sum = block_sum(sum, block_memory<squares_memory>()->part);
    if (threadIdx.x == 0) part[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(EQI_BLOCK)
    add_squares_kernel(eqi_view to, const double *part, int parts)
{
    double sum = 0.0;
    for (int i = static_cast<int>(threadIdx.x); i < parts; i += EQI_BLOCK) sum += part[i];
    sum = block_sum(sum, block_memory<squares_memory>()->part);
    if (threadIdx.x == 0) *static_cast<double *>(to.data) += sum;
}

eqat_status eqi_cuda_sum_squares(eqi_ctx *ctx, const eqi_view *sum, const eqi_view *g)
{
    void *part = nullptr;
    eqi_packs p;
    const bool whole = g->dtype == EQI_F32 && eqi_as_packs(&p, {g}) && p.rows == 1;
    unsigned parts = eqi_grid(whole ? p.packs : eqi_cuda_count(g), EQI_BLOCK);
    if (parts > SUMS) parts = SUMS;
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_SUMS, SUMS * sizeof(double), &part));
    if (whole)
        EQI_CUDA_TRY(eqi_launch(ctx, "sum_squares", sum_squares_packs_kernel, parts, EQI_BLOCK,
                                sizeof(squares_memory), static_cast<double *>(part),
                                eqi_vector<float>(p, g, 0), p.packs));
    else
        EQI_CUDA_TRY(eqi_launch(ctx, "sum_squares", sum_squares_kernel, parts, EQI_BLOCK,
                                sizeof(squares_memory), static_cast<double *>(part), *g));
    return eqi_launch(ctx, "sum_squares", add_squares_kernel, 1, EQI_BLOCK, sizeof(squares_memory),
                      *sum, static_cast<const double *>(part), static_cast<int>(parts));
}

__global__ void __launch_bounds__(1)
    clip_factor_kernel(eqi_view norm, eqi_view factor, eqi_view sum, double max_norm, double scale)
{
    float n = static_cast<float>(scale * sqrt(*static_cast<const double *>(sum.data)));
    double share = max_norm / (static_cast<double>(n) + 1e-6),
           f = max_norm > 0.0 && share < 1.0 ? scale * share : scale;
    put(norm, 0, n);
    put(factor, 0, n - n == 0.0f ? static_cast<float>(f) : NAN);
}

eqat_status eqi_cuda_clip_factor(eqi_ctx *ctx, const eqi_view *norm, const eqi_view *factor,
                                 const eqi_view *sum, double max_norm, double scale)
{
    return eqi_launch(ctx, "clip_factor", clip_factor_kernel, 1, 1, 0, *norm, *factor, *sum,
                      max_norm, scale);
}
