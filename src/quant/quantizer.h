/* The quantizer inside the library: how each linear is quantized. */
#ifndef EQI_QUANT_QUANTIZER_H
#define EQI_QUANT_QUANTIZER_H

#include "eqat/quantizer.h"
#include "quant/kind.h"

eqat_quantizer *eqi_quantizer_ref(eqat_quantizer *quantizer);

/* How the linear `name` with rows of `in_features` is quantized; kind NULL when a rule leaves it
 * out. A group that does not divide the row, or a row that is no multiple of 32 (of packed codes),
 * is EQAT_INVALID_ARGUMENT naming the linear. desc.clamp is set up to 4 bits: with more, useful
 * step sizes lie below the floor of Block-AP. */
eqat_status eqi_quantizer_choose(const eqat_quantizer *quantizer, const char *name,
                                 int64_t in_features, eqi_quant *quant);

#endif
