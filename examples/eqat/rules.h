/* --rule and --skip: which linears are quantized otherwise than the rest, or not at all. */
#ifndef EQAT_TOOL_RULES_H
#define EQAT_TOOL_RULES_H

#include "tool.h"

/* Holds every pattern's value against its form. -1, or 2 after telling why not. */
int rules_check(const flag_values *given);
/* The same where bits are chosen by a budget: 2 unless all are --skip. */
int rules_check_skips(const flag_values *given);
/* Into the quantizer, whose own options are `base`; a pattern that matches no linear of the model
 * is an error. */
eqat_status rules_add(tool *t, const flag_values *given, const eqat_quantizer_options *base,
                      eqat_model *model, eqat_quantizer *quantizer);
json_t *rules_json(const flag_values *given, const eqat_quantizer_options *base);

#endif
