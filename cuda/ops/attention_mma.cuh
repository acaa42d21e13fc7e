/* What attention on tensor cores and its gradient share. A block of four warps works on a tile of
 * rows (queries or keys), 16 for each warp, and streams tiles of rows of the other kind past it:
 *
 *   product   dot[16, 8 N] = x[16, D] y[8 N, D]^T
 *   gather    sum[16, D] += weight[16, 8 N] x[8 N, D]
 *
 * dot, weight and sum lie in registers, the tiles in shared memory. A lane has rows lane / 4 and
 * lane / 4 + 8 of its warp's, and of each eight columns 2 (lane % 4) and the next: dot[n][2 r + i]
 * is row r, column 8 n + i from there. Weights are rounded to bf16.
 *
 * A head of more than 128 columns has two warps for 16 rows, because sums of that many columns are
 * more than one has registers for. Each has half of the columns, of operands and of sums; what they
 * multiply is added up through shared memory (mma_halves), and both make the same weights of it. */
#ifndef EQI_CUDA_ATTENTION_MMA_CUH
#define EQI_CUDA_ATTENTION_MMA_CUH

#include "../mma.cuh"
#include "attention.cuh"

constexpr int MMA_ROWS = 16; /* of a warp */
constexpr int MMA_WARPS = 4;
constexpr int MMA_THREADS = MMA_WARPS * EQI_WARP;
/* Warps that share 16 rows of a head of D columns, columns of each, rows of a block. */
template <int D> constexpr int MMA_HALVES = D > 128 ? 2 : 1;
template <int D> constexpr int MMA_COLUMNS = D / MMA_HALVES<D>;
template <int D> constexpr int MMA_TILE = MMA_WARPS / MMA_HALVES<D> *MMA_ROWS;
constexpr float MMA_LOG2E = 1.44269504088896340736f;
constexpr float MMA_LN2 = 0.693147180559945309417f;

/* Head sizes that there are kernels for, and what launches those of one: without softcap, with. */
#define MMA_SIZES(X) X(64) X(80) X(96) X(128) X(256)

template <class LAUNCH> struct mma_kernels {
    int64_t size;
    LAUNCH *launch[2];
};

/* NULL: none of this size. */
template <class LAUNCH, size_t COUNT>
LAUNCH *mma_launch_of(const mma_kernels<LAUNCH> (&table)[COUNT], int64_t size, float softcap)
{
    for (const auto &kernels : table)
        if (kernels.size == size) return kernels.launch[softcap > 0.0f];
    return nullptr;
}

/* What every kernel reads; the views have four dimensions. A product dot has the score outer * dot
 * or, with softcap, outer * tanh(inner * dot), in units of log2. */
struct mma_inputs {
    eqi_view q, k, v, segments;
    eqi_attention_desc d;
    float inner, outer;
};

inline mma_inputs mma_inputs_of(const eqi_view *q, const eqi_view *k, const eqi_view *v,
                                const eqi_view *segments, const eqi_attention_desc *d)
{
    bool capped = d->softcap > 0.0f;
    return {*q,
            *k,
            *v,
            eqi_pass(eqi_or_none(segments)),
            *d,
            capped ? d->scale / d->softcap : 1.0f,
            (capped ? d->softcap : d->scale) * MMA_LOG2E};
}

/* A block's own tile, of queries or keys; the rows of the other kind that it has to do with; the
 * head of keys. */
struct mma_job {
    att_item at;
    att_range range;
    int64_t key_head;
};

template <int D>
__device__ __forceinline__ mma_job mma_job_of_queries(const mma_inputs &in, int64_t item)
{
    att_item at = att_item_of<D, MMA_TILE<D>>(in.q, item, true);
    return {at, att_keys<MMA_TILE<D>>(in.d, at.row, in.q.shape[1], in.k.shape[1]),
            at.h / (in.q.shape[2] / in.k.shape[2])};
}

template <int D>
__device__ __forceinline__ mma_job mma_job_of_keys(const mma_inputs &in, int64_t item)
{
    att_item at = att_item_of<D, MMA_TILE<D>>(in.k, item, false);
    return {at, att_queries<MMA_TILE<D>>(in.d, at.row, in.q.shape[1], in.k.shape[1]), at.h};
}

/* Rows of keys or values for a block of queries, from `row` on. */
__device__ __forceinline__ att_tile mma_keys(const eqi_view &v, const mma_job &job, int64_t row)
{
    return {v, job.at.b, job.key_head, row};
}

/* The rows are longer than their contents by 16 bytes, so that eight rows lie in different banks.
 */
template <int D, int ROWS> struct mma_tile {
    __align__(16) __nv_bfloat16 row[ROWS][D + 8];
};

__device__ __forceinline__ int mma_lane() { return static_cast<int>(threadIdx.x) % EQI_WARP; }
__device__ __forceinline__ int mma_warp() { return static_cast<int>(threadIdx.x) / EQI_WARP; }
/* The first row of this warp, and its first column. */
template <int D> __device__ __forceinline__ int mma_row()
{
    return mma_warp() / MMA_HALVES<D> * MMA_ROWS;
}
template <int D> __device__ __forceinline__ int mma_column()
{
    return mma_warp() % MMA_HALVES<D> * MMA_COLUMNS<D>;
}
/* Rows of this lane are this one and the eighth after it; columns this one and the next. */
template <int D> __device__ __forceinline__ int mma_lane_row()
{
    return mma_row<D>() + mma_lane() / 4;
}
__device__ __forceinline__ int mma_lane_column() { return mma_lane() % 4 * 2; }

/* Bytes from one row of a tile to the next. */
template <int D> __host__ __device__ constexpr int mma_pitch() { return 2 * (D + 8); }

/* Begins to copy rows, zeros beyond the view. Eight threads have a row, 128 bytes at a time. */
template <int D, int ROWS>
__device__ __forceinline__ void mma_copy(async_copies &copies, mma_tile<D, ROWS> &to,
                                         const att_tile &t)
{
    constexpr int wide = D / 8, step = MMA_THREADS / 8;
    int first = static_cast<int>(threadIdx.x) / 8, c = static_cast<int>(threadIdx.x) % 8;
    const __nv_bfloat16 *from =
        static_cast<const __nv_bfloat16 *>(t.v.data) + at4(t.v, t.b, t.row + first, t.h, 8 * c);
    int64_t rows = t.v.shape[1] - t.row - first, next = step * t.v.stride[1];
    shared_place place = shared_at(&to.row[first][8 * c]);
    EQI_UNROLL
    for (int i = 0; i < ROWS; i += step) {
        EQI_UNROLL
        for (int n = 0; n < wide; n += 8) {
            bool present = i < rows;
            const void *there = present ? static_cast<const void *>(from + 8 * n) : t.v.data;
            if (n + 8 <= wide || c < wide - n)
                copy_async(copies, place + i * mma_pitch<D>() + 16 * n, there, present);
        }
        from += next;
    }
}

/* The address that this lane has to give for four matrices of 8 x 8, two times two in this warp's
 * columns of a tile: next to each other come those below each other (`down`) or those beside each
 * other. */
template <int D, int ROWS>
__device__ __forceinline__ shared_place mma_place(mma_tile<D, ROWS> &x, int row, bool down)
{
    int low = mma_lane() / 8 % 2 * 8, high = mma_lane() / 16 * 8;
    int column = mma_column<D>() + (down ? high : low);
    return shared_at(&x.row[row + mma_lane() % 8 + (down ? low : high)][column]);
}

/* dot += own y^T for 16 columns of both; `place` is of y, beside */
template <int D, int N>
__device__ __forceinline__ void mma_product_step(float (&dot)[N][4], const uint32_t (&own)[4],
                                                 shared_place place, int c)
{
    EQI_UNROLL
    for (int n = 0; n < N; n += 2) {
        uint32_t other[4];
        load_matrices(other, place + 8 * n * mma_pitch<D>() + 32 * c);
        mma_add(dot[n], own, other[0], other[1]);
        mma_add(dot[n + 1], own, other[2], other[3]);
    }
}

template <int N> __device__ __forceinline__ void mma_clear(float (&sum)[N][4])
{
    EQI_UNROLL
    for (int n = 0; n < N; n++) EQI_UNROLL
    for (int i = 0; i < 4; i++) sum[n][i] = 0.0f;
}

/* This warp's rows. */
template <int D>
__device__ __forceinline__ void mma_own(uint32_t (&own)[MMA_COLUMNS<D> / 16][4],
                                        mma_tile<D, MMA_TILE<D>> &x)
{
    shared_place place = mma_place(x, mma_row<D>(), true);
    EQI_UNROLL
    for (int c = 0; c < MMA_COLUMNS<D> / 16; c++) load_matrices(own[c], place + 32 * c);
}

/* dot = own y^T of this warp's columns; own in registers */
template <int D, int ROWS>
__device__ __forceinline__ void mma_product(float (&dot)[ROWS / 8][4],
                                            const uint32_t (&own)[MMA_COLUMNS<D> / 16][4],
                                            mma_tile<D, ROWS> &y)
{
    shared_place place = mma_place(y, 0, false);
    mma_clear(dot);
    EQI_UNROLL
    for (int c = 0; c < MMA_COLUMNS<D> / 16; c++) mma_product_step<D>(dot, own[c], place, c);
}

/* The same; own in shared memory, for kernels without registers for it */
template <int D, int ROWS>
__device__ __forceinline__ void mma_product_shared(float (&dot)[ROWS / 8][4],
                                                   mma_tile<D, MMA_TILE<D>> &x,
                                                   mma_tile<D, ROWS> &y)
{
    shared_place place = mma_place(y, 0, false), own_place = mma_place(x, mma_row<D>(), true);
    mma_clear(dot);
    EQI_UNROLL
    for (int c = 0; c < MMA_COLUMNS<D> / 16; c++) {
        uint32_t own[4];
        load_matrices(own, own_place + 32 * c);
        mma_product_step<D>(dot, own, place, c);
    }
}

/* COUNT products of each warp's columns with ROWS rows; nothing where one warp has all columns. */
template <int D, int ROWS, int COUNT, int HALVES = MMA_HALVES<D>> struct mma_halves {
    float4 part[COUNT][MMA_WARPS][ROWS / 8][EQI_WARP];

    __device__ __forceinline__ void put(int which, const float (&dot)[ROWS / 8][4])
    {
        EQI_UNROLL
        for (int n = 0; n < ROWS / 8; n++)
            part[which][mma_warp()][n][mma_lane()] =
                make_float4(dot[n][0], dot[n][1], dot[n][2], dot[n][3]);
    }

    /* Behind a barrier; the sum is the same for both warps. */
    __device__ __forceinline__ void add(int which, float (&dot)[ROWS / 8][4]) const
    {
        EQI_UNROLL
        for (int n = 0; n < ROWS / 8; n++) {
            float4 other = part[which][mma_warp() ^ 1][n][mma_lane()];
            dot[n][0] += other.x;
            dot[n][1] += other.y;
            dot[n][2] += other.z;
            dot[n][3] += other.w;
        }
    }
};

template <int D, int ROWS, int COUNT> struct mma_halves<D, ROWS, COUNT, 1> {
    __device__ __forceinline__ void put(int, const float (&)[ROWS / 8][4]) {}
    __device__ __forceinline__ void add(int, float (&)[ROWS / 8][4]) const {}
};

/* Has what this thread copied of a tile, and waited for, a value that is not finite? */
template <int D, int ROWS> __device__ __forceinline__ bool mma_odd(const mma_tile<D, ROWS> &x)
{
    constexpr int step = MMA_THREADS / 8;
    int first = static_cast<int>(threadIdx.x) / 8, c = static_cast<int>(threadIdx.x) % 8;
    uint32_t odd = 0;
    EQI_ROLLED
    for (int i = first; i < ROWS; i += step) EQI_ROLLED
    for (int n = c; n < D / 8; n += 8) {
        uint4 eight = *reinterpret_cast<const uint4 *>(&x.row[i][8 * n]);
        for (uint32_t two : {eight.x, eight.y, eight.z, eight.w})
            odd |= (two & 0x7f807f80u) + 0x00800080u; /* of two exponents, into the signs' bits */
    }
    return odd & 0x80008000u;
}

/* All threads meet where a tile has come. Must its rows be gathered one by one? Where some query
 * of the tile does not see some key, a value that is not finite must not reach the other's sum. */
template <int D, int ROWS>
__device__ __forceinline__ bool mma_meet(bool hidden, const mma_tile<D, ROWS> &x)
{
    if (hidden) return __syncthreads_or(mma_odd(x));
    __syncthreads();
    return false;
}

/* sum += weight x for 16 rows of x from `row` on, without those of weight 0; w as mma_add takes it.
 */
template <int D, int ROWS>
__device__ __forceinline__ void mma_gather_rows(float (&sum)[MMA_COLUMNS<D> / 8][4],
                                                const uint32_t (&w)[4], const mma_tile<D, ROWS> &x,
                                                int row)
{
    EQI_ROLLED
    for (int j = 0; j < 16; j++) {
        int from = mma_lane() / 4 * 4 + j % 8 / 2, shift = j % 2 ? 0 : 16;
        const __nv_bfloat16 *at = &x.row[row + j][mma_column<D>() + mma_lane_column()];
        EQI_UNROLL
        for (int r = 0; r < 2; r++) {
            uint32_t pair = __shfl_sync(EQI_FULL, j < 8 ? w[r] : w[2 + r], from);
            float weight = __uint_as_float(pair << shift & 0xffff0000u);
            EQI_UNROLL
            for (int n = 0; weight != 0.0f && n < MMA_COLUMNS<D> / 8; n++) {
                uint32_t two = *reinterpret_cast<const uint32_t *>(at + 8 * n);
                sum[n][2 * r] = fmaf(weight, __uint_as_float(two << 16), sum[n][2 * r]);
                sum[n][2 * r + 1] =
                    fmaf(weight, __uint_as_float(two & 0xffff0000u), sum[n][2 * r + 1]);
            }
        }
    }
}

/* sum += weight x, `apart`: row by row */
template <int D, int ROWS>
__device__ __forceinline__ void mma_gather(float (&sum)[MMA_COLUMNS<D> / 8][4],
                                           const float (&weight)[ROWS / 8][4], mma_tile<D, ROWS> &x,
                                           bool apart)
{
    shared_place place = mma_place(x, 0, true);
    EQI_UNROLL
    for (int k = 0; k < ROWS / 16; k++) {
        const float(&low)[4] = weight[2 * k], (&high)[4] = weight[2 * k + 1];
        uint32_t w[4] = {bf16_pair(low[0], low[1]), bf16_pair(low[2], low[3]),
                         bf16_pair(high[0], high[1]), bf16_pair(high[2], high[3])};
        if (apart) {
            mma_gather_rows(sum, w, x, 16 * k);
            continue;
        }
        EQI_UNROLL
        for (int n = 0; n < MMA_COLUMNS<D> / 8; n += 2) {
            uint32_t other[4];
            load_turned(other, place + 16 * k * mma_pitch<D>() + 16 * n);
            mma_add(sum[n], w, other[0], other[1]);
            mma_add(sum[n + 1], w, other[2], other[3]);
        }
    }
}

/* Row r (0 or 1) of this lane, times a factor, into the view of the item; 0 whatever it is for the
 * factor 0. */
template <int D>
__device__ __forceinline__ void mma_store(const eqi_view &to, const att_item &at, int r,
                                          const float (&sum)[MMA_COLUMNS<D> / 8][4], float factor)
{
    int64_t i = at.row + mma_lane_row<D>() + 8 * r, c = mma_column<D>() + mma_lane_column();
    if (i >= to.shape[1]) return;
    __nv_bfloat16 *row = static_cast<__nv_bfloat16 *>(to.data) + at4(to, at.b, i, at.h, c);
    EQI_UNROLL
    for (int n = 0; n < MMA_COLUMNS<D> / 8; n++)
        *reinterpret_cast<uint32_t *>(row + 8 * n) =
            factor == 0.0f ? 0 : bf16_pair(sum[n][2 * r] * factor, sum[n][2 * r + 1] * factor);
}

/* Which of 8 n and 8 n + 1 after `first`, for n below N, have to do with `own`: bits 2 n and
 * 2 n + 1. One is a query, the other a key. Not unrolled: it is for the few tiles that are not seen
 * as a whole. */
template <int N, bool OWN_IS_QUERY>
__device__ __forceinline__ uint32_t mma_seen(const mma_inputs &in, int64_t b, int64_t own,
                                             int64_t first)
{
    static_assert(2 * N <= 32, "a bit for each");
    uint32_t seen = 0;
    EQI_ROLLED
    for (int n = 0; n < 2 * N; n++) {
        int64_t other = first + n / 2 * 8 + n % 2;
        int64_t i = OWN_IS_QUERY ? own : other, j = OWN_IS_QUERY ? other : own;
        if (i < in.q.shape[1] && j < in.k.shape[1] &&
            att_sees(in.segments, in.d, b, in.d.q_offset + i, j))
            seen |= 1u << n;
    }
    return seen;
}

/* Do all queries of `rows` from `query` on see all of `count` keys from `key` on? */
__device__ __forceinline__ bool mma_all_seen(const mma_inputs &in, int64_t query, int rows,
                                             int64_t key, int count)
{
    const eqi_attention_desc &d = in.d;
    int64_t low = d.q_offset + query, high = low + rows - 1;
    return !in.segments.data && query + rows <= in.q.shape[1] && key + count <= in.k.shape[1] &&
        (!(d.causal || d.window > 0) || key + count - 1 <= low) &&
        (d.window <= 0 || high < d.window || key > high - d.window);
}

#endif
