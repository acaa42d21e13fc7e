/* attention_bwd on tensor cores, BF16: the three kernels of attention_bwd.cu, with tiles of 64 rows
 * for a block and of 32 rows streamed past it, the next one on its way while one is multiplied.
 * Each kernel computes p and g anew, so that nothing is added up between blocks.
 * Bytes: needed are q, k, v, o, do, dq, dk, dv once, 2 each element, and lse, 4 a row. Moved: do, o
 * and lse once for delta, 8 a row out; q, do, dq once and k, v for each tile of 64 queries that
 * sees them; k, v, dk, dv once and q, do, 8 a row more, for each tile of 64 keys that they see.
 * FLOPs 14 D for each query and key that a tile has in common: 6 D for dq, 8 D for dk and dv. */
#include "attention_mma.cuh"

constexpr int STREAM = 32; /* rows of a tile that is streamed */
constexpr int STREAM_N = STREAM / 8;

/* What the gradients ask about a row of the forward pass; p = exp2(score - lse) of scores in units
 * of log2. Rows beyond the tensors and rows that saw nothing have lse infinity: p is 0. */
struct passed {
    float lse, delta;
};

/* Rows of one head, and what is added to make each begin at a multiple of 16 bytes. */
static __host__ __device__ __forceinline__ int64_t padded(int64_t queries)
{
    return (queries + STREAM - 1) / STREAM * STREAM;
}

/* rows [B, HQ, padded Tq]; a warp for each */
__global__ void __launch_bounds__(EQI_BLOCK)
    attention_rows_kernel(passed *rows, eqi_view d_o, eqi_view o, eqi_view lse)
{
    int64_t queries = o.shape[1], heads = o.shape[2], all = padded(queries),
            count = o.shape[0] * heads * all;
    int lane = mma_lane();
    for (int64_t row = grid_first() / EQI_WARP; row < count; row += grid_step() / EQI_WARP) {
        int64_t b = row / all / heads, h = row / all % heads, i = row % all;
        bool present = i < queries;
        float sum = 0.0f;
        for (int64_t c = lane; present && c < o.shape[3]; c += EQI_WARP)
            sum = fmaf(get(d_o, at4(d_o, b, i, h, c)), get(o, at4(o, b, i, h, c)), sum);
        sum = warp_sum(sum);
        float of_row = present ? get(lse, at4(lse, 0, b, h, i)) : -INFINITY;
        if (lane == 0) rows[row] = {of_row == -INFINITY ? INFINITY : of_row * MMA_LOG2E, sum};
    }
}

/* Products dot and g become probability and gradient of dot. */
static __device__ __forceinline__ void to_weights(float &dot, float &g, const passed &row,
                                                  float scale, bool seen)
{
    float p = seen ? exp2f(dot * (scale * MMA_LOG2E) - row.lse) : 0.0f;
    g = p == 0.0f ? 0.0f : p * (g - row.delta) * scale;
    dot = p;
}

/* 64 rows at first, then two tiles in turn. */
template <int D> union stream_memory {
    mma_tile<D, MMA_TILE> whole;
    mma_tile<D, STREAM> part[2];
};

template <int D> struct dq_memory {
    stream_memory<D> k, v; /* q and do at first */
};

template <int D>
static __device__ __forceinline__ void copy_keys(async_copies &copies, dq_memory<D> &m, int stage,
                                                 const eqi_view &k, const eqi_view &v, int64_t b,
                                                 int64_t h, int64_t j)
{
    mma_copy(copies, m.k.part[stage], att_tile{k, b, h, j});
    mma_copy(copies, m.v.part[stage], att_tile{v, b, h, j});
}

template <int D>
__global__ void __launch_bounds__(MMA_THREADS, 2)
    attention_mma_dq_kernel(eqi_view dq, eqi_view d_o, const passed *rows, eqi_view q, eqi_view k,
                            eqi_view v, eqi_view segments, eqi_attention_desc d)
{
    auto &m = *block_memory<dq_memory<D>>();
    async_copies copies;
    int64_t queries = q.shape[1], keys = k.shape[1], per = q.shape[2] / k.shape[2];
    for (int64_t item = blockIdx.x; item < att_items<D, MMA_TILE>(q); item += gridDim.x) {
        att_item at = att_item_of<D, MMA_TILE>(q, item, true);
        att_range range = att_keys<MMA_TILE>(d, at.row, queries, keys);
        uint32_t own_q[D / 16][4], own_do[D / 16][4];
        float sum[D / 8][4];
        passed row[2];
        mma_clear(sum);
        mma_copy(copies, m.k.whole, att_tile{q, at.b, at.h, at.row});
        mma_copy(copies, m.v.whole, att_tile{d_o, at.b, at.h, at.row});
        end_group(copies);
        EQI_UNROLL
        for (int r = 0; r < 2; r++) {
            int64_t i = at.row + mma_lane_row() + 8 * r;
            row[r] = {INFINITY, 0.0f};
            if (i < queries) row[r] = rows[(at.b * q.shape[2] + at.h) * padded(queries) + i];
        }
        wait_groups<0>(copies);
        __syncthreads();
        mma_own(own_q, m.k.whole);
        mma_own(own_do, m.v.whole);
        __syncthreads();
        int stage = 0;
        if (range.first < range.last)
            copy_keys(copies, m, stage, k, v, at.b, at.h / per, range.first);
        end_group(copies);
        for (int64_t j = range.first; j < range.last; j += STREAM) {
            if (j + STREAM < range.last)
                copy_keys(copies, m, stage ^ 1, k, v, at.b, at.h / per, j + STREAM);
            end_group(copies);
            wait_groups<1>(copies);
            __syncthreads();
            float dot[STREAM_N][4], g[STREAM_N][4];
            mma_product(dot, own_q, m.k.part[stage]);
            mma_product(g, own_do, m.v.part[stage]);
            bool all =
                mma_all_seen(segments, d, at.row + mma_row(), MMA_ROWS, queries, j, STREAM, keys);
            EQI_UNROLL
            for (int r = 0; r < 2; r++) {
                uint32_t seen = ~0u;
                if (!all)
                    seen =
                        mma_seen<STREAM_N, true>(segments, d, at.b, at.row + mma_lane_row() + 8 * r,
                                                 j + mma_lane_column(), queries, keys);
                EQI_UNROLL
                for (int n = 0; n < STREAM_N; n++) EQI_UNROLL
                for (int i = 0; i < 2; i++)
                    to_weights(dot[n][2 * r + i], g[n][2 * r + i], row[r], d.scale,
                               seen >> (2 * n + i) & 1);
            }
            mma_gather(sum, g, m.k.part[stage]);
            __syncthreads();
            stage ^= 1;
        }
        EQI_UNROLL
        for (int r = 0; r < 2; r++) mma_store<D>(dq, at, r, sum, 1.0f);
    }
}

template <int D> struct dkv_memory {
    mma_tile<D, MMA_TILE> k, v;
    mma_tile<D, STREAM> q[2], d_o[2];
    __align__(16) passed row[2][STREAM];
};

/* Begins to copy queries, what belongs to them, and what the forward pass left of them. */
template <int D>
static __device__ __forceinline__ void copy_queries(async_copies &copies, dkv_memory<D> &m,
                                                    int stage, const eqi_view &q,
                                                    const eqi_view &d_o, const passed *rows,
                                                    int64_t b, int64_t h, int64_t i)
{
    mma_copy(copies, m.q[stage], att_tile{q, b, h, i});
    mma_copy(copies, m.d_o[stage], att_tile{d_o, b, h, i});
    int t = static_cast<int>(threadIdx.x) * 2; /* two rows are 16 bytes */
    const passed *from = rows + (b * q.shape[2] + h) * padded(q.shape[1]) + i + t;
    if (t < STREAM) copy_async(copies, shared_at(&m.row[stage][t]), from, true);
}

template <int D>
__global__ void __launch_bounds__(MMA_THREADS, 2)
    attention_mma_dkv_kernel(eqi_view dk, eqi_view dv, eqi_view d_o, const passed *rows, eqi_view q,
                             eqi_view k, eqi_view v, eqi_view segments, eqi_attention_desc d)
{
    auto &m = *block_memory<dkv_memory<D>>();
    async_copies copies;
    int64_t queries = q.shape[1], keys = k.shape[1], per = q.shape[2] / k.shape[2];
    for (int64_t item = blockIdx.x; item < att_items<D, MMA_TILE>(k); item += gridDim.x) {
        att_item at = att_item_of<D, MMA_TILE>(k, item, false);
        att_range range = att_queries<MMA_TILE>(d, at.row, queries, keys);
        float sum_k[D / 8][4], sum_v[D / 8][4];
        mma_clear(sum_k);
        mma_clear(sum_v);
        range.first = range.first / STREAM * STREAM;
        mma_copy(copies, m.k, att_tile{k, at.b, at.h, at.row});
        mma_copy(copies, m.v, att_tile{v, at.b, at.h, at.row});
        int stage = 0;
        int64_t h = at.h * per, end = h + per, i = range.first;
        if (range.first >= range.last) h = end;
        if (h < end) copy_queries(copies, m, 0, q, d_o, rows, at.b, h, i);
        end_group(copies);
        while (h < end) {
            int64_t next_h = h, next = i + STREAM;
            if (next >= range.last) {
                next_h++;
                next = range.first;
            }
            if (next_h < end) copy_queries(copies, m, stage ^ 1, q, d_o, rows, at.b, next_h, next);
            end_group(copies);
            wait_groups<1>(copies);
            __syncthreads();
            float dot[STREAM_N][4], g[STREAM_N][4];
            mma_product_shared(dot, m.k, m.q[stage]);
            mma_product_shared(g, m.v, m.d_o[stage]);
            bool all =
                mma_all_seen(segments, d, i, STREAM, queries, at.row + mma_row(), MMA_ROWS, keys);
            uint32_t seen[2] = {~0u, ~0u};
            EQI_UNROLL
            for (int r = 0; r < 2; r++)
                if (!all)
                    seen[r] = mma_seen<STREAM_N, false>(segments, d, at.b,
                                                        at.row + mma_lane_row() + 8 * r,
                                                        i + mma_lane_column(), queries, keys);
            EQI_UNROLL
            for (int n = 0; n < STREAM_N; n++) EQI_UNROLL
            for (int c = 0; c < 2; c++) {
                passed row = m.row[stage][8 * n + mma_lane_column() + c];
                EQI_UNROLL
                for (int r = 0; r < 2; r++)
                    to_weights(dot[n][2 * r + c], g[n][2 * r + c], row, d.scale,
                               seen[r] >> (2 * n + c) & 1);
            }
            mma_gather(sum_v, dot, m.d_o[stage]);
            mma_gather(sum_k, g, m.q[stage]);
            __syncthreads();
            h = next_h;
            i = next;
            stage ^= 1;
        }
        wait_groups<0>(copies);
        __syncthreads(); /* keys that no query sees were not waited for */
        EQI_UNROLL
        for (int r = 0; r < 2; r++) {
            mma_store<D>(dk, at, r, sum_k, 1.0f);
            mma_store<D>(dv, at, r, sum_v, 1.0f);
        }
    }
}

template <int D>
static eqat_status launch(eqi_ctx *ctx, const eqi_view *dq, const eqi_view *dk, const eqi_view *dv,
                          const eqi_view *d_o, const passed *rows, const eqi_view *q,
                          const eqi_view *k, const eqi_view *v, const eqi_view *segments,
                          const eqi_attention_desc *d)
{
    EQI_CUDA_TRY(eqi_launch(ctx, "attention_bwd, dq, mma", attention_mma_dq_kernel<D>,
                            eqi_grid(att_items<D, MMA_TILE>(*q), 1), MMA_THREADS,
                            sizeof(dq_memory<D>), *dq, *d_o, rows, *q, *k, *v,
                            eqi_or_none(segments), *d));
    return eqi_launch(ctx, "attention_bwd, dk and dv, mma", attention_mma_dkv_kernel<D>,
                      eqi_grid(att_items<D, MMA_TILE>(*k), 1), MMA_THREADS, sizeof(dkv_memory<D>),
                      *dk, *dv, *d_o, rows, *q, *k, *v, eqi_or_none(segments), *d);
}

eqat_status eqi_cuda_attention_mma_bwd(eqi_ctx *ctx, const eqi_view *dq, const eqi_view *dk,
                                       const eqi_view *dv, const eqi_view *d_o, const eqi_view *o,
                                       const eqi_view *lse, const eqi_view *q, const eqi_view *k,
                                       const eqi_view *v, const eqi_view *segments,
                                       const eqi_attention_desc *d)
{
    int64_t count = q->shape[0] * q->shape[2] * padded(q->shape[1]);
    void *scratch = nullptr;
    EQI_CUDA_TRY(
        eqi_cuda_scratch(ctx, EQI_CUDA_OP, static_cast<size_t>(count) * sizeof(passed), &scratch));
    passed *rows = static_cast<passed *>(scratch);
    EQI_CUDA_TRY(eqi_launch(ctx, "attention_bwd, rows", attention_rows_kernel,
                            eqi_grid(count, EQI_BLOCK / EQI_WARP), EQI_BLOCK, 0, rows, *d_o, *o,
                            *lse));
    switch (q->shape[3]) {
    case 64: return launch<64>(ctx, dq, dk, dv, d_o, rows, q, k, v, segments, d);
    case 80: return launch<80>(ctx, dq, dk, dv, d_o, rows, q, k, v, segments, d);
    case 96: return launch<96>(ctx, dq, dk, dv, d_o, rows, q, k, v, segments, d);
    default: return launch<128>(ctx, dq, dk, dv, d_o, rows, q, k, v, segments, d);
    }
}
