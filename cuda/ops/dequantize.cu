/* dequantize: codes [N, K/32*bits], s and z [N, G] to w^ [N, K]. Bytes moved: bits / 8 a weight
 * read, 2 or 4 written. */
#include "../launch.cuh"
#include "../quant.cuh"

__global__ void __launch_bounds__(EQI_BLOCK)
    dequantize_kernel(eqi_view what, eqi_view codes, eqi_view s, eqi_view z, eqi_quant_desc q)
{
    for (int64_t i = grid_first(); i < count(what); i += grid_step()) {
        int64_t n = i / width(what), k = i % width(what);
        put(what, at(what, n, k), packed_value(codes, s, z, q, n, k));
    }
}

eqat_status eqi_cuda_dequantize(eqi_ctx *ctx, const eqi_view *what, const eqi_view *codes,
                                const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    return eqi_launch(ctx, "dequantize", dequantize_kernel,
                      eqi_grid(eqi_cuda_count(what), EQI_BLOCK), EQI_BLOCK, 0, *what, *codes, *s,
                      *z, *q);
}
