/* kl_divergence, kl_divergence_bwd. Bytes moved: x and target once from memory (three times from
 * the cache, as long as it holds a row), dx once. */
#include "../launch.cuh"
#include "../loss.cuh"

/* A negative label masks the row. */
__device__ __forceinline__ bool counts(const eqi_view &labels, int64_t r, int64_t limit)
{
    if (!labels.data) return true;
    int label = get_int(labels, at4(labels, 0, 0, 0, r));
    return label >= 0 && label < limit;
}

/* ---- sums over rows ---- */

/* Of one block. */
__global__ void __launch_bounds__(EQI_BLOCK)
    loss_stats_kernel(eqi_view stats, const double *losses, int64_t n_rows, eqi_view labels,
                      int64_t limit)
{
    row_memory *m = block_memory<row_memory>();
    double sum = 0.0, used = 0.0;
    for (int64_t r = threadIdx.x; r < n_rows; r += EQI_BLOCK) {
        sum += losses[r];
        if (counts(labels, r, limit)) used += 1.0;
    }
    sum = block_sum(sum, m->sum);
    used = block_sum(used, m->sum);
    if (threadIdx.x) return;
    put(stats, at4(stats, 0, 0, 0, 0), static_cast<float>(sum));
    put(stats, at4(stats, 0, 0, 0, 1), static_cast<float>(used));
}

eqat_status eqi_cuda_loss_stats(eqi_ctx *ctx, const eqi_view *stats, const double *losses,
                                int64_t n_rows, const eqi_view *labels, int64_t limit)
{
    return eqi_launch(ctx, "loss_stats", loss_stats_kernel, 1, EQI_BLOCK, sizeof(row_memory),
                      *stats, losses, n_rows, eqi_or_none(labels), limit);
}

/* ---- kl_divergence ---- */

/* Every label that is not negative counts. */
#define ANY_LABEL (static_cast<int64_t>(1) << 31)

__device__ __forceinline__ const float *row_of(const eqi_view &v, int64_t r)
{
    return static_cast<const float *>(v.data) + at4(v, 0, 0, r, 0);
}

/* A block for each row of x and target [R, V]: losses[r], lse[r, 2] */
__global__ void __launch_bounds__(EQI_BLOCK)
    kl_divergence_kernel(double *losses, eqi_view lse, eqi_view x, eqi_view target, eqi_view labels)
{
    row_memory *m = block_memory<row_memory>();
    for (int64_t r = blockIdx.x; r < rows(x); r += gridDim.x) {
        softmax p = block_softmax(row_of(target, r), width(x), m),
                q = block_softmax(row_of(x, r), width(x), m);
        double loss = 0.0;
        if (counts(labels, r, ANY_LABEL)) /* the same for the whole block */
            loss = block_divergence(row_of(x, r), row_of(target, r), width(x), q, p, m);
        if (threadIdx.x) continue;
        losses[r] = loss;
        put(lse, at4(lse, 0, 0, r, 0), static_cast<float>(log_sum_exp(p)));
        put(lse, at4(lse, 0, 0, r, 1), static_cast<float>(log_sum_exp(q)));
    }
}

eqat_status eqi_cuda_kl_divergence(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *lse,
                                   const eqi_view *x, const eqi_view *target,
                                   const eqi_view *labels)
{
    const int64_t n = eqi_cuda_rows(x);
    void *losses = nullptr;
    EQI_CUDA_TRY(
        eqi_cuda_scratch(ctx, EQI_CUDA_SUMS, static_cast<size_t>(n) * sizeof(double), &losses));
    EQI_CUDA_TRY(eqi_launch(ctx, "kl_divergence", kl_divergence_kernel, eqi_grid(n, 1), EQI_BLOCK,
                            sizeof(row_memory), static_cast<double *>(losses), *lse, *x, *target,
                            eqi_or_none(labels)));
    return eqi_cuda_loss_stats(ctx, stats, static_cast<const double *>(losses), n, labels,
                               ANY_LABEL);
}

/* A block for each row: dx (+)= factor (softmax(x) - softmax(target)), 0 where masked */
__global__ void __launch_bounds__(EQI_BLOCK)
    kl_divergence_bwd_kernel(eqi_view dx, eqi_view factor, eqi_view lse, eqi_view x,
                             eqi_view target, eqi_view labels, bool acc)
{
    for (int64_t r = blockIdx.x; r < rows(x); r += gridDim.x) {
        const float *of_q = row_of(x, r), *of_p = row_of(target, r);
        bool used = counts(labels, r, ANY_LABEL);
        float lse_p = get(lse, at4(lse, 0, 0, r, 0)), lse_q = get(lse, at4(lse, 0, 0, r, 1)),
              f = get(factor, 0);
        for (int64_t v = threadIdx.x; v < width(x); v += blockDim.x) {
            float d = used ? f * (expf(of_q[v] - lse_q) - expf(of_p[v] - lse_p)) : 0.0f;
            add(dx, at4(dx, 0, 0, r, v), d, acc);
        }
    }
}

eqat_status eqi_cuda_kl_divergence_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *factor,
                                       const eqi_view *lse, const eqi_view *x,
                                       const eqi_view *target, const eqi_view *labels, bool acc)
{
    return eqi_launch(ctx, "kl_divergence_bwd", kl_divergence_bwd_kernel,
                      eqi_grid(eqi_cuda_rows(x), 1), EQI_BLOCK, 0, *dx, *factor, *lse, *x, *target,
                      eqi_or_none(labels), acc);
}
