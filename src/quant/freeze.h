/* From trained masters to what a file stores. */
#ifndef EQI_QUANT_FREEZE_H
#define EQI_QUANT_FREEZE_H

#include "ops/ops.h"

/* s clamped to [2^-24, 65504] when desc->clamp, rounded to fp16; z rounded and clamped to U8; codes
 * from w and the rounded s. w F32/BF16/F16 [N, K], s and z F32 [N, G]. *packed owns three new
 * tensors, bias NULL, and a desc without clamp. */
eqat_status eqi_quant_freeze(eqi_tensor *w, eqi_tensor *s, eqi_tensor *z,
                             const eqi_quant_desc *desc, eqi_weight *packed);
/* What becomes of scales F32 when they are stored, told for the linear `name`: a warning with the
 * number of those that are clamped; EQAT_NUMERIC for NaN. w: the weights that they were made for,
 * or NULL when they were trained. For weights EQAT_NUMERIC, too, when scales are beyond 65504, by
 * which all weights of a group would be cut off, and when the least scale rounds every weight to
 * zero. */
eqat_status eqi_quant_check_scales(const char *name, const eqi_tensor *s, const eqi_tensor *w);
/* eqi_stored_scale of every value, in place. */
eqat_status eqi_quant_round_s(eqi_tensor *s);
/* A new U8 tensor clamp(rne(z), 0, 2^bits - 1). */
eqat_status eqi_quant_round_z(eqi_tensor *z, int bits, eqi_tensor **out);

#endif
