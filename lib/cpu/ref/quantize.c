#include "cpu/ref/quant.h"

/* A weight whose code is not a number (NaN in w, s or z; 0 / 0) gets code 0. */
eqat_status eqi_ref_quantize(eqi_ctx *ctx, const eqi_view *codes, const eqi_view *w,
                             const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    (void)ctx;
    for (int64_t n = 0; n < eqi_view_rows(w); n++)
        for (int64_t first = 0; first < ref_width(w); first += 32) {
            uint32_t word[8] = {0};
            for (int i = 0; i < 32; i++) {
                int64_t k = first + i;
                ref_fq f = ref_fake(ref_is_wide(w), ref_get(w, ref_at(w, n, k)),
                                    ref_scale(s, q, n, k), ref_zero(z, q, n, k), ref_top(q));
                uint32_t code = isnan(f.q) ? 0u : (uint32_t)f.q;
                for (int b = 0; b < q->bits; b++)
                    word[(i * q->bits + b) / 32] |= (code >> b & 1u) << (i * q->bits + b) % 32;
            }
            memcpy((uint32_t *)codes->data + ref_at(codes, n, first / 32 * q->bits), word,
                   (size_t)q->bits * sizeof *word);
        }
    return EQAT_OK;
}

eqat_status eqi_ref_quantize_minmax(eqi_ctx *ctx, const eqi_view *codes, const eqi_view *s,
                                    const eqi_view *z, const eqi_view *w, const eqi_quant_desc *q)
{
    EQI_RETURN_IF(eqi_ref_init_minmax(ctx, s, z, w, q));
    float *step = s->data;
    for (int64_t i = 0; i < eqi_view_count(s); i++) step[i] = eqi_stored_scale(step[i]);
    return eqi_ref_quantize(ctx, codes, w, s, z, q);
}
