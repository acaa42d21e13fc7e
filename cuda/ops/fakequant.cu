/* fakequant: w [N, K], s and z [N, G] to w^ [N, K]. Bytes moved: 4 a weight read, 2 or 4 written.
 * fakequant_bwd: 8 a weight read, 4 written (8 and 4 more with acc); without dw the reads alone. */
#include "../groups.cuh"

__global__ void __launch_bounds__(EQI_BLOCK)
    fakequant_kernel(eqi_view what, eqi_view w, eqi_view s, eqi_view z, eqi_quant_desc q)
{
    for (int64_t i = grid_first(); i < count(w); i += grid_step()) {
        int64_t n = i / width(w), k = i % width(w);
        fake f = fake_quantize(get(w, at(w, n, k)), quant_scale_clamped(s, q, n, k),
                               quant_zero(z, q, n, k), quant_top(q));
        put(what, at(what, n, k), f.value);
    }
}

eqat_status eqi_cuda_fakequant(eqi_ctx *ctx, const eqi_view *what, const eqi_view *w,
                               const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    return eqi_launch(ctx, "fakequant", fakequant_kernel, eqi_grid(eqi_cuda_count(w), EQI_BLOCK),
                      EQI_BLOCK, 0, *what, *w, *s, *z, *q);
}

/* A warp takes a group of a row: grad [rows, K] is of rows `first` on. dw may be grad itself, each
 * element of which is read and written by one lane. */
__global__ void __launch_bounds__(EQI_BLOCK, 4)
    fakequant_bwd_kernel(eqi_view dw, eqi_view ds, eqi_view dz, const float *grad, int64_t first,
                         int64_t rows, eqi_view w, eqi_view s, eqi_view z, eqi_quant_desc q,
                         bool acc)
{
    int64_t per_row = width(w) / q.group;
    for (int64_t g = first_group(); g < rows * per_row; g += group_step()) {
        int64_t n = first + g / per_row, column = g % per_row * q.group;
        float step = quant_scale_clamped(s, q, n, column), zero = quant_zero(z, q, n, column),
              sum_s = 0.0f, sum_z = 0.0f;
        for (int64_t k = column + lane(); k < column + q.group; k += EQI_WARP) {
            fake_gradient d = fake_backward(grad[(n - first) * width(w) + k], get(w, at(w, n, k)),
                                            step, zero, quant_top(q));
            sum_s += d.ds;
            sum_z += d.dz;
            if (dw.data) add(dw, at(dw, n, k), d.dw, acc);
        }
        sum_s = warp_sum(sum_s);
        sum_z = warp_sum(sum_z);
        if (lane() == 0 && ds.data) add(ds, at(ds, n, g % per_row), sum_s, acc);
        if (lane() == 0 && dz.data) add(dz, at(dz, n, g % per_row), sum_z, acc);
    }
}

eqat_status eqi_cuda_fakequant_bwd_rows(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                        const eqi_view *dz, const float *grad, int64_t first,
                                        int64_t rows, const eqi_view *w, const eqi_view *s,
                                        const eqi_view *z, const eqi_quant_desc *q, bool acc)
{
    int64_t groups = rows * (eqi_cuda_width(w) / q->group);
    return eqi_launch(ctx, "fakequant_bwd", fakequant_bwd_kernel,
                      eqi_grid(groups, EQI_BLOCK_GROUPS), EQI_BLOCK, 0, eqi_or_none(dw),
                      eqi_or_none(ds), eqi_or_none(dz), grad, first, rows, *w, *s, *z, *q, acc);
}

eqat_status eqi_cuda_fakequant_bwd(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                   const eqi_view *dz, const eqi_view *dwhat, const eqi_view *w,
                                   const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q,
                                   bool acc)
{
    return eqi_cuda_fakequant_bwd_rows(ctx, dw, ds, dz, static_cast<const float *>(dwhat->data), 0,
                                       eqi_cuda_rows(w), w, s, z, q, acc);
}
