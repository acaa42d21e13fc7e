/* What the losses over a vocabulary share: the softmax of a row by a block, and the sum of the
 * losses of rows. */
#ifndef EQI_CUDA_LOSS_CUH
#define EQI_CUDA_LOSS_CUH

#include <cmath>

#include "load.cuh"
#include "reduce.cuh"

struct row_memory {
    double sum[EQI_WARP];
    float most[EQI_WARP];
};

/* softmax(x)[v] = exp(x[v] - most) / sum. The difference to the largest is exact where the share is
 * large, so that f32 is enough for it; the sum is not. */
struct softmax {
    double sum;
    float most;
};

__device__ __forceinline__ softmax block_softmax(const float *x, int64_t n, row_memory *m)
{
    softmax s = {0.0, -INFINITY};
    for (int64_t v = threadIdx.x; v < n; v += blockDim.x) s.most = larger(s.most, x[v]);
    s.most = block_max(s.most, m->most);
    for (int64_t v = threadIdx.x; v < n; v += blockDim.x)
        s.sum += static_cast<double>(expf(x[v] - s.most));
    s.sum = block_sum(s.sum, m->sum);
    return s;
}

/* ln sum exp */
__device__ __forceinline__ double log_sum_exp(const softmax &s)
{
    return static_cast<double>(s.most) + log(s.sum);
}

/* sum_v p (ln p - ln q), p of the row `target`, q of the row x */
__device__ __forceinline__ double block_divergence(const float *x, const float *target, int64_t n,
                                                   const softmax &q, const softmax &p,
                                                   row_memory *m)
{
    float share = static_cast<float>(1.0 / p.sum),
          shift = static_cast<float>(log(p.sum) - log(q.sum));
    double sum = 0.0;
    for (int64_t v = threadIdx.x; v < n; v += blockDim.x) {
        float of_p = target[v] - p.most, of_q = x[v] - q.most;
        sum += static_cast<double>(expf(of_p) * share * (of_p - of_q - shift));
    }
    return block_sum(sum, m->sum);
}

/* Of kl_divergence.cu: stats[2] = the sum of losses[n_rows] in a fixed order; the number of rows
 * whose label is in [0, limit), all of them without labels. */
eqat_status eqi_cuda_loss_stats(eqi_ctx *ctx, const eqi_view *stats, const double *losses,
                                int64_t n_rows, const eqi_view *labels, int64_t limit);

#endif
