/* Rounding of one weight, as the backends do it. */
#ifndef EQI_QUANT_NEAREST_H
#define EQI_QUANT_NEAREST_H

#include <math.h>

#include "backend/table.h"

/* NaN: 0. fminf and fmaxf are calls where the compiler may not forget about NaN. */
static inline float eqi_clamp_code(float code, float top)
{
    return code > 0.0f ? code < top ? code : top : 0.0f;
}

/* The code of w less the zero point, a whole number. */
static inline float eqi_nearest(const eqi_quant_desc *q, float s, float z, float w)
{
    const float top = (float)((1 << q->bits) - 1), zero = eqi_clamp_code(rintf(z), top);
    return eqi_clamp_code(rintf(w / s) + zero, top) - zero;
}

#endif
