/* fq_linear, fq_linear_bwd_x, fq_linear_bwd_w: w^ in scratch, in the dtype of the activations, then
 * linear; the gradient of w^ in scratch, in chunks of rows of w, then what fakequant_bwd makes of
 * it. Bytes moved: those of linear, one read of w, a write and a read of w^; of bwd_w a write and a
 * read of the gradient in F32. */
#include "../operand.h"

/* w^ of w [N, K] */
static eqat_status expand(eqi_ctx *ctx, eqi_view *what, eqi_dtype dtype, const eqi_view *w,
                          const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    EQI_CUDA_TRY(eqi_cuda_operand(ctx, what, dtype, eqi_cuda_rows(w), eqi_cuda_width(w)));
    return eqi_cuda_fakequant(ctx, what, w, s, z, q);
}

eqat_status eqi_cuda_fq_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                               const eqi_view *w, const eqi_view *s, const eqi_view *z,
                               const eqi_view *bias, const eqi_quant_desc *q)
{
    eqi_view what;
    EQI_CUDA_TRY(expand(ctx, &what, x->dtype, w, s, z, q));
    return eqi_cuda_linear(ctx, y, x, &what, bias);
}

eqat_status eqi_cuda_fq_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                     const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                     const eqi_quant_desc *q, bool acc)
{
    eqi_view what;
    EQI_CUDA_TRY(expand(ctx, &what, dy->dtype, w, s, z, q));
    return eqi_cuda_linear_bwd_x(ctx, dx, dy, &what, acc);
}

eqat_status eqi_cuda_fq_linear_bwd_w(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                     const eqi_view *dz, const eqi_view *dy, const eqi_view *x,
                                     const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                     const eqi_quant_desc *q, bool acc)
{
    return eqi_cuda_weight_grad(ctx, dy, x, [&](float *grad, int64_t first, int64_t n) {
        return eqi_cuda_fakequant_bwd_rows(ctx, dw, ds, dz, grad, first, n, w, s, z, q, acc);
    });
}
