/* attention: o = softmax(scores) v, a tile of queries for each block and the keys streamed past it,
 * the maximum and the sum of a row running along. Bytes moved: q and o once (q again for each tile
 * of keys, from a cache), k and v once for each tile of 32 queries that sees them. */
#include "attention.cuh"

/* Of a row so far; each of its threads has it. The sum is of exp(score - top). */
struct running {
    float top, sum;
};

static __device__ __forceinline__ float row_max(float v)
{
    for (int m = ATT_LANES / 2; m; m >>= 1) v = larger(v, __shfl_xor_sync(EQI_FULL, v, m));
    return v;
}

static __device__ __forceinline__ float row_sum(float v)
{
    for (int m = ATT_LANES / 2; m; m >>= 1) v += __shfl_xor_sync(EQI_FULL, v, m);
    return v;
}

/* Products become scores, -infinity where the query does not see the key. */
static __device__ __forceinline__ void mask(float (&score)[ATT_ROWS][ATT_DOTS], const att_tile &q,
                                            const att_tile &k, const eqi_view &segments,
                                            const eqi_attention_desc &d)
{
    EQI_UNROLL
    for (int r = 0; r < ATT_ROWS; r++) EQI_UNROLL
    for (int n = 0; n < ATT_DOTS; n++) {
        int64_t i = q.row + att_row() + r, j = k.row + att_lane() + ATT_LANES * n;
        bool sees =
            i < q.v.shape[1] && j < k.v.shape[1] && att_sees(segments, d, q.b, d.q_offset + i, j);
        score[r][n] = sees ? att_score_of(d, score[r][n]).value : -INFINITY;
    }
}

/* Takes the scores of a row into account and makes weights of them; returns the factor of what was
 * summed up before. */
static __device__ __forceinline__ float advance(running &row, float (&score)[ATT_DOTS])
{
    float top = score[0];
    EQI_UNROLL
    for (int n = 1; n < ATT_DOTS; n++) top = larger(top, score[n]);
    top = larger(row.top, row_max(top));
    /* Nothing seen so far: any finite number does. */
    float base = top == -INFINITY ? 0.0f : top, factor = expf(row.top - base), sum = 0.0f;
    EQI_UNROLL
    for (int n = 0; n < ATT_DOTS; n++) {
        score[n] = expf(score[n] - base);
        sum += score[n];
    }
    row.top = top;
    row.sum = row.sum * factor + row_sum(sum);
    return factor;
}

static __device__ __forceinline__ float4 scaled(const float4 &x, float factor)
{
    return make_float4(x.x * factor, x.y * factor, x.z * factor, x.w * factor);
}

static __device__ __forceinline__ float4 divided(const float4 &x, float by)
{
    return make_float4(x.x / by, x.y / by, x.z / by, x.w / by);
}

/* A row that saw no key is 0, its lse ln 0. */
template <int COLS>
static __device__ __forceinline__ void finish(const eqi_view &o, const eqi_view &lse,
                                              const att_item &at,
                                              float4 (&sum)[ATT_ROWS][COLS / 32],
                                              const running (&row)[ATT_ROWS])
{
    EQI_UNROLL
    for (int r = 0; r < ATT_ROWS; r++) {
        bool none = row[r].top == -INFINITY;
        int64_t i = at.row + att_row() + r;
        EQI_UNROLL
        for (int n = 0; n < COLS / 32; n++)
            sum[r][n] = divided(sum[r][n], none ? 1.0f : row[r].sum);
        att_store<COLS>(o, at, r, sum);
        if (at.column == 0 && att_lane() == 0 && i < o.shape[1])
            put(lse, at4(lse, 0, at.b, at.h, i), row[r].top + logf(row[r].sum));
    }
}

template <int COLS>
__global__ void __launch_bounds__(ATT_THREADS, 2)
    attention_kernel(eqi_view o, eqi_view lse, eqi_view q, eqi_view k, eqi_view v,
                     eqi_view segments, eqi_attention_desc d)
{
    auto &m = *block_memory<att_memory<COLS, 1>>();
    int64_t queries = q.shape[1], keys = k.shape[1], per = q.shape[2] / k.shape[2];
    for (int64_t item = blockIdx.x; item < att_items<COLS>(q); item += gridDim.x) {
        att_item at = att_item_of<COLS>(q, item, true);
        att_range range = att_keys(d, at.row, queries, keys);
        float4 sum[ATT_ROWS][COLS / 32];
        running row[ATT_ROWS];
        att_clear<COLS>(sum);
        EQI_UNROLL
        for (int r = 0; r < ATT_ROWS; r++) row[r] = {-INFINITY, 0.0f};
        for (int64_t j = range.first; j < range.last; j += ATT_TILE) {
            float score[ATT_ROWS][ATT_DOTS];
            att_tile own = {q, at.b, at.h, at.row}, other = {k, at.b, at.h / per, j};
            att_product(score, m, own, other);
            mask(score, own, other, segments, d);
            EQI_UNROLL
            for (int r = 0; r < ATT_ROWS; r++) {
                float factor = advance(row[r], score[r]);
                EQI_UNROLL
                for (int n = 0; n < COLS / 32; n++) sum[r][n] = scaled(sum[r][n], factor);
                EQI_UNROLL
                for (int n = 0; n < ATT_DOTS; n++) att_keep(m.weight[0], r, n, score[r][n]);
            }
            other.v = v;
            att_gather<COLS>(sum, m, m.weight[0], other, at.column);
        }
        finish<COLS>(o, lse, at, sum, row);
    }
}

template <int COLS>
static eqat_status launch(eqi_ctx *ctx, const eqi_view *o, const eqi_view *lse, const eqi_view *q,
                          const eqi_view *k, const eqi_view *v, const eqi_view *segments,
                          const eqi_attention_desc *d)
{
    return eqi_launch(ctx, "attention", attention_kernel<COLS>, eqi_grid(att_items<COLS>(*q), 1),
                      ATT_THREADS, sizeof(att_memory<COLS, 1>), *o, *lse, *q, *k, *v,
                      eqi_or_none(segments), *d);
}

eqat_status eqi_cuda_attention(eqi_ctx *ctx, const eqi_view *o, const eqi_view *lse,
                               const eqi_view *q, const eqi_view *k, const eqi_view *v,
                               const eqi_view *segments, const eqi_attention_desc *d)
{
    const eqi_view *const views[] = {o, q, k, v};
    if (eqi_cuda_attention_fits(ctx, views, 4))
        return eqi_cuda_attention_mma(ctx, o, lse, q, k, v, segments, d);
    return q->shape[3] <= 64 ? launch<64>(ctx, o, lse, q, k, v, segments, d)
                             : launch<128>(ctx, o, lse, q, k, v, segments, d);
}
