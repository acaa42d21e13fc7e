/** @file
 * libeqat: what long calls tell while they run.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_PROGRESS_H
#define EQAT_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What a progress callback sees; valid during the call. */
typedef struct eqat_progress {
    size_t struct_size; /**< of the library's struct */
    const char *phase;  /**< "block-ap", "e2e-qp", "eval", "rtn", "save" */
    int64_t block;      /**< of Block-AP and RTN, from 0; 0 elsewhere */
    int64_t blocks;     /**< of Block-AP and RTN; 0 elsewhere */
    int64_t epoch;      /**< from 0 */
    int64_t epochs;     /**< of the block, or of E2E-QP */
    int64_t step;     /**< done so far within the whole job, those that an early stop left out, too;
                         of RTN linears, of saving blocks and what stands before and behind them */
    int64_t steps;    /**< of the whole job */
    double loss;      /**< of this step, in eval the mean so far; NaN when there is none */
    double val_loss;  /**< of the validation behind this step, after every epoch at least; NaN
                       elsewhere */
    double lr;        /**< the (first) rate of this step */
    double grad_norm; /**< of E2E-QP; NaN elsewhere */
    const char *work; /**< "step"; in a call of `between` what comes between two steps: of Block-AP
                         "embed" (the streams begin), "load" (the block's weights are read),
                         "moments" (of the inputs of a block's linears), "start" (initial scales and
                         zero points are sought), "targets" and "inputs" (the full-precision and the
                         quantized stream move through the block), "validate", "resume" (the streams
                         move again, behind a load); of E2E-QP "load" (blocks are read, and at last
                         the ends), "accumulate", "validate" and "freeze" (what was trained is
                         rounded); of saving a GGUF file "types" (they are chosen), of all saving
                         "sync" (what was written goes to the disk) */
    int64_t batch;    /**< batches of that work done so far, of "load" and "start" linears (of
                         E2E-QP blocks), of "types" blocks, of "freeze" tensors; 0 of a step */
    int64_t batches;  /**< in all; 0 of a step */
} eqat_progress;

/** Returns non-zero to cancel: the call then returns EQAT_CANCELLED with everything consistent
 * (blocks that were finished stay quantized, the one in work is as before). */
typedef int32_t (*eqat_progress_fn)(void *user, const eqat_progress *progress);

#ifdef __cplusplus
}
#endif
#endif
