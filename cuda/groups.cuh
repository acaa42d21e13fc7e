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

/* Groups of 32, 64 or 128 weights, all contiguous and aligned to 16 bytes, by teams of lanes: a
 * lane takes four weights, a warp 128. */
constexpr int EQI_WARP_WEIGHTS = EQI_WARP * 4;

inline bool eqi_has_teams(const eqi_quant_desc *q)
{
    return q->group == 32 || q->group == 64 || q->group == 128;
}
inline unsigned eqi_team_grid(int64_t weights)
{
    return eqi_grid((weights + EQI_WARP_WEIGHTS - 1) / EQI_WARP_WEIGHTS, EQI_BLOCK_GROUPS);
}

/* The group of weight `at`; fewer than 2^32 blocks of 32 spare a division of 64 bits. */
__device__ __forceinline__ int64_t team_group(int64_t at, const eqi_quant_desc &q)
{
    return static_cast<unsigned>(at / 32) / static_cast<unsigned>(q.group / 32);
}

/* Has this lane the first weights of a group? */
__device__ __forceinline__ bool leads_team(const eqi_quant_desc &q)
{
    return lane() * 4 % static_cast<unsigned>(q.group) == 0;
}

/* The sum over a team, by butterflies. */
__device__ __forceinline__ float team_sum(float v, const eqi_quant_desc &q)
{
    for (int m = static_cast<int>(q.group) / 8; m; m /= 2) v += __shfl_xor_sync(EQI_FULL, v, m);
    return v;
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
