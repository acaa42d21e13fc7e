/* gated, gated_bwd. Bytes moved: each element of each argument once. A block has one row; a thread
 * reads all of an element before it writes, for outputs may be inputs. */
#include "../launch.cuh"
#include "../load.cuh"

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

/* y, gate, up [R, H] */
__global__ void __launch_bounds__(EQI_BLOCK)
    gated_kernel(eqi_view y, eqi_view gate, eqi_view up, eqi_activation activation)
{
    for (int64_t r = blockIdx.x; r < rows(y); r += gridDim.x)
        for (int64_t j = threadIdx.x; j < width(y); j += blockDim.x) {
            float g = get(gate, at2(gate, r, j)), rest;
            float s = logistic(exponent(activation, g), &rest);
            put(y, at2(y, r, j), g * s * get(up, at2(up, r, j)));
        }
}

eqat_status eqi_cuda_gated(eqi_ctx *ctx, const eqi_view *y, const eqi_view *gate,
                           const eqi_view *up, eqi_activation activation)
{
    return eqi_launch(ctx, "gated", gated_kernel, eqi_grid(eqi_cuda_rows(y), 1),
                      eqi_row_block(eqi_cuda_width(y)), 0, *y, *gate, *up, activation);
}

/* dgate, dup, dy, gate, up [R, H] */
__global__ void __launch_bounds__(EQI_BLOCK)
    gated_bwd_kernel(eqi_view dgate, eqi_view dup, eqi_view dy, eqi_view gate, eqi_view up,
                     eqi_activation activation)
{
    for (int64_t r = blockIdx.x; r < rows(dy); r += gridDim.x)
        for (int64_t j = threadIdx.x; j < width(dy); j += blockDim.x) {
            float d = get(dy, at2(dy, r, j)), g = get(gate, at2(gate, r, j)),
                  u = get(up, at2(up, r, j)), rest;
            float s = logistic(exponent(activation, g), &rest);
            put(dgate, at2(dgate, r, j),
                d * u * (s * (1.0f + exponent_slope(activation, g) * rest)));
            put(dup, at2(dup, r, j), d * g * s);
        }
}

eqat_status eqi_cuda_gated_bwd(eqi_ctx *ctx, const eqi_view *dgate, const eqi_view *dup,
                               const eqi_view *dy, const eqi_view *gate, const eqi_view *up,
                               eqi_activation activation)
{
    return eqi_launch(ctx, "gated_bwd", gated_bwd_kernel, eqi_grid(eqi_cuda_rows(dy), 1),
                      eqi_row_block(eqi_cuda_width(dy)), 0, *dgate, *dup, *dy, *gate, *up,
                      activation);
}
