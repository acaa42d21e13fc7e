/* Codes and scales by coordinate descent: Behdin et al., QuantEase, for codes; for scales the same
 * with a group's in place of one. */
#ifndef EQI_QUANT_DESCENT_H
#define EQI_QUANT_DESCENT_H

#include "ops/ops.h"

/* Lowers |(W - W^) X^T|^2 where W^ = s (c - z): each code to its best one beside all others, then
 * each scale likewise, at most by a factor of two at a time. On the device: moments F32 [K, K],
 * X^T X; errors F32 [N, K], W - W^ before. On the host: masters w [N][K], of which c is what they
 * are rounded to; s and z [N][G]. */
eqat_status eqi_descend(const eqi_tensor *moments, const eqi_tensor *errors, float *w, float *s,
                        const float *z, const eqi_quant_desc *desc);

#endif
