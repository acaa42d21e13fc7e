/* Masters that start from error feedback: Frantar et al., GPTQ, with scales that are given. */
#ifndef EQI_QUANT_FEEDBACK_H
#define EQI_QUANT_FEEDBACK_H

#include "ops/ops.h"

/* Whether the library was built with LAPACK. */
bool eqi_feedback_available(void);

/* Changes w F32 [N, K] to the values that rounding to s and z [N, G] finds best one after another:
 * inputs in the order of falling moments, each one's rounding error made up for by those that
 * follow, as the moments [K, K] of the inputs say, with 1% of their mean square added to the
 * diagonal. Without any moments w stays. EQAT_NUMERIC when they are not finite. */
eqat_status eqi_feedback(eqi_tensor *w, const eqi_tensor *moments, const eqi_tensor *s,
                         const eqi_tensor *z, const eqi_quant_desc *desc);

#endif
