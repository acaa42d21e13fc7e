/* rope. Bytes moved: x and y once; the tables once for each position. A block has one position of
 * one sequence, all heads. */
#include "../launch.cuh"
#include "../load.cuh"

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

eqat_status eqi_cuda_rope(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *cos,
                          const eqi_view *sin, const eqi_view *pos, int sign)
{
    int64_t items = x->shape[2] * (x->shape[3] - eqi_cuda_width(cos));
    return eqi_launch(ctx, "rope", rope_kernel, eqi_grid(x->shape[0] * x->shape[1], 1),
                      eqi_row_block(items), 0, *y, *x, *cos, *sin, eqi_or_none(pos),
                      static_cast<float>(sign), eqi_cuda_of(ctx)->trouble);
}
