/* What scales are stored as. s is a scale and z a zero point, as in docs/numerics.md, here and in
 * all kernels. */
#ifndef EQI_TENSOR_QUANTIZED_H
#define EQI_TENSOR_QUANTIZED_H

#include <math.h>

#include "backend/table.h"
#include "base/half.h"

/* s as a file stores it: fp16, neither infinite nor, unless s is, zero, which would lose the group;
 * a NaN stays one. */
static inline float eqi_stored_scale(float s)
{
    float r = eqi_f16_to_f32(eqi_f32_to_f16(s));
    if (r == 0.0f) return s == 0.0f ? s : copysignf(EQI_SCALE_MIN, s);
    return r > EQI_SCALE_MAX ? EQI_SCALE_MAX : r < -EQI_SCALE_MAX ? -EQI_SCALE_MAX : r;
}

#endif
