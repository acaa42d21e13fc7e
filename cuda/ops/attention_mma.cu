/* attention on tensor cores, BF16: like attention.cu, with tiles of 64 queries and 64 keys, or 32
 * of both for heads of 256; after FlashAttention-2 (Dao, 2023). Scores count in units of log2, so
 * that a weight is one exp2. While a tile of keys is multiplied the values come, while values are,
 * the next keys. Bytes: needed are q, k, v, o once, 2 each element, and lse, 4 a row. Moved: q, o
 * and lse once; k and v once for each tile of queries that sees them (half of Tq / 64 times when
 * causal). FLOPs 4 D for each query and key that a tile has in common. */
#include "attention_mma.cuh"

template <int D> constexpr int KEYS = MMA_TILE<D>; /* of a tile */

template <int D> struct forward_memory : mma_halves<D, KEYS<D>, 1> {
    mma_tile<D, KEYS<D>> k, v; /* queries come to v first */
};

/* Of a row so far. The sum is of exp2(score - top), of this lane's columns alone. */
struct running {
    float top, sum;
};

static __device__ __forceinline__ float row_max(float v)
{
    v = larger(v, __shfl_xor_sync(EQI_FULL, v, 1));
    return larger(v, __shfl_xor_sync(EQI_FULL, v, 2));
}

static __device__ __forceinline__ float row_sum(float v)
{
    v += __shfl_xor_sync(EQI_FULL, v, 1);
    return v + __shfl_xor_sync(EQI_FULL, v, 2);
}

/* Products become scores in units of log2, -infinity where the query does not see the key. */
template <int D, bool CAPPED, int N>
static __device__ __forceinline__ void to_scores(float (&score)[N][4], const mma_inputs &in,
                                                 const att_item &at, int64_t key, bool hidden)
{
    EQI_UNROLL
    for (int n = 0; n < N; n++) EQI_UNROLL
    for (int i = 0; i < 4; i++)
        score[n][i] = in.outer * (CAPPED ? tanhf(in.inner * score[n][i]) : score[n][i]);
    if (!hidden) return;
    EQI_UNROLL
    for (int r = 0; r < 2; r++) {
        uint32_t seen = mma_seen<N, true>(in, at.b, at.row + mma_lane_row<D>() + 8 * r,
                                          key + mma_lane_column());
        EQI_UNROLL
        for (int n = 0; n < N; n++) EQI_UNROLL
        for (int i = 0; i < 2; i++)
            if (!(seen >> (2 * n + i) & 1)) score[n][2 * r + i] = -INFINITY;
    }
}

/* Takes the scores of row r into account and makes weights of them; returns the factor of what was
 * summed up before. */
template <int N>
static __device__ __forceinline__ float advance(running &row, float (&score)[N][4], int r)
{
    float top = score[0][2 * r];
    EQI_UNROLL
    for (int n = 0; n < N; n++) top = larger(larger(top, score[n][2 * r]), score[n][2 * r + 1]);
    top = larger(row.top, row_max(top));
    /* Nothing seen so far: any finite number does. */
    float base = top == -INFINITY ? 0.0f : top, factor = exp2f(row.top - base);
    row.top = top;
    row.sum *= factor;
    EQI_UNROLL
    for (int n = 0; n < N; n++) EQI_UNROLL
    for (int i = 0; i < 2; i++) {
        score[n][2 * r + i] = exp2f(score[n][2 * r + i] - base);
        row.sum += score[n][2 * r + i];
    }
    return factor;
}

/* A row that saw no key is 0, its lse ln 0. */
template <int D>
static __device__ __forceinline__ void finish(const eqi_view &o, const eqi_view &lse,
                                              const att_item &at,
                                              const float (&sum)[MMA_COLUMNS<D> / 8][4],
                                              const running (&row)[2])
{
    EQI_UNROLL
    for (int r = 0; r < 2; r++) {
        float total = row_sum(row[r].sum);
        int64_t i = at.row + mma_lane_row<D>() + 8 * r;
        mma_store<D>(o, at, r, sum, row[r].top == -INFINITY ? 0.0f : 1.0f / total);
        if (mma_column<D>() == 0 && mma_lane() % 4 == 0 && i < o.shape[1])
            put(lse, at4(lse, 0, at.b, at.h, i), row[r].top * MMA_LN2 + logf(total));
    }
}

/* Of a block of queries, in registers. */
template <int D> struct forward {
    uint32_t own[MMA_COLUMNS<D> / 16][4];
    float sum[MMA_COLUMNS<D> / 8][4];
    running row[2];
};

/* Queries go into registers, the first keys begin to come. */
template <int D>
static __device__ __forceinline__ void begin(forward<D> &f, forward_memory<D> &m,
                                             async_copies &copies, const mma_inputs &in,
                                             const mma_job &job)
{
    mma_clear(f.sum);
    f.row[0] = f.row[1] = {-INFINITY, 0.0f};
    mma_copy(copies, m.v, att_tile{in.q, job.at.b, job.at.h, job.at.row});
    end_group(copies);
    if (job.range.first < job.range.last)
        mma_copy(copies, m.k, mma_keys(in.k, job, job.range.first));
    end_group(copies);
    wait_groups<1>(copies);
    __syncthreads();
    mma_own(f.own, m.v);
    __syncthreads();
}

/* A tile of keys from j on. */
template <bool CAPPED, int D>
static __device__ __forceinline__ void add_keys(forward<D> &f, forward_memory<D> &m,
                                                async_copies &copies, const mma_inputs &in,
                                                const mma_job &job, int64_t j)
{
    float score[KEYS<D> / 8][4];
    mma_copy(copies, m.v, mma_keys(in.v, job, j));
    end_group(copies);
    wait_groups<1>(copies);
    __syncthreads();
    mma_product(score, f.own, m.k);
    m.put(0, score);
    __syncthreads();
    m.add(0, score);
    if (j + KEYS<D> < job.range.last) mma_copy(copies, m.k, mma_keys(in.k, job, j + KEYS<D>));
    end_group(copies);
    bool hidden = !mma_all_seen(in, job.at.row, MMA_TILE<D>, j, KEYS<D>);
    to_scores<D, CAPPED>(score, in, job.at, j, hidden);
    EQI_UNROLL
    for (int r = 0; r < 2; r++) {
        float factor = advance(f.row[r], score, r);
        EQI_UNROLL
        for (int n = 0; n < MMA_COLUMNS<D> / 8; n++) {
            f.sum[n][2 * r] *= factor;
            f.sum[n][2 * r + 1] *= factor;
        }
    }
    wait_groups<1>(copies);
    bool apart = mma_meet(hidden, m.v);
    mma_gather(f.sum, score, m.v, apart);
    __syncthreads();
}

template <int D, bool CAPPED>
__global__ void __launch_bounds__(MMA_THREADS, 2)
    attention_mma_kernel(eqi_view o, eqi_view lse, mma_inputs in)
{
    auto &m = *block_memory<forward_memory<D>>();
    async_copies copies;
    for (int64_t item = blockIdx.x; item < att_items<D, MMA_TILE<D>>(in.q); item += gridDim.x) {
        mma_job job = mma_job_of_queries<D>(in, item);
        forward<D> f;
        begin(f, m, copies, in, job);
        for (int64_t j = job.range.first; j < job.range.last; j += KEYS<D>)
            add_keys<CAPPED>(f, m, copies, in, job, j);
        finish<D>(o, lse, job.at, f.sum, f.row);
    }
}

template <int D, bool CAPPED>
static eqat_status launch(eqi_ctx *ctx, const eqi_view *o, const eqi_view *lse,
                          const mma_inputs &in)
{
    return eqi_launch(ctx, "attention, mma", attention_mma_kernel<D, CAPPED>,
                      eqi_grid(att_items<D, MMA_TILE<D>>(in.q), 1), MMA_THREADS,
                      sizeof(forward_memory<D>), *o, *lse, in);
}

#define KERNELS(SIZE) {SIZE, {launch<SIZE, false>, launch<SIZE, true>}},
typedef eqat_status launch_fn(eqi_ctx *ctx, const eqi_view *o, const eqi_view *lse,
                              const mma_inputs &in);
static const mma_kernels<launch_fn> kernels[] = {MMA_SIZES(KERNELS)};

/* Do rows begin at multiples of 16 bytes? */
static bool is_aligned(const eqi_view *v)
{
    return v->stride[3] == 1 && v->stride[0] % 8 == 0 && v->stride[1] % 8 == 0 &&
        v->stride[2] % 8 == 0 && reinterpret_cast<uintptr_t>(v->data) % 16 == 0;
}

bool eqi_cuda_attention_fits(eqi_ctx *ctx, const eqi_view *const *views, int count)
{
    bool fits = eqi_mma_runs(eqi_cuda_of(ctx)->capability) &&
        mma_launch_of(kernels, views[0]->shape[3], 0.0f);
    for (int i = 0; i < count; i++)
        fits = fits && views[i]->dtype == EQI_BF16 && is_aligned(views[i]);
    return fits;
}

eqat_status eqi_cuda_attention_mma(eqi_ctx *ctx, const eqi_view *o, const eqi_view *lse,
                                   const eqi_view *q, const eqi_view *k, const eqi_view *v,
                                   const eqi_view *segments, const eqi_attention_desc *d)
{
    launch_fn *launch = mma_launch_of(kernels, q->shape[3], d->softcap);
    return launch(ctx, o, lse, mma_inputs_of(q, k, v, segments, d));
}
