/** @file
 * libeqat: evaluation.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_EVAL_H
#define EQAT_EVAL_H

#include "eqat/train.h"

#ifdef __cplusplus
extern "C" {
#endif

/** How to evaluate. */
typedef struct eqat_eval_options {
    size_t struct_size;        /**< set by eqat_eval_options_init */
    int64_t batch_size;        /**< windows at once; default 1.  The result does not depend on it */
    int64_t max_windows;       /**< 0 (default): all */
    eqat_progress_fn progress; /**< called for every batch at every block, and for every window at
                              the end; NULL (default): none */
    void *progress_user;       /**< handed to progress */
} eqat_eval_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_eval_options_init(eqat_eval_options *options, size_t struct_size);

/** What was measured. */
typedef struct eqat_perplexity {
    size_t struct_size; /**< set by the caller */
    double perplexity;  /**< exp(nll / tokens) */
    double nll;         /**< sum of -ln p */
    int64_t tokens;     /**< predicted tokens: windows * (seq_len - 1), or the labels of records */
    int64_t windows;    /**< of seq_len tokens */
} eqat_perplexity;

/** Perplexity over the training windows of `data` (open it with consecutive sampling, train_size 0
 * for all of them, val_size 0 and no shuffle), as GPTQ and the paper measure: independent windows,
 * every token but a window's first is predicted.  Of records, labels that are not masked are
 * predicted, and positions and segments count.  The model is evaluated as it is, quantized or not,
 * also while a job has it (eqat_block_ap_begin tells what it then is), and does not change. Windows
 * move through one block after the other, as many at a time as make 256 MiB of activations, so that
 * a block is read once for all of them.  options may be NULL; *result is the caller's, who sets
 * struct_size.  Threads: as the context; progress runs on the thread that called.  Errors:
 * EQAT_INVALID_ARGUMENT (a seq_len of 1, an id, label or position beyond the model's, embeddings of
 * another width, records with neither ids nor labels, no label at all), EQAT_NUMERIC (a loss is not
 * finite), those of eqat_data_sample and of reading weights (eqat_model), EQAT_CANCELLED; *result
 * is then zeros. */
EQAT_API eqat_status eqat_eval_perplexity(eqat_model *model, eqat_data *data,
                                          const eqat_eval_options *options,
                                          eqat_perplexity *result);

#ifdef __cplusplus
}
#endif
#endif
