/* The quantizer inside the library: which linears it selects, and the freeze from trained masters
 * to packed codes. */
#ifndef EQI_QUANT_QUANTIZER_H
#define EQI_QUANT_QUANTIZER_H

#include "eqat/quantizer.h"
#include "ops/ops.h"

eqat_quantizer *eqi_quantizer_ref(eqat_quantizer *quantizer);

/* Bits and group of the linear `name` with rows of `in_features`. *selected is false when a rule
 * leaves it out; a group that does not divide the row, or a row that is no multiple of 32 (of
 * packed codes), is EQAT_INVALID_ARGUMENT naming the linear. desc->clamp is set up to 4 bits: with
 * more, useful step sizes lie below the floor of Block-AP. Callers other than Block-AP clear it. */
eqat_status eqi_quantizer_desc(const eqat_quantizer *quantizer, const char *name,
                               int64_t in_features, eqi_quant_desc *desc, bool *selected);
bool eqi_quantizer_uses_mse(const eqat_quantizer *quantizer);

/* Masters to storage: s clamped to [1e-4, 1e4] when desc->clamp, rounded to fp16; z rounded and
 * clamped to U8; codes from w and the rounded s. w F32/BF16/F16 [N, K], s and z F32 [N, G]. *packed
 * owns three new tensors, bias NULL, and a desc without clamp. */
eqat_status eqi_quant_freeze(eqi_tensor *w, eqi_tensor *s, eqi_tensor *z,
                             const eqi_quant_desc *desc, eqi_weight *packed);
/* Round to nearest: s (rounded to fp16) and z of the start minmax or mse, and codes of w
 * F32/BF16/F16 [N, K]. *packed as of eqi_quant_freeze; desc->clamp does not count. */
eqat_status eqi_quant_round_to_nearest(eqi_tensor *w, const eqi_quant_desc *desc, bool mse,
                                       eqi_weight *packed);
/* eqi_stored_step of every value, in place. */
eqat_status eqi_quant_round_s(eqi_tensor *s);
/* A new U8 tensor clamp(rne(z), 0, 2^bits - 1). */
eqat_status eqi_quant_round_z(eqi_tensor *z, int bits, eqi_tensor **out);
/* Releases what *weight refers to and clears it. */
void eqi_weight_release(eqi_weight *weight);

#endif
