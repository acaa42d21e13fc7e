/** @file
 * libeqat: uniform group-wise quantization.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_QUANTIZER_H
#define EQAT_QUANTIZER_H

#include "eqat/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/** How weights become codes: q = clamp(rne(w / s) + z, 0, 2^bits - 1), w^ = (q - z) * s, with one
 * scale s and zero point z for every group of consecutive inputs of a row (paper section 3.1).
 * Immutable once used.  Threads: as the context. */
typedef struct eqat_quantizer eqat_quantizer;

/** Where scales and zero points start. */
typedef enum eqat_init {
    EQAT_INIT_MINMAX = 0, /**< the range of the group, made to include 0 */
    EQAT_INIT_MSE = 1,    /**< scale and zero point of least squared error */
    EQAT_INIT_WMSE = 2,   /**< the same, each weight's error weighted by the second moment of its
                             input over the calibration samples; as MSE where there are none, in
                             rounding to nearest */
    EQAT_INIT_GPTQ = 3,   /**< the same, and Block-AP's weights start from GPTQ's error feedback:
                             each one's rounding error is made up for by the weights that follow.
                             Without epochs that is GPTQ, with 40% of each input's square, and 1%
                             of their mean, added to the diagonal of X^T X */
    EQAT_INIT_DESCENT = 4 /**< the same, and then coordinate descent (QuantEase): each weight's code
                             goes to its best value beside all others, and each group's scale too.
                             Added to the diagonal: twice each input's square */
} eqat_init;

/** A fixed zero point costs nothing in storage or speed and makes the code symmetric, which more
 * engines read. */
typedef enum eqat_zero_point {
    EQAT_ZERO_POINT_TRAINED = 0, /**< starts as init says; Block-AP trains it */
    EQAT_ZERO_POINT_FIXED = 1    /**< 2^(bits-1) - 1 or 2^(bits-1), whichever of them, with its best
                                    scale, gives the group less squared error (whatever init
                                    says but for its weights); it never trains */
} eqat_zero_point;

/** How linears are quantized. */
typedef struct eqat_quantizer_options {
    size_t struct_size; /**< set by eqat_quantizer_options_init */
    int32_t bits;       /**< 2..8; default 2 */
    int32_t group_size; /**< 16, 32, 64, 128, 256, or -1: the whole row; default 64; must divide the
                           row */
    int32_t init;       /**< eqat_init; default EQAT_INIT_MINMAX */
    int32_t zero_point; /**< eqat_zero_point; default EQAT_ZERO_POINT_TRAINED */
} eqat_quantizer_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_quantizer_options_init(eqat_quantizer_options *options, size_t struct_size);
/** options may be NULL.  Errors: EQAT_INVALID_ARGUMENT (bits or group_size is none of the
 * above). */
EQAT_API eqat_status eqat_quantizer_create(eqat_context *context, eqat_quantizer **out,
                                           const eqat_quantizer_options *options);
EQAT_API void eqat_quantizer_free(eqat_quantizer *quantizer); /**< NULL is fine */

/** Linears whose name matches `pattern` (shell wildcards: "*.down_proj", "model.layers.0.*") are
 * quantized with these options instead of the quantizer's own (mixed precision); NULL leaves them
 * as they are.  The last matching rule counts; pattern and options are copied.
 * Errors: those of create, with the pattern in front. */
EQAT_API eqat_status eqat_quantizer_add_rule(eqat_quantizer *quantizer, const char *pattern,
                                             const eqat_quantizer_options *options);
/** Whether a linear of that name is quantized; then *options (NULL is fine; the caller sets
 * struct_size) receives how. */
EQAT_API bool eqat_quantizer_lookup(const eqat_quantizer *quantizer, const char *name,
                                    eqat_quantizer_options *options);

/** The next five work on one tensor with the quantizer's own bits and group size (no rules) and
 * give new tensors that the caller frees.  Values are not checked to be finite.  Shapes that do not
 * fit: a weight that is not of two dimensions, a group that does not divide its row, a row that is
 * no multiple of 32 where there are codes, scales or zero points that are not [N, G]. */
/** Initial scales s and zero points z, F32 [N, G], for w F32 [N, K]; scales are rounded to what a
 * file stores (fp16) when round_s.  moments: sums or means of the squares of the K inputs, F32 [K],
 * or of their products [K, K], finite, the squares not negative, which EQAT_INIT_WMSE and those
 * behind it read; NULL: 1 each.  Errors:
 * EQAT_INVALID_ARGUMENT (shapes that do not fit, a dtype). */
EQAT_API eqat_status eqat_quantizer_init(const eqat_quantizer *quantizer, eqat_tensor *w,
                                         eqat_tensor *moments, bool round_s, eqat_tensor **s,
                                         eqat_tensor **z);
/** From trained masters to what a file stores, to the bytes what Block-AP does at the end of a
 * block: *stored_s is s, clamped to what fp16 stores (2^-24 to 65504) and rounded to it, F32 [N,
 * G]; *stored_z is z rounded and clamped to 0..2^bits - 1, U8 [N, G]; *codes as of pack, from w and
 * these.  w F32 [N, K], K a multiple of 32; s and z F32 [N, G].  eqat_model_set_linear puts all
 * three into a model.  Errors: EQAT_INVALID_ARGUMENT (shapes that do not fit, a dtype). */
EQAT_API eqat_status eqat_quantizer_freeze(const eqat_quantizer *quantizer, eqat_tensor *w,
                                           eqat_tensor *s, eqat_tensor *z, eqat_tensor **stored_s,
                                           eqat_tensor **stored_z, eqat_tensor **codes);
/** Packed codes, U32 [N, K / 32 * bits]: blocks of 32 inputs of a row in `bits` little-endian
 * words, code i at bits [i * bits, (i + 1) * bits).  w F32, BF16 or F16 [N, K], K a
 * multiple of 32; s F32 and z F32 or U8, [N, G].  Errors: EQAT_INVALID_ARGUMENT (shapes that do not
 * fit, a dtype). */
EQAT_API eqat_status eqat_quantizer_pack(const eqat_quantizer *quantizer, eqat_tensor *w,
                                         eqat_tensor *s, eqat_tensor *z, eqat_tensor **codes);
/** Round to nearest in one call, which for minmax reads w once: the initial s rounded to fp16, F32
 * [N, G], z U8 [N, G], and codes as of pack.  w F32, BF16 or F16 [N, K], K a multiple of 32.  A
 * group with a weight that is not finite gets s NaN, z 0, codes 0.  Errors: EQAT_INVALID_ARGUMENT
 * (shapes that do not fit, a dtype). */
EQAT_API eqat_status eqat_quantizer_quantize(const eqat_quantizer *quantizer, eqat_tensor *w,
                                             eqat_tensor **s, eqat_tensor **z, eqat_tensor **codes);
/** w^ [N, K] in dtype (F32 or BF16) from packed codes U32 [N, K / 32 * bits] with s F32 and z F32
 * or U8, [N, G].  Errors: EQAT_INVALID_ARGUMENT (shapes that do not fit, a dtype). */
EQAT_API eqat_status eqat_quantizer_dequantize(const eqat_quantizer *quantizer, eqat_tensor *codes,
                                               eqat_tensor *s, eqat_tensor *z, eqat_dtype dtype,
                                               eqat_tensor **out);

#ifdef __cplusplus
}
#endif
#endif
