/* packed_linear, packed_linear_bwd_x, packed_linear_bwd_sz: the weight in scratch, in the dtype of
 * the activations, then linear (few rows of x: packed_matvec.cu); of bwd_sz the gradient of the
 * weight in scratch, in chunks of its rows, then the sums over groups. Bytes moved: those of
 * linear, one read of the codes, a write and a read of the weight; of bwd_sz a write and a read of
 * the gradient in F32, 8 a weight, and of the codes, bits / 8. */
#include "../groups.cuh"
#include "../operand.h"
#include "../packed.cuh"
#include "../packed_matvec.h"
#include "../vector.cuh"

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

/* w^ = (code - z') s: ds[n, g] (+)= sum grad (code - z'), dz[n, g] (+)= -s sum grad, straight
 * through the rounding and clamp of z; a warp for each group of rows first to first + n_rows,
 * grad[n_rows, K]. */
__global__ void __launch_bounds__(EQI_BLOCK)
    group_sums_kernel(eqi_view ds, eqi_view dz, const float *grad, int64_t first, int64_t n_rows,
                      eqi_view codes, eqi_view s, eqi_view z, eqi_quant_desc q, bool acc)
{
    const int64_t groups = width(s);
    for (int64_t i = first_group(); i < n_rows * groups; i += group_step()) {
        int64_t g = i % groups, n = first + i / groups, column = g * q.group;
        float zero = quant_zero(z, q, n, column), sum_s = 0.0f, sum = 0.0f;
        for (int64_t k = column + lane(); k < column + q.group; k += EQI_WARP) {
            float d = grad[(n - first) * groups * q.group + k];
            sum_s += d * (static_cast<float>(packed_code(codes, q.bits, n, k)) - zero);
            sum += d;
        }
        sum_s = warp_sum(sum_s);
        sum = warp_sum(sum);
        if (lane()) continue;
        add(ds, at4(ds, 0, 0, n, g), sum_s, acc);
        if (dz.data) add(dz, at4(dz, 0, 0, n, g), -quant_scale(s, q, n, column) * sum, acc);
    }
}

/* The same of groups with teams: `weights` of them from group `first` on; dz may be NULL. */
__global__ void __launch_bounds__(EQI_BLOCK)
    group_sums_wide_kernel(float *ds, float *dz, const float *grad, int64_t first, int64_t weights,
                           const unsigned *codes, eqi_view s, eqi_view z, eqi_quant_desc q,
                           bool acc)
{
    for (int64_t i = first_group(); i * EQI_WARP_WEIGHTS < weights; i += group_step()) {
        const int64_t at = i * EQI_WARP_WEIGHTS + lane() * 4, g = first + team_group(at, q);
        const bool there = at < weights;
        float sum_s = 0.0f, sum = 0.0f, scale = 0.0f;
        if (there) {
            code_terms t = terms_of(s, z, g, quant_top(q));
            unsigned long long held = codes_from<4>(codes, q.bits, first * q.group + at);
            pack<4> d = load_pack<4>(grad + at);
            EQI_UNROLL
            for (int j = 0; j < 4; j++) {
                unsigned code = static_cast<unsigned>(held >> j * q.bits) & ((1u << q.bits) - 1u);
                sum_s += d.v[j] * offset_of(code, t);
                sum += d.v[j];
            }
            scale = t.scale;
        }
        sum_s = team_sum(sum_s, q);
        sum = team_sum(sum, q);
        if (!there || !leads_team(q)) continue;
        ds[g] = acc ? ds[g] + sum_s : sum_s;
        if (dz) dz[g] = acc ? dz[g] - scale * sum : -scale * sum;
    }
}

static eqat_status group_sums(eqi_ctx *ctx, const eqi_view *ds, const eqi_view *dz,
                              const float *grad, int64_t first, int64_t n, const eqi_view *codes,
                              const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q,
                              bool acc)
{
    const int64_t groups = eqi_cuda_width(s);
    if (eqi_has_teams(q) && eqi_cuda_packs(ds, 4) && (!dz || eqi_cuda_packs(dz, 4)) &&
        eqi_cuda_packs(codes, 4) && eqi_cuda_packs(s, 4) && eqi_cuda_packs(z, 1))
        return eqi_launch(
            ctx, "packed_linear_bwd_sz", group_sums_wide_kernel,
            eqi_team_grid(n * groups * q->group), EQI_BLOCK, 0, static_cast<float *>(ds->data),
            dz ? static_cast<float *>(dz->data) : nullptr, grad, first * groups,
            n * groups * q->group, static_cast<const unsigned *>(codes->data), *s, *z, *q, acc);
    return eqi_launch(ctx, "packed_linear_bwd_sz", group_sums_kernel,
                      eqi_grid(n * groups, EQI_BLOCK_GROUPS), EQI_BLOCK, 0, *ds, eqi_or_none(dz),
                      grad, first, n, *codes, *s, *z, *q, acc);
}

eqat_status eqi_cuda_packed_linear_bwd_sz(eqi_ctx *ctx, const eqi_view *ds, const eqi_view *dz,
                                          const eqi_view *dy, const eqi_view *x,
                                          const eqi_view *codes, const eqi_view *s,
                                          const eqi_view *z, const eqi_quant_desc *q, bool acc)
{
    return eqi_cuda_weight_grad(ctx, dy, x, [&](const float *grad, int64_t first, int64_t n) {
        return group_sums(ctx, ds, dz, grad, first, n, codes, s, z, q, acc);
    });
}
