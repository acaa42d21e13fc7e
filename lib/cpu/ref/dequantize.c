#include "cpu/ref/quant.h"

eqat_status eqi_ref_dequantize(eqi_ctx *ctx, const eqi_view *what, const eqi_view *codes,
                               const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    (void)ctx;
    for (int64_t n = 0; n < eqi_view_rows(what); n++)
        for (int64_t k = 0; k < ref_width(what); k++)
            ref_put(what, ref_at(what, n, k), ref_dequant(codes, s, z, q, n, k));
    return EQAT_OK;
}
