/* packed_linear, packed_linear_bwd_x, packed_linear_bwd_sz: the weight in scratch, in the dtype of
 * the activations, then linear; of bwd_sz the gradient of the weight in scratch, in chunks of its
 * rows, then the sums over groups. Bytes moved: those of linear, one read of the codes, a write and
 * a read of the weight; of bwd_sz a write and a read of the gradient in F32. */
#include "../launch.cuh"
#include "../operand.h"
#include "../packed_matvec.h"
#include "../quant.cuh"
#include "../reduce.cuh"

/* The weight [N, K] of codes */
static eqat_status expand(eqi_ctx *ctx, eqi_view *what, eqi_dtype dtype, int64_t width,
                          const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                          const eqi_quant_desc *q)
{
    EQI_CUDA_TRY(eqi_cuda_operand(ctx, what, dtype, eqi_cuda_rows(codes), width));
    return eqi_cuda_dequantize(ctx, what, codes, s, z, q);
}

eqat_status eqi_cuda_packed_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                   const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                   const eqi_view *bias, const eqi_quant_desc *q)
{
    if (eqi_cuda_packed_matvec_fits(x, codes, s, z, q))
        return eqi_cuda_packed_matvec(ctx, y, x, codes, s, z, bias, q);
    eqi_view what;
    EQI_CUDA_TRY(expand(ctx, &what, x->dtype, eqi_cuda_width(x), codes, s, z, q));
    return eqi_cuda_linear(ctx, y, x, &what, bias);
}

eqat_status eqi_cuda_packed_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                         const eqi_view *codes, const eqi_view *s,
                                         const eqi_view *z, const eqi_quant_desc *q, bool acc)
{
    eqi_view what;
    EQI_CUDA_TRY(expand(ctx, &what, dy->dtype, eqi_cuda_width(dx), codes, s, z, q));
    return eqi_cuda_linear_bwd_x(ctx, dx, dy, &what, acc);
}

constexpr int WARPS = EQI_BLOCK / EQI_WARP;

/* w^ = (code - z') s: ds[n, g] (+)= sum grad (code - z'), dz[n, g] (+)= -s sum grad, straight
 * through the rounding and clamp of z; a warp for each group of rows first to first + n_rows,
 * grad[n_rows, K]. */
__global__ void __launch_bounds__(EQI_BLOCK)
    group_sums_kernel(eqi_view ds, eqi_view dz, const float *grad, int64_t first, int64_t n_rows,
                      eqi_view codes, eqi_view s, eqi_view z, eqi_quant_desc q, bool acc)
{
    const int64_t groups = width(s), n_all = n_rows * groups;
    const int lane = threadIdx.x % EQI_WARP, warp = threadIdx.x / EQI_WARP;
    for (int64_t i0 = static_cast<int64_t>(blockIdx.x) * WARPS; i0 < n_all;
         i0 += static_cast<int64_t>(gridDim.x) * WARPS) {
        /* Warps beyond the last group sum up nothing. */
        int64_t i = i0 + warp, g = i % groups, n = first + i / groups,
                k0 = i < n_all ? g * q.group : 0, k1 = i < n_all ? k0 + q.group : 0;
        float zero = i < n_all ? quant_zero(z, q, n, k0) : 0.0f, sum_s = 0.0f, sum = 0.0f;
        for (int64_t k = k0 + lane; k < k1; k += EQI_WARP) {
            float d = grad[(n - first) * groups * q.group + k];
            sum_s += d * (static_cast<float>(packed_code(codes, q.bits, n, k)) - zero);
            sum += d;
        }
        sum_s = warp_sum(sum_s);
        sum = warp_sum(sum);
        if (lane || i >= n_all) continue;
        add(ds, at4(ds, 0, 0, n, g), sum_s, acc);
        if (dz.data) add(dz, at4(dz, 0, 0, n, g), -quant_scale(s, q, n, k0) * sum, acc);
    }
}

eqat_status eqi_cuda_packed_linear_bwd_sz(eqi_ctx *ctx, const eqi_view *ds, const eqi_view *dz,
                                          const eqi_view *dy, const eqi_view *x,
                                          const eqi_view *codes, const eqi_view *s,
                                          const eqi_view *z, const eqi_quant_desc *q, bool acc)
{
    const int64_t rows = eqi_cuda_rows(codes), each = eqi_cuda_width(x) * 4,
                  chunk = eqi_cuda_chunk(rows, each, EQI_CUDA_CHUNK_BYTES);
    void *data = nullptr;
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_RESULT, static_cast<size_t>(chunk * each), &data));
    float *grad = static_cast<float *>(data);
    for (int64_t first = 0; first < rows; first += chunk) {
        int64_t n = rows - first < chunk ? rows - first : chunk;
        EQI_CUDA_TRY(eqi_cuda_weight_rows_grad(ctx, grad, first, n, dy, x));
        EQI_CUDA_TRY(eqi_launch(ctx, "packed_linear_bwd_sz", group_sums_kernel,
                                eqi_grid(n * eqi_cuda_width(s), WARPS), EQI_BLOCK, 0, *ds,
                                eqi_or_none(dz), grad, first, n, *codes, *s, *z, *q, acc));
    }
    return EQAT_OK;
}
