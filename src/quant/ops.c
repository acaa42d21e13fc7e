#include "autograd/tape.h"
#include "base/entry.h"
#include "eqat/tape.h"
#include "quant/quantizer.h"

/* Public ops on quantized weights: the kinds' own rules, so that a driver trains what Block-AP
 * trains. */

eqat_status eqat_op_fakequant_linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w,
                                     eqat_tensor *s, eqat_tensor *z, eqat_tensor *bias,
                                     const eqat_quantizer *quantizer, eqat_tensor **out)
{
    if (out) *out = NULL;
    EQI_ENTER_OF(tape);
    EQI_NEED(tape->ctx, x, w, s, z, quantizer, out);
    eqi_quant quant;
    eqi_weight fake;
    EQI_RETURN_IF(eqi_quantizer_own(quantizer, w, &quant));
    EQI_RETURN_IF(quant.kind->fake(&quant, tape, w, (eqi_tensor *[EQI_KIND_TENSORS]){s, z}, &fake));
    if (bias) fake.bias = eqi_tensor_ref(bias);
    eqat_status st = eqi_op_linear(tape, x, &fake, out);
    eqi_weight_release(&fake);
    return st;
}

eqat_status eqat_op_fakequant(eqat_tape *tape, eqat_tensor *w, eqat_tensor *s, eqat_tensor *z,
                              const eqat_quantizer *quantizer, eqat_dtype dtype, eqat_tensor **out)
{
    if (out) *out = NULL;
    EQI_ENTER_OF(tape);
    EQI_NEED(tape->ctx, w, s, z, quantizer, out);
    eqi_quant quant;
    EQI_RETURN_IF(eqi_quantizer_own(quantizer, w, &quant));
    return eqi_op_fakequant(tape, w, s, z, &quant.desc, (eqi_dtype)dtype, out);
}

eqat_status eqi_packed_desc(const eqi_tensor *codes, const eqi_tensor *s, int64_t in_features,
                            eqi_quant_desc *desc)
{
    eqi_ctx *ctx = eqi_tensor_ctx(codes);
    char found[EQI_SHAPE_TEXT], beside[EQI_SHAPE_TEXT];
    const eqi_view *q = &codes->v;
    bool fit = q->ndim == 2 && s->v.ndim == 2 && s->v.shape[1] > 0 && in_features % 32 == 0 &&
        q->shape[1] * 32 % in_features == 0 && in_features % s->v.shape[1] == 0;
    if (!fit)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "codes: found %s with s %s, expected [N, K / 32 * bits] with [N, K / group "
                        "size] for rows of %lld",
                        eqi_view_shape_text(q, found, sizeof found),
                        eqi_view_shape_text(&s->v, beside, sizeof beside), (long long)in_features);
    *desc = (eqi_quant_desc){.bits = (int)(q->shape[1] * 32 / in_features),
                             .group = in_features / s->v.shape[1]};
    return eqi_quant_desc_check(ctx, desc, in_features);
}

eqat_status eqat_op_packed_linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *codes,
                                  eqat_tensor *s, eqat_tensor *z, eqat_tensor *bias,
                                  eqat_tensor **out)
{
    if (out) *out = NULL;
    EQI_ENTER_OF(tape);
    EQI_NEED(tape->ctx, x, codes, s, z, out);
    eqi_weight weight = {.codes = codes, .s = s, .z = z, .bias = bias};
    EQI_RETURN_IF(eqi_packed_desc(codes, s, x->v.shape[x->v.ndim - 1], &weight.q));
    return eqi_op_linear(tape, x, &weight, out);
}
