/* gated, gated_bwd. Bytes needed and moved: each element of each argument once. Of an element:
 * gated F32 12, BF16 6; gated_bwd F32 20, BF16 10. A thread reads all of an element or pack before
 * it writes, for outputs may be inputs. */
#include "../launch.cuh"
#include "../load.cuh"
#include "../vector.cuh"

#define GELU 1.5957691216057308f /* 2 sqrt(2 / pi) */

/* Every activation is x times a logistic function of this; the hyperbolic tangent is one:
 * (1 + tanh(t)) / 2 = 1 / (1 + exp(-2t)). */
static __device__ __forceinline__ float exponent(eqi_activation activation, float x)
{
    return activation == EQI_SILU ? x : x * (GELU + x * x * (0.044715f * GELU));
}

/* x times the slope of it. At 32 the logistic function has none left, so that a larger x need not
 * overflow here. */
static __device__ __forceinline__ float exponent_slope(eqi_activation activation, float x)
{
    if (activation == EQI_SILU) return x;
    x = clamp(x, -32.0f, 32.0f);
    return x * (GELU + x * x * (3.0f * 0.044715f * GELU));
}

/* 1 / (1 + exp(-x)), and what it lacks of 1 without the cancellation of a difference. */
static __device__ __forceinline__ float logistic(float x, float *rest)
{
    float e = expf(-fabsf(x)), large = 1.0f / (1.0f + e), small = e * large;
    *rest = x < 0.0f ? large : small;
    return x < 0.0f ? small : large;
}

static __device__ __forceinline__ float gate_value(eqi_activation activation, float g, float u)
{
    float rest, s = logistic(exponent(activation, g), &rest);
    return g * s * u;
}

/* Of dy: the gradients of gate and up. */
static __device__ __forceinline__ void gate_slopes(eqi_activation activation, float d, float g,
                                                   float u, float *dg, float *du)
{
    float rest, s = logistic(exponent(activation, g), &rest);
    *dg = d * u * (s * (1.0f + exponent_slope(activation, g) * rest));
    *du = d * g * s;
}

/* y, gate, up [R, H]; a block has one row */
__global__ void __launch_bounds__(EQI_BLOCK)
    gated_kernel(eqi_view y, eqi_view gate, eqi_view up, eqi_activation activation)
{
    for (int64_t r = blockIdx.x; r < rows(y); r += gridDim.x)
        for (int64_t j = threadIdx.x; j < width(y); j += blockDim.x)
            put(y, at2(y, r, j),
                gate_value(activation, get(gate, at2(gate, r, j)), get(up, at2(up, r, j))));
}

template <class T>
__global__ void __launch_bounds__(EQI_BLOCK)
    gated_packs_kernel(vector_rows<T> y, vector_rows<T> gate, vector_rows<T> up, int64_t rows,
                       int packs, eqi_activation activation)
{
    constexpr int N = EQI_LANES<T>;
    for (int64_t r = row_first(); r < rows; r += row_step())
        for (int i = pack_first(); i < packs; i += pack_step()) {
            pack<N> g = load_pack<N>(gate, r, i), u = load_pack<N>(up, r, i);
            EQI_UNROLL
            for (int k = 0; k < N; k++) g.v[k] = gate_value(activation, g.v[k], u.v[k]);
            store_pack(y, r, i, g);
        }
}

eqat_status eqi_cuda_gated(eqi_ctx *ctx, const eqi_view *y, const eqi_view *gate,
                           const eqi_view *up, eqi_activation activation)
{
    eqi_packs p;
    if (eqi_as_packs(&p, {y, gate, up}))
        return eqi_with(y->dtype, [&](auto type) {
            using T = decltype(type);
            return eqi_launch(ctx, "gated", gated_packs_kernel<T>, p.grid, p.block, 0,
                              eqi_vector<T>(p, y, 0), eqi_vector<T>(p, gate, 1),
                              eqi_vector<T>(p, up, 2), p.rows, p.packs, activation);
        });
    return eqi_launch(ctx, "gated", gated_kernel, eqi_grid(eqi_cuda_rows(y), 1),
                      eqi_row_block(eqi_cuda_width(y)), 0, *y, *gate, *up, activation);
}

/* dgate, dup, dy, gate, up [R, H]; a block has one row */
__global__ void __launch_bounds__(EQI_BLOCK)
    gated_bwd_kernel(eqi_view dgate, eqi_view dup, eqi_view dy, eqi_view gate, eqi_view up,
                     eqi_activation activation)
{
    for (int64_t r = blockIdx.x; r < rows(dy); r += gridDim.x)
        for (int64_t j = threadIdx.x; j < width(dy); j += blockDim.x) {
            float dg, du;
            gate_slopes(activation, get(dy, at2(dy, r, j)), get(gate, at2(gate, r, j)),
                        get(up, at2(up, r, j)), &dg, &du);
            put(dgate, at2(dgate, r, j), dg);
            put(dup, at2(dup, r, j), du);
        }
}

template <class T>
__global__ void __launch_bounds__(EQI_BLOCK)
    gated_bwd_packs_kernel(vector_rows<T> dgate, vector_rows<T> dup, vector_rows<T> dy,
                           vector_rows<T> gate, vector_rows<T> up, int64_t rows, int packs,
                           eqi_activation activation)
{
    constexpr int N = EQI_LANES<T>;
    for (int64_t r = row_first(); r < rows; r += row_step())
        for (int i = pack_first(); i < packs; i += pack_step()) {
            pack<N> d = load_pack<N>(dy, r, i), g = load_pack<N>(gate, r, i),
                    u = load_pack<N>(up, r, i);
            EQI_UNROLL
            for (int k = 0; k < N; k++)
                gate_slopes(activation, d.v[k], g.v[k], u.v[k], &g.v[k], &u.v[k]);
            store_pack(dgate, r, i, g);
            store_pack(dup, r, i, u);
        }
}

eqat_status eqi_cuda_gated_bwd(eqi_ctx *ctx, const eqi_view *dgate, const eqi_view *dup,
                               const eqi_view *dy, const eqi_view *gate, const eqi_view *up,
                               eqi_activation activation)
{
    eqi_packs p;
    if (eqi_as_packs(&p, {dgate, dup, dy, gate, up}))
        return eqi_with(dy->dtype, [&](auto type) {
            using T = decltype(type);
            return eqi_launch(ctx, "gated_bwd", gated_bwd_packs_kernel<T>, p.grid, p.block, 0,
                              eqi_vector<T>(p, dgate, 0), eqi_vector<T>(p, dup, 1),
                              eqi_vector<T>(p, dy, 2), eqi_vector<T>(p, gate, 3),
                              eqi_vector<T>(p, up, 4), p.rows, p.packs, activation);
        });
    return eqi_launch(ctx, "gated_bwd", gated_bwd_kernel, eqi_grid(eqi_cuda_rows(dy), 1),
                      eqi_row_block(eqi_cuda_width(dy)), 0, *dgate, *dup, *dy, *gate, *up,
                      activation);
}
