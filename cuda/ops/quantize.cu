/* quantize: w [N, K], s and z [N, G] to codes [N, K/32*bits]. Bytes moved: 2 or 4 a weight read,
 * bits / 8 written. quantize_minmax: init_minmax, then that. */
#include "../launch.cuh"
#include "../quant.cuh"

/* A thread takes 32 weights of a row, whose codes fill `bits` words. A weight whose code is not a
 * number (NaN in w, s or z; 0 / 0) gets code 0. */
__global__ void __launch_bounds__(EQI_BLOCK)
    quantize_kernel(eqi_view codes, eqi_view w, eqi_view s, eqi_view z, eqi_quant_desc q)
{
    int64_t per_row = width(w) / 32;
    for (int64_t i = grid_first(); i < rows(w) * per_row; i += grid_step()) {
        int64_t n = i / per_row, first = i % per_row * 32;
        unsigned *word = static_cast<unsigned *>(codes.data) + at(codes, n, first / 32 * q.bits);
        unsigned long long held = 0; /* codes not written yet, the first of them lowest */
        int filled = 0;
        for (int64_t k = first; k < first + 32; k++) {
            float code = fake_quantize(get(w, at(w, n, k)), quant_scale(s, q, n, k),
                                       quant_zero(z, q, n, k), quant_top(q))
                             .code;
            if (code == code) held |= static_cast<unsigned long long>(code) << filled;
            filled += q.bits;
            if (filled < 32) continue;
            *word++ = static_cast<unsigned>(held);
            held >>= 32;
            filled -= 32;
        }
    }
}

eqat_status eqi_cuda_quantize(eqi_ctx *ctx, const eqi_view *codes, const eqi_view *w,
                              const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    return eqi_launch(ctx, "quantize", quantize_kernel, eqi_grid(eqi_cuda_count(w) / 32, EQI_BLOCK),
                      EQI_BLOCK, 0, *codes, *w, *s, *z, *q);
}

/* eqi_stored_scale: fp16, neither infinite nor, unless s is, zero; a NaN stays one. */
static __device__ __forceinline__ float stored_scale(float s)
{
    float r = as(EQI_F16, s);
    if (r == 0.0f) return s == 0.0f ? s : copysignf(EQI_SCALE_MIN, s);
    return clamp(r, -EQI_SCALE_MAX, EQI_SCALE_MAX);
}

__global__ void __launch_bounds__(EQI_BLOCK) store_scales_kernel(eqi_view s)
{
    for (int64_t i = grid_first(); i < count(s); i += grid_step())
        put(s, elem(s, i), stored_scale(get(s, elem(s, i))));
}

eqat_status eqi_cuda_quantize_minmax(eqi_ctx *ctx, const eqi_view *codes, const eqi_view *s,
                                     const eqi_view *z, const eqi_view *w, const eqi_quant_desc *q)
{
    EQI_CUDA_TRY(eqi_cuda_init_minmax(ctx, s, z, w, q));
    EQI_CUDA_TRY(eqi_launch(ctx, "quantize_minmax", store_scales_kernel,
                            eqi_grid(eqi_cuda_count(s), EQI_BLOCK), EQI_BLOCK, 0, *s));
    return eqi_cuda_quantize(ctx, codes, w, s, z, q);
}
