/* attention_bwd, with p = exp(score - lse), g = do v^T, delta = sum p g = sum do o:
 * dv = p^T do, dscore = p (g - delta) slope, dq = dscore k, dk = dscore^T q. Three kernels: delta
 * of each row; dq, a tile of queries for each block and the keys streamed past it; dk and dv, a
 * tile of keys for each block and the queries of all heads that share it streamed past it. Nothing
 * is added up between blocks. Bytes moved: do and o once for delta; q, do, dq once and k, v for
 * each tile of 32 queries that sees them; k, v, dk, dv once and q, do for each tile of 32 keys that
 * they see. */
#include "attention.cuh"

/* delta F32 [B, HQ, Tq]; a warp for each row */
__global__ void __launch_bounds__(EQI_BLOCK)
    attention_delta_kernel(float *delta, eqi_view d_o, eqi_view o)
{
    int64_t queries = o.shape[1], heads = o.shape[2], rows = o.shape[0] * heads * queries;
    int lane = static_cast<int>(threadIdx.x) % EQI_WARP;
    for (int64_t row = grid_first() / EQI_WARP; row < rows; row += grid_step() / EQI_WARP) {
        int64_t b = row / queries / heads, h = row / queries % heads, i = row % queries;
        float sum = 0.0f;
        for (int64_t c = lane; c < o.shape[3]; c += EQI_WARP)
            sum = fmaf(get(d_o, at4(d_o, b, i, h, c)), get(o, at4(o, b, i, h, c)), sum);
        sum = warp_sum(sum);
        if (lane == 0) delta[row] = sum;
    }
}

/* What the gradients ask about a row of the forward pass. */
struct passed {
    float lse, delta;
};

static __device__ __forceinline__ passed passed_of(const eqi_view &lse, const float *delta,
                                                   int64_t b, int64_t h, int64_t i)
{
    int64_t heads = lse.shape[2], queries = lse.shape[3];
    if (i >= queries) return {-INFINITY, 0.0f};
    return {get(lse, at4(lse, 0, b, h, i)), delta[(b * heads + h) * queries + i]};
}

/* Probability, and the gradient of the product q.k. */
struct weights {
    float p, ds;
};

/* A row with lse -infinity has only scores that are -infinity. */
static __device__ __forceinline__ weights weights_of(const eqi_attention_desc &d, const passed &row,
                                                     bool sees, float dot, float g)
{
    if (!sees || row.lse == -INFINITY) return {0.0f, 0.0f};
    att_score score = att_score_of(d, dot);
    float p = expf(score.value - row.lse);
    return {p, p == 0.0f ? 0.0f : p * (g - row.delta) * score.slope};
}

/* Does query i of its sequence see key j? Rows beyond the tensors do not. */
static __device__ __forceinline__ bool sees(const eqi_view &lse, const eqi_view &k,
                                            const eqi_view &segments, const eqi_attention_desc &d,
                                            int64_t b, int64_t i, int64_t j)
{
    return i < lse.shape[3] && j < k.shape[1] && att_sees(segments, d, b, d.q_offset + i, j);
}

template <int COLS>
__global__ void __launch_bounds__(ATT_THREADS, 2)
    attention_dq_kernel(eqi_view dq, eqi_view d_o, eqi_view lse, const float *delta, eqi_view q,
                        eqi_view k, eqi_view v, eqi_view segments, eqi_attention_desc d)
{
    auto &m = *block_memory<att_memory<COLS, 1>>();
    int64_t per = q.shape[2] / k.shape[2];
    for (int64_t item = blockIdx.x; item < att_items<COLS>(q); item += gridDim.x) {
        att_item at = att_item_of<COLS>(q, item, true);
        att_range range = att_keys(d, at.row, q.shape[1], k.shape[1]);
        float4 sum[ATT_ROWS][COLS / 32];
        passed row[ATT_ROWS];
        att_clear<COLS>(sum);
        EQI_UNROLL
        for (int r = 0; r < ATT_ROWS; r++)
            row[r] = passed_of(lse, delta, at.b, at.h, at.row + att_row() + r);
        for (int64_t j = range.first; j < range.last; j += ATT_TILE) {
            float dot[ATT_ROWS][ATT_DOTS], g[ATT_ROWS][ATT_DOTS];
            int64_t hk = at.h / per;
            att_product(dot, m, att_tile{q, at.b, at.h, at.row}, att_tile{k, at.b, hk, j});
            att_product(g, m, att_tile{d_o, at.b, at.h, at.row}, att_tile{v, at.b, hk, j});
            EQI_UNROLL
            for (int r = 0; r < ATT_ROWS; r++) EQI_UNROLL
            for (int n = 0; n < ATT_DOTS; n++) {
                bool seen = sees(lse, k, segments, d, at.b, at.row + att_row() + r,
                                 j + att_lane() + ATT_LANES * n);
                att_keep(m.weight[0], r, n, weights_of(d, row[r], seen, dot[r][n], g[r][n]).ds);
            }
            att_gather<COLS>(sum, m, m.weight[0], att_tile{k, at.b, hk, j}, at.column);
        }
        EQI_UNROLL
        for (int r = 0; r < ATT_ROWS; r++) att_store<COLS>(dq, at, r, sum);
    }
}

template <int COLS>
__global__ void __launch_bounds__(ATT_THREADS, 2)
    attention_dkv_kernel(eqi_view dk, eqi_view dv, eqi_view d_o, eqi_view lse, const float *delta,
                         eqi_view q, eqi_view k, eqi_view v, eqi_view segments,
                         eqi_attention_desc d)
{
    auto &m = *block_memory<att_memory<COLS, 2>>();
    int64_t per = q.shape[2] / k.shape[2];
    for (int64_t item = blockIdx.x; item < att_items<COLS>(k); item += gridDim.x) {
        att_item at = att_item_of<COLS>(k, item, false);
        att_range range = att_queries(d, at.row, q.shape[1], k.shape[1]);
        float4 sum_k[ATT_ROWS][COLS / 32], sum_v[ATT_ROWS][COLS / 32];
        att_clear<COLS>(sum_k);
        att_clear<COLS>(sum_v);
        for (int64_t h = at.h * per; h < (at.h + 1) * per; h++)
            for (int64_t i = range.first; i < range.last; i += ATT_TILE) {
                float dot[ATT_ROWS][ATT_DOTS], g[ATT_ROWS][ATT_DOTS];
                att_product(dot, m, att_tile{k, at.b, at.h, at.row}, att_tile{q, at.b, h, i});
                att_product(g, m, att_tile{v, at.b, at.h, at.row}, att_tile{d_o, at.b, h, i});
                EQI_UNROLL
                for (int n = 0; n < ATT_DOTS; n++) {
                    int64_t query = i + att_lane() + ATT_LANES * n;
                    passed of = passed_of(lse, delta, at.b, h, query);
                    EQI_UNROLL
                    for (int r = 0; r < ATT_ROWS; r++) {
                        bool seen = sees(lse, k, segments, d, at.b, query, at.row + att_row() + r);
                        weights w = weights_of(d, of, seen, dot[r][n], g[r][n]);
                        att_keep(m.weight[0], r, n, w.p);
                        att_keep(m.weight[1], r, n, w.ds);
                    }
                }
                att_gather<COLS>(sum_v, m, m.weight[0], att_tile{d_o, at.b, h, i}, at.column);
                att_gather<COLS>(sum_k, m, m.weight[1], att_tile{q, at.b, h, i}, at.column);
            }
        EQI_UNROLL
        for (int r = 0; r < ATT_ROWS; r++) {
            att_store<COLS>(dk, at, r, sum_k);
            att_store<COLS>(dv, at, r, sum_v);
        }
    }
}

template <int COLS>
static eqat_status launch(eqi_ctx *ctx, const eqi_view *dq, const eqi_view *dk, const eqi_view *dv,
                          const eqi_view *d_o, const eqi_view *lse, const float *delta,
                          const eqi_view *q, const eqi_view *k, const eqi_view *v,
                          const eqi_view *segments, const eqi_attention_desc *d)
{
    EQI_CUDA_TRY(eqi_launch(ctx, "attention_bwd, dq", attention_dq_kernel<COLS>,
                            eqi_grid(att_items<COLS>(*q), 1), ATT_THREADS,
                            sizeof(att_memory<COLS, 1>), *dq, *d_o, *lse, delta, *q, *k, *v,
                            eqi_or_none(segments), *d));
    return eqi_launch(ctx, "attention_bwd, dk and dv", attention_dkv_kernel<COLS>,
                      eqi_grid(att_items<COLS>(*k), 1), ATT_THREADS, sizeof(att_memory<COLS, 2>),
                      *dk, *dv, *d_o, *lse, delta, *q, *k, *v, eqi_or_none(segments), *d);
}

eqat_status eqi_cuda_attention_bwd(eqi_ctx *ctx, const eqi_view *dq, const eqi_view *dk,
                                   const eqi_view *dv, const eqi_view *d_o, const eqi_view *o,
                                   const eqi_view *lse, const eqi_view *q, const eqi_view *k,
                                   const eqi_view *v, const eqi_view *segments,
                                   const eqi_attention_desc *d)
{
    const eqi_view *const views[] = {q, k, v, o, d_o, dq, dk, dv};
    if (eqi_cuda_attention_fits(ctx, views, 8))
        return eqi_cuda_attention_mma_bwd(ctx, dq, dk, dv, d_o, o, lse, q, k, v, segments, d);
    int64_t rows = eqi_cuda_count(lse);
    void *scratch = nullptr;
    EQI_CUDA_TRY(
        eqi_cuda_scratch(ctx, EQI_CUDA_OP, static_cast<size_t>(rows) * sizeof(float), &scratch));
    float *delta = static_cast<float *>(scratch);
    EQI_CUDA_TRY(eqi_launch(ctx, "attention_bwd, delta", attention_delta_kernel,
                            eqi_grid(rows, EQI_BLOCK / EQI_WARP), EQI_BLOCK, 0, delta, *d_o, *o));
    return q->shape[3] <= 64 ? launch<64>(ctx, dq, dk, dv, d_o, lse, delta, q, k, v, segments, d)
                             : launch<128>(ctx, dq, dk, dv, d_o, lse, delta, q, k, v, segments, d);
}
