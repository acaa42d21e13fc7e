/* rope. Bytes needed and moved: x and y once (an element of F32 8, of BF16 4), the tables once for
 * each position of each sequence (8 a pair). A block has one position of one sequence, all heads.
 */
#include "../launch.cuh"
#include "../load.cuh"
#include "../vector.cuh"

/* x, y [B, T, heads, D]; cos, sin [positions, C]; pos [B, T]. Of each head: C pairs (c, c + C),
 * then D - 2 C elements that stay, numbered from C as one row of D - C. */
__global__ void __launch_bounds__(EQI_BLOCK)
    rope_kernel(eqi_view y, eqi_view x, eqi_view cos, eqi_view sin, eqi_view pos, float sign,
                eqi_trouble *trouble)
{
    int64_t time = x.shape[1], half = width(cos), items = x.shape[3] - half;
    for (int64_t i = blockIdx.x; i < x.shape[0] * time; i += gridDim.x) {
        int64_t b = i / time, t = i % time, p = pos.data ? get_int(pos, at2(pos, b, t)) : t;
        bool turn = in_range(trouble, EQI_TROUBLE_POSITION, p, rows(cos));
        for (int64_t j = threadIdx.x; j < x.shape[2] * items; j += blockDim.x) {
            int64_t h = j / items, c = j % items;
            int64_t from = at4(x, b, t, h, c), to = at4(y, b, t, h, c);
            if (c >= half) {
                put(y, to + half, get(x, from + half));
                continue;
            }
            float lo = get(x, from), hi = get(x, from + half);
            float co = turn ? get(cos, at2(cos, p, c)) : 1.0f,
                  si = turn ? sign * get(sin, at2(sin, p, c)) : 0.0f;
            put(y, to, lo * co - hi * si);
            put(y, to + half, hi * co + lo * si);
        }
    }
}

/* Cosines and sines of N pairs, the latter times sign; without a turn those of the angle 0. */
template <int N>
static __device__ __forceinline__ void turns(pack<N> &co, pack<N> &si, bool turn, const float *cos,
                                             const float *sin, float sign)
{
    if (turn) {
        co = load_pack<N>(cos);
        si = load_pack<N>(sin);
    }
    EQI_UNROLL
    for (int k = 0; k < N; k++) {
        co.v[k] = turn ? co.v[k] : 1.0f;
        si.v[k] = turn ? sign * si.v[k] : 0.0f;
    }
}

template <int N>
static __device__ __forceinline__ void turn_pack(pack<N> &lo, pack<N> &hi, const pack<N> &co,
                                                 const pack<N> &si)
{
    EQI_UNROLL
    for (int k = 0; k < N; k++) {
        float l = lo.v[k], u = hi.v[k];
        lo.v[k] = l * co.v[k] - u * si.v[k];
        hi.v[k] = u * co.v[k] + l * si.v[k];
    }
}

/* The same in packs of N, C and D being multiples of N: threadIdx.x runs over the packs of C pairs
 * and of what stays, threadIdx.y over heads; blockIdx.x is a position, blockIdx.y a sequence. */
template <class T>
__global__ void __launch_bounds__(EQI_BLOCK)
    rope_packs_kernel(eqi_view y, eqi_view x, const float *cos, const float *sin, int64_t positions,
                      int half, const int *pos, float sign, eqi_trouble *trouble)
{
    constexpr int N = EQI_LANES<T>;
    const int64_t t = blockIdx.x, b = blockIdx.y, p = pos ? pos[b * x.shape[1] + t] : t;
    const int items = static_cast<int>(x.shape[3]) - half, heads = static_cast<int>(x.shape[2]);
    const bool turn = in_range(trouble, EQI_TROUBLE_POSITION, p, positions);
    for (int c = static_cast<int>(threadIdx.x) * N; c < items; c += blockDim.x * N) {
        pack<N> co = {}, si = {};
        if (c < half) turns(co, si, turn, cos + p * half + c, sin + p * half + c, sign);
        vector_rows<T> from = {static_cast<T *>(x.data) + at4(x, b, t, 0, c), x.stride[2]},
                       to = {static_cast<T *>(y.data) + at4(y, b, t, 0, c), y.stride[2]};
        for (int h = threadIdx.y; h < heads; h += blockDim.y) {
            pack<N> hi = load_pack<N>(from.data + h * from.stride + half);
            if (c < half) {
                pack<N> lo = load_pack<N>(from, h, 0);
                turn_pack(lo, hi, co, si);
                store_pack(to, h, 0, lo);
            }
            store_pack(to.data + h * to.stride + half, hi);
        }
    }
}

/* Is every head of v a row of packs? */
static bool is_packed(const eqi_view *v, int lanes)
{
    bool all = reinterpret_cast<uintptr_t>(v->data) % 16 == 0 && v->shape[3] % lanes == 0;
    for (int d = 0; d < 3; d++) all &= v->stride[d] % lanes == 0;
    return all;
}

static eqat_status rope_packs(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                              const eqi_view *cos, const eqi_view *sin, const eqi_view *pos,
                              int sign, int lanes)
{
    const int half = static_cast<int>(eqi_cuda_width(cos));
    int along = 1, heads = 1;
    while (along < EQI_BLOCK && along * lanes < x->shape[3] - half) along *= 2;
    while (heads < EQI_BLOCK / along && heads < x->shape[2]) heads *= 2;
    const dim3 grid(static_cast<unsigned>(x->shape[1]), static_cast<unsigned>(x->shape[0])),
        block(static_cast<unsigned>(along), static_cast<unsigned>(heads));
    return eqi_with(x->dtype, [&](auto type) {
        return eqi_launch(ctx, "rope", rope_packs_kernel<decltype(type)>, grid, block, 0, *y, *x,
                          static_cast<const float *>(cos->data),
                          static_cast<const float *>(sin->data), eqi_cuda_rows(cos), half,
                          pos ? static_cast<const int *>(pos->data) : nullptr,
                          static_cast<float>(sign), eqi_cuda_of(ctx)->trouble);
    });
}

eqat_status eqi_cuda_rope(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *cos,
                          const eqi_view *sin, const eqi_view *pos, int sign)
{
    int lanes = eqi_lanes({x, y});
    eqi_packs tables;
    if (lanes && x->dtype == y->dtype && x->shape[0] <= 65535 && x->shape[1] <= 1 << 30 &&
        is_packed(x, lanes) && is_packed(y, lanes) && eqi_rows_as_packs(&tables, lanes, {cos, sin}))
        return rope_packs(ctx, y, x, cos, sin, pos, sign, lanes);
    int64_t items = x->shape[2] * (x->shape[3] - eqi_cuda_width(cos));
    return eqi_launch(ctx, "rope", rope_kernel, eqi_grid(x->shape[0] * x->shape[1], 1),
                      eqi_row_block(items), 0, *y, *x, *cos, *sin, eqi_or_none(pos),
                      static_cast<float>(sign), eqi_cuda_of(ctx)->trouble);
}
