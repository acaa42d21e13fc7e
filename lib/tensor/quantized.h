/* Uniformly quantized weights: how they are grouped, what their scales are stored as, and where
 * their codes lie. s is a scale and z a zero point, as in docs/numerics.md, here and in all
 * kernels. */
#ifndef EQI_TENSOR_QUANTIZED_H
#define EQI_TENSOR_QUANTIZED_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/half.h"

/* Uniform quantization of a weight [N, K] in groups of `group` inputs (group divides K; G = K /
 * group). */
typedef struct eqi_quant_desc {
    int bits;      /* 2..8 */
    int64_t group; /* >= 1 */
    bool clamp;    /* fake quantization: s to what is stored (Block-AP); false: s as it is */
    bool middle;   /* init_mse: z is 2^(bits-1) - 1 or 2^(bits-1) */
} eqi_quant_desc;

/* The positive scales that fp16 stores. */
#define EQI_SCALE_MIN 0x1p-24f
#define EQI_SCALE_MAX 65504.0f
/* Of a group of zeros, which any scale represents. */
#define EQI_SCALE_OF_ZEROS 1e-4f

/* s as a file stores it: fp16, neither infinite nor, unless s is, zero, which would lose the group;
 * a NaN stays one. */
static inline float eqi_stored_scale(float s)
{
    float r = eqi_f16_to_f32(eqi_f32_to_f16(s));
    if (r == 0.0f) return s == 0.0f ? s : copysignf(EQI_SCALE_MIN, s);
    return r > EQI_SCALE_MAX ? EQI_SCALE_MAX : r < -EQI_SCALE_MAX ? -EQI_SCALE_MAX : r;
}

/* Packed codes: per row of the weight, blocks of 32 inputs in `bits` little-endian 32-bit words,
 * code i of a block at bits [i*bits, (i+1)*bits) of that stream. q is U32 [N, K/32*bits]; K is a
 * multiple of 32. */

#endif
