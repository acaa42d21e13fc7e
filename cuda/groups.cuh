/* The groups of a quantized weight, each with one s and one z, by one warp each. Groups are counted
 * over all rows, and the warps of the grid stride over them: all lanes of a warp go through the
 * same groups. */
#ifndef EQI_CUDA_GROUPS_CUH
#define EQI_CUDA_GROUPS_CUH

#include "launch.cuh"
#include "quant.cuh"
#include "reduce.cuh"

/* Groups that a block takes at a time. */
constexpr int EQI_BLOCK_GROUPS = EQI_BLOCK / EQI_WARP;

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x % EQI_WARP); }
__device__ __forceinline__ int64_t first_group()
{
    return static_cast<int64_t>(blockIdx.x) * EQI_BLOCK_GROUPS + threadIdx.x / EQI_WARP;
}
__device__ __forceinline__ int64_t group_step()
{
    return static_cast<int64_t>(gridDim.x) * EQI_BLOCK_GROUPS;
}

/* What fake quantization makes of the gradient of one w^: inside dw = grad, ds = grad (r - t),
 * outside ds = grad (q - z'), dz = -grad s'. */
struct fake_gradient {
    float dw, ds, dz;
};

__device__ __forceinline__ fake_gradient fake_backward(float grad, float w, float s, float z,
                                                       float top)
{
    fake f = fake_quantize(w, s, z, top);
    return {f.inside ? grad : 0.0f, grad * (f.inside ? f.r - f.t : f.code - z),
            f.inside ? 0.0f : -(grad * s)};
}

#endif
