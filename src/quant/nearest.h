/* Rounding of one weight, as the backends do it. */
#ifndef EQI_QUANT_NEAREST_H
#define EQI_QUANT_NEAREST_H

#include <math.h>

#include "backend/table.h"

/* The code of w less the zero point, a whole number. */
static inline float eqi_nearest(const eqi_quant_desc *q, float s, float z, float w)
{
    const float top = (float)((1 << q->bits) - 1), zero = fminf(fmaxf(rintf(z), 0.0f), top);
    return fminf(fmaxf(rintf(w / s) + zero, 0.0f), top) - zero;
}

#endif
