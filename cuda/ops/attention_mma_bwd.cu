/* attention_bwd on tensor cores, BF16: the three kernels of attention_bwd.cu, with tiles of 64 rows
 * for a block and of 32 rows streamed past it (heads of 256: 32 and 16), the next one on its way
 * while one is multiplied.
 * Each kernel computes p and g anew, so that nothing is added up between blocks.
 * Bytes: needed are q, k, v, o, do, dq, dk, dv once, 2 each element, and lse, 4 a row. Moved: do, o
 * and lse once for delta, 8 a row out; q, do, dq once and k, v for each tile of 64 queries that
 * sees them; k, v, dk, dv once and q, do, 8 a row more, for each tile of 64 keys that they see.
 * FLOPs 14 D for each query and key that a tile has in common: 6 D for dq, 8 D for dk and dv. */
#include "attention_mma.cuh"

template <int D> constexpr int STREAM = MMA_TILE<D> / 2; /* rows of a tile that is streamed */

/* What the gradients ask about a row of the forward pass; p = exp2(score - lse) of scores in units
 * of log2. Rows beyond the tensors and rows that saw nothing have lse infinity: p is 0. */
struct passed {
    float lse, delta;
};

/* Rows of one head, and what is added to make each begin at a multiple of 16 bytes. */
static __host__ __device__ __forceinline__ int64_t padded(int64_t queries)
{
    return (queries + STREAM<64> - 1) / STREAM<64> * STREAM<64>;
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
template <bool CAPPED>
static __device__ __forceinline__ void to_weights(float &dot, float &g, const passed &row,
                                                  const mma_inputs &in, bool seen)
{
    float inside = CAPPED ? tanhf(in.inner * dot) : dot;
    float slope = CAPPED ? in.d.scale * (1.0f - inside * inside) : in.d.scale;
    float p = seen ? exp2f(inside * in.outer - row.lse) : 0.0f;
    g = p == 0.0f ? 0.0f : p * (g - row.delta) * slope;
    dot = p;
}

/* The block's rows at first, then two tiles in turn. */
template <int D> union stream_memory {
    mma_tile<D, MMA_TILE<D>> whole;
    mma_tile<D, STREAM<D>> part[2];
};

template <int D> struct dq_memory : mma_halves<D, STREAM<D>, 2> {
    stream_memory<D> k, v; /* q and do at first */
};

template <int D>
static __device__ __forceinline__ void copy_keys(async_copies &copies, dq_memory<D> &m, int stage,
                                                 const mma_inputs &in, const mma_job &job,
                                                 int64_t j)
{
    mma_copy(copies, m.k.part[stage], mma_keys(in.k, job, j));
    mma_copy(copies, m.v.part[stage], mma_keys(in.v, job, j));
}

/* Products dot and g of all columns. */
template <int D>
static __device__ __forceinline__ void add_halves(mma_halves<D, STREAM<D>, 2> &halves,
                                                  float (&dot)[STREAM<D> / 8][4],
                                                  float (&g)[STREAM<D> / 8][4])
{
    if (MMA_HALVES<D> == 1) return;
    halves.put(0, dot);
    halves.put(1, g);
    __syncthreads();
    halves.add(0, dot);
    halves.add(1, g);
}

/* Of a block of queries, in registers. */
template <int D> struct dq_state {
    uint32_t q[MMA_COLUMNS<D> / 16][4], d_o[MMA_COLUMNS<D> / 16][4];
    float sum[MMA_COLUMNS<D> / 8][4];
    passed row[2];
    bool dead; /* one of the block's queries saw nothing */
};

/* Queries go into registers, the first keys begin to come. */
template <int D>
static __device__ __forceinline__ void begin_dq(dq_state<D> &s, dq_memory<D> &m,
                                                async_copies &copies, const mma_inputs &in,
                                                const eqi_view &d_o, const passed *rows,
                                                const mma_job &job)
{
    const att_item &at = job.at;
    mma_clear(s.sum);
    mma_copy(copies, m.k.whole, att_tile{in.q, at.b, at.h, at.row});
    mma_copy(copies, m.v.whole, att_tile{d_o, at.b, at.h, at.row});
    end_group(copies);
    bool dead = false;
    EQI_UNROLL
    for (int r = 0; r < 2; r++) {
        int64_t i = at.row + mma_lane_row<D>() + 8 * r, queries = in.q.shape[1];
        s.row[r] = {INFINITY, 0.0f};
        if (i < queries) s.row[r] = rows[(at.b * in.q.shape[2] + at.h) * padded(queries) + i];
        dead = dead || (i < queries && s.row[r].lse == INFINITY);
    }
    wait_groups<0>(copies);
    s.dead = __syncthreads_or(dead);
    mma_own(s.q, m.k.whole);
    mma_own(s.d_o, m.v.whole);
    __syncthreads();
    if (job.range.first < job.range.last) copy_keys(copies, m, 0, in, job, job.range.first);
    end_group(copies);
}

/* The tile of keys from j on, which lies in `stage`. */
template <bool CAPPED, int D>
static __device__ __forceinline__ void add_keys(dq_state<D> &s, dq_memory<D> &m, int stage,
                                                const mma_inputs &in, const att_item &at, int64_t j)
{
    bool all = mma_all_seen(in, at.row, MMA_TILE<D>, j, STREAM<D>);
    bool apart = mma_meet(s.dead || !all, m.k.part[stage]);
    constexpr int N = STREAM<D> / 8;
    float dot[N][4], g[N][4];
    mma_product(dot, s.q, m.k.part[stage]);
    mma_product(g, s.d_o, m.v.part[stage]);
    add_halves(m, dot, g);
    EQI_UNROLL
    for (int r = 0; r < 2; r++) {
        uint32_t seen = ~0u;
        if (!all)
            seen = mma_seen<N, true>(in, at.b, at.row + mma_lane_row<D>() + 8 * r,
                                     j + mma_lane_column());
        EQI_UNROLL
        for (int n = 0; n < N; n++) EQI_UNROLL
        for (int i = 0; i < 2; i++)
            to_weights<CAPPED>(dot[n][2 * r + i], g[n][2 * r + i], s.row[r], in,
                               seen >> (2 * n + i) & 1);
    }
    mma_gather(s.sum, g, m.k.part[stage], apart);
}

template <int D, bool CAPPED>
__global__ void __launch_bounds__(MMA_THREADS, 2)
    attention_mma_dq_kernel(eqi_view dq, eqi_view d_o, const passed *rows, mma_inputs in)
{
    auto &m = *block_memory<dq_memory<D>>();
    async_copies copies;
    for (int64_t item = blockIdx.x; item < att_items<D, MMA_TILE<D>>(in.q); item += gridDim.x) {
        mma_job job = mma_job_of_queries<D>(in, item);
        dq_state<D> s;
        begin_dq(s, m, copies, in, d_o, rows, job);
        int stage = 0;
        for (int64_t j = job.range.first; j < job.range.last; j += STREAM<D>) {
            if (j + STREAM<D> < job.range.last)
                copy_keys(copies, m, stage ^ 1, in, job, j + STREAM<D>);
            end_group(copies);
            wait_groups<1>(copies);
            add_keys<CAPPED>(s, m, stage, in, job.at, j);
            __syncthreads();
            stage ^= 1;
        }
        EQI_UNROLL
        for (int r = 0; r < 2; r++) mma_store<D>(dq, job.at, r, s.sum, 1.0f);
    }
}

template <int D> struct dkv_memory : mma_halves<D, STREAM<D>, 2> {
    mma_tile<D, MMA_TILE<D>> k, v;
    mma_tile<D, STREAM<D>> q[2], d_o[2];
    __align__(16) passed row[2][STREAM<D>];
};

/* A tile of queries of a head. */
struct query_tile {
    int h;
    int64_t row;
};

/* Begins to copy queries, what belongs to them, and what the forward pass left of them. */
template <int D>
static __device__ __forceinline__ void copy_queries(async_copies &copies, dkv_memory<D> &m,
                                                    int stage, const mma_inputs &in,
                                                    const eqi_view &d_o, const passed *rows,
                                                    int64_t b, const query_tile &of)
{
    mma_copy(copies, m.q[stage], att_tile{in.q, b, of.h, of.row});
    mma_copy(copies, m.d_o[stage], att_tile{d_o, b, of.h, of.row});
    int t = static_cast<int>(threadIdx.x) * 2; /* two rows are 16 bytes */
    const passed *from = rows + (b * in.q.shape[2] + of.h) * padded(in.q.shape[1]) + of.row + t;
    if (t < STREAM<D>) copy_async(copies, shared_at(&m.row[stage][t]), from, true);
}

/* Of a block of keys, in registers. */
template <int D> struct dkv_state {
    float k[MMA_COLUMNS<D> / 8][4], v[MMA_COLUMNS<D> / 8][4];
};

/* Has one of two rows, of `left` that there are, seen nothing? */
static __device__ __forceinline__ bool is_dead(const passed *row, int64_t left)
{
    return (left > 0 && row[0].lse == INFINITY) || (left > 1 && row[1].lse == INFINITY);
}

/* The tile of queries from i on, which lies in `stage`. */
template <bool CAPPED, int D>
static __device__ __forceinline__ void add_queries(dkv_state<D> &s, dkv_memory<D> &m, int stage,
                                                   const mma_inputs &in, const att_item &at,
                                                   int64_t i)
{
    bool all = mma_all_seen(in, i, STREAM<D>, at.row, MMA_TILE<D>);
    int t = static_cast<int>(threadIdx.x);
    bool dead = t < STREAM<D> / 2 && is_dead(m.row[stage] + 2 * t, in.q.shape[1] - i - 2 * t);
    bool odd = !all && (mma_odd(m.q[stage]) || mma_odd(m.d_o[stage]));
    bool apart = __syncthreads_or(dead || odd);
    constexpr int N = STREAM<D> / 8;
    float dot[N][4], g[N][4];
    mma_product_shared(dot, m.k, m.q[stage]);
    mma_product_shared(g, m.v, m.d_o[stage]);
    add_halves(m, dot, g);
    uint32_t seen[2] = {~0u, ~0u};
    EQI_UNROLL
    for (int r = 0; r < 2; r++)
        if (!all)
            seen[r] = mma_seen<N, false>(in, at.b, at.row + mma_lane_row<D>() + 8 * r,
                                         i + mma_lane_column());
    EQI_UNROLL
    for (int n = 0; n < N; n++) EQI_UNROLL
    for (int c = 0; c < 2; c++) {
        passed row = m.row[stage][8 * n + mma_lane_column() + c];
        EQI_UNROLL
        for (int r = 0; r < 2; r++)
            to_weights<CAPPED>(dot[n][2 * r + c], g[n][2 * r + c], row, in,
                               seen[r] >> (2 * n + c) & 1);
    }
    mma_gather(s.v, dot, m.d_o[stage], apart);
    mma_gather(s.k, g, m.q[stage], apart);
}

template <int D, bool CAPPED>
__global__ void __launch_bounds__(MMA_THREADS, 2)
    attention_mma_dkv_kernel(eqi_view dk, eqi_view dv, eqi_view d_o, const passed *rows,
                             mma_inputs in)
{
    auto &m = *block_memory<dkv_memory<D>>();
    async_copies copies;
    int per = static_cast<int>(in.q.shape[2] / in.k.shape[2]);
    for (int64_t item = blockIdx.x; item < att_items<D, MMA_TILE<D>>(in.k); item += gridDim.x) {
        mma_job job = mma_job_of_keys<D>(in, item);
        const att_item &at = job.at;
        int64_t first = job.range.first / STREAM<D> * STREAM<D>, last = job.range.last;
        query_tile now = {static_cast<int>(at.h) * per, first};
        int end = job.range.first < last ? now.h + per : now.h;
        dkv_state<D> s;
        mma_clear(s.k);
        mma_clear(s.v);
        mma_copy(copies, m.k, att_tile{in.k, at.b, at.h, at.row});
        mma_copy(copies, m.v, att_tile{in.v, at.b, at.h, at.row});
        if (now.h < end) copy_queries(copies, m, 0, in, d_o, rows, at.b, now);
        end_group(copies);
        for (int stage = 0; now.h < end; stage ^= 1) {
            query_tile next = {now.h, now.row + STREAM<D>};
            if (next.row >= last) next = {now.h + 1, first};
            if (next.h < end) copy_queries(copies, m, stage ^ 1, in, d_o, rows, at.b, next);
            end_group(copies);
            wait_groups<1>(copies);
            add_queries<CAPPED>(s, m, stage, in, at, now.row);
            __syncthreads();
            now = next;
        }
        wait_groups<0>(copies);
        __syncthreads(); /* keys that no query sees were not waited for */
        EQI_UNROLL
        for (int r = 0; r < 2; r++) {
            mma_store<D>(dk, at, r, s.k, 1.0f);
            mma_store<D>(dv, at, r, s.v, 1.0f);
        }
    }
}

/* What the three kernels write, and d_o. */
struct gradients {
    eqi_view dq, dk, dv, d_o;
};

template <int D, bool CAPPED>
static eqat_status launch(eqi_ctx *ctx, const gradients &g, const passed *rows,
                          const mma_inputs &in)
{
    EQI_CUDA_TRY(eqi_launch(ctx, "attention_bwd, dq, mma", attention_mma_dq_kernel<D, CAPPED>,
                            eqi_grid(att_items<D, MMA_TILE<D>>(in.q), 1), MMA_THREADS,
                            sizeof(dq_memory<D>), g.dq, g.d_o, rows, in));
    return eqi_launch(ctx, "attention_bwd, dk and dv, mma", attention_mma_dkv_kernel<D, CAPPED>,
                      eqi_grid(att_items<D, MMA_TILE<D>>(in.k), 1), MMA_THREADS,
                      sizeof(dkv_memory<D>), g.dk, g.dv, g.d_o, rows, in);
}

#define KERNELS(SIZE) {SIZE, {launch<SIZE, false>, launch<SIZE, true>}},
typedef eqat_status launch_fn(eqi_ctx *ctx, const gradients &g, const passed *rows,
                              const mma_inputs &in);
static const mma_kernels<launch_fn> kernels[] = {MMA_SIZES(KERNELS)};

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
    launch_fn *launch = mma_launch_of(kernels, q->shape[3], d->softcap);
    return launch(ctx, {*dq, *dk, *dv, *d_o}, rows, mma_inputs_of(q, k, v, segments, d));
}
