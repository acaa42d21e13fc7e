/** @file
 * libeqat: bits by sensitivity.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_ALLOCATE_H
#define EQAT_ALLOCATE_H

#include "eqat/data.h"
#include "eqat/model.h"
#include "eqat/progress.h"
#include "eqat/quantizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/** What may be spent, and on how much text it is measured where. */
typedef struct eqat_allocate_options {
    size_t struct_size;          /**< set by eqat_allocate_options_init */
    double bits_per_weight;      /**< the budget, with scales and zero points, over all linears that
                                    the quantizer selects: in groups of 64 all of them at 2 bits
                                    take 2.28, at 3 bits 3.30, at 4 bits 4.31; 0 until it is set */
    int64_t sensitivity_windows; /**< training samples that are looked at; default 2 */
    eqat_progress_fn progress;   /**< called for every block that perturbed streams pass, phase
                                    "allocate"; NULL (default): none */
    void *progress_user;         /**< handed to progress */
} eqat_allocate_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_allocate_options_init(eqat_allocate_options *options, size_t struct_size);

/** Gives each linear that the quantizer selects 2, 3 or 4 bits, where they are worth most, as one
 * more rule of its name: the sum of bits is within the budget, and the expected divergence of the
 * model's predictions the least.  Linears of the same inputs (q, k and v; gate and up) have the
 * same bits, as servers that fuse them demand.  Group size, start and zero points are the
 * quantizer's own, or those of its rules, whose bits do not count.
 *
 * How: one such set of linears after the other is rounded to 3 bits, the rest stays full precision,
 * and what that does to the logits is measured: the mean over positions of sum_v p_v (ln p_v - ln
 * q_v) on the first `sensitivity_windows` training samples.  At other bits it is expected to change
 * as the squared error of the weights does.  A block is passed by the perturbed streams of all sets
 * before it: time grows with the square of the number of blocks.  In memory are one block in F32,
 * one in the compute dtype, the ends, and a stream for every set of a block.
 *
 * The model does not change.  Threads: as the context.  Errors: EQAT_INVALID_ARGUMENT (a budget
 * below what 2 bits take, a linear that is quantized already, a group that does not fit, no linear
 * selected, a job that has the model, a model of another context, samples of one of several ranks:
 * all must choose the same bits, from the same samples), EQAT_NUMERIC (a weight is not
 * finite), those of eqat_data_sample and of reading weights, EQAT_CANCELLED; the quantizer is then
 * as before. */
EQAT_API eqat_status eqat_quantizer_allocate(eqat_quantizer *quantizer, eqat_model *model,
                                             eqat_data *data, const eqat_allocate_options *options);

#ifdef __cplusplus
}
#endif
#endif
