/* What attention and its gradient share. A block works on a tile of 32 rows (queries or keys) and
 * streams tiles of 32 rows of the other kind past it:
 *
 *   product   dot[32, 32] = x[32, D] y[32, D]^T, over D in pieces of 64
 *   gather    sum[32, COLS] += weight[32, 32] x[32, COLS]
 *
 * COLS columns of a result lie in registers. A head of more columns takes several blocks, which
 * compute the same weights again: no head is too large. Eight threads next to each other have two
 * rows of the tile; one thread has of these rows the columns lane + 8 n of dot and the columns
 * 4 (lane + 8 n) to 4 (lane + 8 n) + 3 of sum. */
#ifndef EQI_CUDA_ATTENTION_CUH
#define EQI_CUDA_ATTENTION_CUH

#include "../launch.cuh"
#include "../load.cuh"
#include "../reduce.cuh"
#include "../shared.cuh"

constexpr int ATT_TILE = 32;
constexpr int ATT_DEPTH = 64;
constexpr int ATT_LANES = 8;                   /* threads of a row */
constexpr int ATT_ROWS = 2;                    /* of a thread */
constexpr int ATT_DOTS = ATT_TILE / ATT_LANES; /* of a thread in each of its rows */
constexpr int ATT_THREADS = ATT_TILE / ATT_ROWS * ATT_LANES;

/* The rows are longer than their contents by 16 bytes, so that eight rows lie in different banks.
 */
typedef float4 att_piece[ATT_TILE][ATT_DEPTH / 4 + 1];
typedef float4 att_weights[ATT_TILE][ATT_TILE / 4 + 1];

/* WEIGHTS tiles of weights. The functions below leave all of it free to be written again. */
template <int COLS, int WEIGHTS> struct att_memory {
    att_piece x, y;
    att_weights weight[WEIGHTS];
    float4 column[ATT_TILE][COLS / 4];
};

/* Rows from `row` on of head h of sequence b, in a view [B, T, heads, D]. */
struct att_tile {
    eqi_view v;
    int64_t b, h, row;
};

/* What a block has to do: a tile from `row` on, columns from `column` on. */
struct att_item {
    int64_t b, h, row, column;
};

__host__ __device__ __forceinline__ int64_t att_pieces(int64_t n, int64_t of)
{
    return n > of ? (n + of - 1) / of : 1;
}

/* One item for each tile of TILE rows, each COLS columns, of a view [B, T, heads, D]. */
template <int COLS, int TILE = ATT_TILE>
__host__ __device__ __forceinline__ int64_t att_items(const eqi_view &v)
{
    return v.shape[0] * v.shape[2] * att_pieces(v.shape[3], COLS) *
        ((v.shape[1] + TILE - 1) / TILE);
}

/* Items of one tile follow each other. Tiles with much to do come first when causal: the last
 * queries (`backwards`) or the first keys. */
template <int COLS, int TILE = ATT_TILE>
__device__ __forceinline__ att_item att_item_of(const eqi_view &v, int64_t item, bool backwards)
{
    att_item at;
    if (backwards) item = att_items<COLS, TILE>(v) - 1 - item;
    int64_t pieces = att_pieces(v.shape[3], COLS);
    at.column = item % pieces * COLS;
    item /= pieces;
    at.h = item % v.shape[2];
    item /= v.shape[2];
    at.b = item % v.shape[0];
    at.row = item / v.shape[0] * TILE;
    return at;
}

__device__ __forceinline__ int att_lane() { return static_cast<int>(threadIdx.x) % ATT_LANES; }
/* The first row of this thread. */
__device__ __forceinline__ int att_row()
{
    return static_cast<int>(threadIdx.x) / ATT_LANES * ATT_ROWS;
}

/* WIDE columns of a tile, 0 beyond the view; rows of `to` are `pitch` apart. */
template <int WIDE>
__device__ __forceinline__ void att_load(float4 *to, int pitch, const att_tile &t, int64_t column)
{
    constexpr int step = ATT_THREADS / WIDE;
    int c = static_cast<int>(threadIdx.x) % WIDE, first = static_cast<int>(threadIdx.x) / WIDE;
    int64_t rows = column + c < t.v.shape[3] ? t.v.shape[1] - t.row : 0;
    int64_t from = at4(t.v, t.b, t.row, t.h, column + c);
    float *out = &to->x + c;
    for (int i = first; i < ATT_TILE; i += step)
        out[i * pitch * 4] = i < rows ? get(t.v, from + i * t.v.stride[1]) : 0.0f;
}

__device__ __forceinline__ float att_add_dot(float sum, const float4 &a, const float4 &b)
{
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

/* What is hidden has weight 0 and may be NaN or infinite. */
__device__ __forceinline__ void att_add_scaled(float4 &sum, float weight, const float4 &x)
{
    if (weight == 0.0f) return;
    sum.x = fmaf(weight, x.x, sum.x);
    sum.y = fmaf(weight, x.y, sum.y);
    sum.z = fmaf(weight, x.z, sum.z);
    sum.w = fmaf(weight, x.w, sum.w);
}

/* dot = x y^T */
template <class M>
__device__ __forceinline__ void att_product(float (&dot)[ATT_ROWS][ATT_DOTS], M &m,
                                            const att_tile &x, const att_tile &y)
{
    EQI_UNROLL
    for (int r = 0; r < ATT_ROWS; r++) EQI_UNROLL
    for (int n = 0; n < ATT_DOTS; n++) dot[r][n] = 0.0f;
    int64_t size = x.v.shape[3];
    for (int64_t c0 = 0; c0 < size; c0 += ATT_DEPTH) {
        att_load<ATT_DEPTH>(&m.x[0][0], ATT_DEPTH / 4 + 1, x, c0);
        att_load<ATT_DEPTH>(&m.y[0][0], ATT_DEPTH / 4 + 1, y, c0);
        __syncthreads();
        int fours = size - c0 < ATT_DEPTH ? static_cast<int>(size - c0 + 3) / 4 : ATT_DEPTH / 4;
        for (int c = 0; c < fours; c++) {
            float4 other[ATT_DOTS];
            EQI_UNROLL
            for (int n = 0; n < ATT_DOTS; n++) other[n] = m.y[att_lane() + ATT_LANES * n][c];
            EQI_UNROLL
            for (int r = 0; r < ATT_ROWS; r++) {
                float4 own = m.x[att_row() + r][c];
                EQI_UNROLL
                for (int n = 0; n < ATT_DOTS; n++)
                    dot[r][n] = att_add_dot(dot[r][n], own, other[n]);
            }
        }
        __syncthreads();
    }
}

/* This thread's weight of its row r for row lane + 8 n of the other tile. */
__device__ __forceinline__ void att_keep(att_weights &weight, int r, int n, float value)
{
    (&weight[att_row() + r][0].x)[att_lane() + ATT_LANES * n] = value;
}

/* sum += weight x, for the columns of x from `column` on. */
template <int COLS, class M>
__device__ __forceinline__ void att_gather(float4 (&sum)[ATT_ROWS][COLS / 32], M &m,
                                           const att_weights &weight, const att_tile &x,
                                           int64_t column)
{
    att_load<COLS>(&m.column[0][0], COLS / 4, x, column);
    __syncthreads();
    for (int j = 0; j < ATT_TILE / 4; j++) {
        float4 w[ATT_ROWS];
        EQI_UNROLL
        for (int r = 0; r < ATT_ROWS; r++) w[r] = weight[att_row() + r][j];
        EQI_UNROLL
        for (int n = 0; n < COLS / 32; n++) {
            const float4 *at = &m.column[4 * j][att_lane() + ATT_LANES * n];
            float4 x0 = at[0], x1 = at[COLS / 4], x2 = at[COLS / 4 * 2], x3 = at[COLS / 4 * 3];
            EQI_UNROLL
            for (int r = 0; r < ATT_ROWS; r++) {
                att_add_scaled(sum[r][n], w[r].x, x0);
                att_add_scaled(sum[r][n], w[r].y, x1);
                att_add_scaled(sum[r][n], w[r].z, x2);
                att_add_scaled(sum[r][n], w[r].w, x3);
            }
        }
    }
    __syncthreads();
}

template <int COLS> __device__ __forceinline__ void att_clear(float4 (&sum)[ATT_ROWS][COLS / 32])
{
    EQI_UNROLL
    for (int r = 0; r < ATT_ROWS; r++) EQI_UNROLL
    for (int n = 0; n < COLS / 32; n++) sum[r][n] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

/* Row r of this thread into the view of the item. */
template <int COLS>
__device__ __forceinline__ void att_store(const eqi_view &to, const att_item &at, int r,
                                          const float4 (&sum)[ATT_ROWS][COLS / 32])
{
    int64_t i = at.row + att_row() + r, size = to.shape[3];
    if (i >= to.shape[1]) return;
    EQI_UNROLL
    for (int n = 0; n < COLS / 32; n++) {
        int64_t c = at.column + 4 * (att_lane() + ATT_LANES * n), first = at4(to, at.b, i, at.h, c);
        if (c < size) put(to, first, sum[r][n].x);
        if (c + 1 < size) put(to, first + 1, sum[r][n].y);
        if (c + 2 < size) put(to, first + 2, sum[r][n].z);
        if (c + 3 < size) put(to, first + 3, sum[r][n].w);
    }
}

/* Does the query at position p see key j? */
__device__ __forceinline__ bool att_sees(const eqi_view &segments, const eqi_attention_desc &d,
                                         int64_t b, int64_t p, int64_t j)
{
    if ((d.causal || d.window > 0) && j > p) return false;
    if (d.window > 0 && j <= p - d.window) return false;
    return !segments.data ||
        get_int(segments, at4(segments, 0, 0, b, j)) ==
        get_int(segments, at4(segments, 0, 0, b, p));
}

/* The rows of the other kind that some row of a tile has to do with: from `first`, below `last`. */
struct att_range {
    int64_t first, last;
};

template <int TILE = ATT_TILE>
__device__ __forceinline__ att_range att_keys(const eqi_attention_desc &d, int64_t query,
                                              int64_t queries, int64_t keys)
{
    int64_t end = query + TILE < queries ? query + TILE : queries;
    int64_t low = d.q_offset + query, high = d.q_offset + end;
    att_range range = {0, keys};
    if (d.window > 0 && low >= d.window) range.first = low - d.window + 1;
    if ((d.causal || d.window > 0) && high < keys) range.last = high;
    return range;
}

template <int TILE = ATT_TILE>
__device__ __forceinline__ att_range att_queries(const eqi_attention_desc &d, int64_t key,
                                                 int64_t queries, int64_t keys)
{
    int64_t end = key + TILE < keys ? key + TILE : keys;
    att_range range = {0, queries};
    if ((d.causal || d.window > 0) && key > d.q_offset) range.first = key - d.q_offset;
    /* A window beyond all positions hides nothing (and would overflow the sum). */
    if (d.window > 0 && d.window < d.q_offset + queries) {
        int64_t last = end - 1 + d.window - d.q_offset;
        if (last < queries) range.last = last;
    }
    return range;
}

/* The score of a product q.k, and its derivative. */
struct att_score {
    float value, slope;
};

__device__ __forceinline__ att_score att_score_of(const eqi_attention_desc &d, float dot)
{
    if (!(d.softcap > 0.0f)) return {d.scale * dot, d.scale};
    float t = tanhf(d.scale * dot / d.softcap);
    return {d.softcap * t, d.scale * (1.0f - t * t)};
}

#endif
