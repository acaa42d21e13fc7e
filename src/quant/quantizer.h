/* The quantizer inside the library: how each linear is quantized. */
#ifndef EQI_QUANT_QUANTIZER_H
#define EQI_QUANT_QUANTIZER_H

#include "eqat/quantizer.h"
#include "quant/kind.h"

eqat_quantizer *eqi_quantizer_ref(eqat_quantizer *quantizer);
eqi_ctx *eqi_quantizer_ctx(const eqat_quantizer *quantizer);
/* How many rules there are; those behind the first `count` go. */
size_t eqi_quantizer_rules(const eqat_quantizer *quantizer);
void eqi_quantizer_drop_rules(eqat_quantizer *quantizer, size_t count);

/* How the linear `name` with rows of `in_features` is quantized; kind NULL when a rule leaves it
 * out. A group that does not divide the row, or a row that is no multiple of 32 (of packed codes),
 * is EQAT_INVALID_ARGUMENT naming the linear. desc.clamp is set. */
eqat_status eqi_quantizer_choose(const eqat_quantizer *quantizer, const char *name,
                                 int64_t in_features, eqi_quant *quant);

/* How a weight [N, K] without a name, to which no rule applies, is quantized. EQAT_INVALID_ARGUMENT
 * when it has other dimensions or the group does not divide the row. */
eqat_status eqi_quantizer_own(const eqat_quantizer *quantizer, const eqi_tensor *w,
                              eqi_quant *quant);

/* What packed codes with rows of `in_features` are, from their shape and that of s.
 * EQAT_INVALID_ARGUMENT when no bits and group size give both. */
eqat_status eqi_packed_desc(const eqi_tensor *codes, const eqi_tensor *s, int64_t in_features,
                            eqi_quant_desc *desc);

#endif
