/** @file
 * libeqat: Block-AP and E2E-QP.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_TRAIN_H
#define EQAT_TRAIN_H

#include "eqat/data.h"
#include "eqat/model.h"
#include "eqat/optimizer.h"
#include "eqat/progress.h"

#ifdef __cplusplus
extern "C" {
#endif

/** @file
 * Jobs hold references on their model, quantizer and data, which may be freed before them.
 * Threads: as the context; progress callbacks run on the thread that called.  create, begin, step,
 * validate, accumulate, finish of a block and run look for eqat_context_cancel and return
 * EQAT_CANCELLED. */

/* ---- Block-AP (paper section 3.2): train all of one block after another ---- */

/** A loss of the caller's: y (recorded on the tape) and target, both [batch, T, H] in the compute
 * dtype -> *loss F32 [1], made of ops on the tape; the library frees it.  Called for every step,
 * and for every batch of a validation with recording off; EQAT_OK or the status that the step
 * returns. */
typedef eqat_status (*eqat_block_loss_fn)(void *user, eqat_tape *tape, eqat_tensor *y,
                                          eqat_tensor *target, eqat_tensor **loss);

/** Replaces sums [count] by their sums over all ranks; every rank calls it equally often and in the
 * same order.  EQAT_OK or the status that the caller's call returns. */
typedef eqat_status (*eqat_reduce_fn)(void *user, double *sums, size_t count);

/** @file
 * Several ranks train one model, each on samples of its own (rank and world of eqat_data_options),
 * when all of them give
 *   gradient  that replaces every gradient by its mean over ranks,
 *   reduce    that adds up losses and numbers of samples or labels, from which the losses of epochs
 *             (Block-AP) or steps (E2E-QP), early stops and errors of losses that are not finite
 *             follow, so that all ranks decide alike, and what a micro-batch of E2E-QP weighs, so
 *             that every label counts the same whichever rank has it; and second moments of inputs,
 *             as many as a linear has, where scales start from them (EQAT_INIT_WMSE; of
 *             EQAT_INIT_GPTQ and _DESCENT the square of it).
 * Model file, seed and options must be the same on all ranks, and progress callbacks cancel on all
 * or on none.  All ranks then end with the same bytes.  The loss of a single step that a progress
 * callback of Block-AP sees stays this rank's. */

/** Which state of what trains is kept at the end.  Without validation samples it is the last. */
typedef enum eqat_keep {
    EQAT_KEEP_START_OR_LAST = 0, /**< the last; the start (of Block-AP: the initial rounding) when
                                    the validation loss ends worse than it began */
    EQAT_KEEP_LAST = 1,          /**< the last, as the paper does */
    EQAT_KEEP_BEST = 2 /**< that of the least validation loss: after an epoch, or the start; costs a
                          copy of what trains */
} eqat_keep;

/** What a learning rate of 1 is. */
typedef enum eqat_lr_unit {
    EQAT_LR_ABSOLUTE = 0, /**< 1, as the paper does.  A rate of 0 is then, in Block-AP, 1e-4 of
                             scales and zero points, and of weights and norm gains 2e-5 when the
                             block has 2-bit linears, else 1e-5; in E2E-QP 2e-5 when the model has
                             2-bit linears, else 1e-5 */
    EQAT_LR_RELATIVE = 1  /**< the size of what moves, so that one rate fits models of any width: of
                             a weight the mean scale of its linear, of a scale, a norm gain or a
                             weight without scale its tensor's mean magnitude, of a zero point one
                             code.  A rate of 0 then follows from the number of steps: see
                             docs/training.md */
} eqat_lr_unit;

/** What the last block is held to. */
typedef enum eqat_last_loss {
    EQAT_LAST_LOSS_SQUARES = 0, /**< its output, as every other block */
    EQAT_LAST_LOSS_LOGITS = 1   /**< what the head makes of it: the mean over positions of sum_v p_v
                                   (ln p_v - ln q_v), p and q the softmax of the logits of the full
                                   precision's output and of the block's.  The head is then in
                                   memory, and a step costs as much more as the head is larger than
                                   a block.  Cf. LFQ; E2E-QP's loss with a teacher */
} eqat_last_loss;

/** How Block-AP trains. */
typedef struct eqat_block_ap_options {
    size_t struct_size;   /**< set by eqat_block_ap_options_init */
    int64_t batch_size;   /**< samples of a step; the last one of an epoch takes what is left;
                             passes that train nothing take up to four times as many at once while
                             these are at most 1024 tokens; default 2 */
    int64_t epochs;       /**< default 2; 0: initial scales and zero points only */
    double quant_lr;      /**< of scales and zero points, in units of lr_unit; default 0: see there;
                             negative: they do not train */
    double weight_lr;     /**< of weights, likewise; of norm gains, too, but with EQAT_LR_RELATIVE
                             those have a quarter of quant_lr, unless this is negative */
    double min_lr_factor; /**< the cosine ends at rate times this; default 0.05 */
    int64_t early_stop;   /**< > 0: stop a block after so many epochs without a better validation
                             loss; default 0 */
    const char *offload_dir;   /**< activation cache in files of this folder; NULL (default): in
                                  memory */
    eqat_progress_fn progress; /**< NULL (default): none */
    void *progress_user;       /**< handed to progress */
    eqat_block_loss_fn loss;   /**< NULL (default): the mean squared error over all elements */
    void *loss_user;           /**< handed to loss */
    eqat_grad_fn gradient;     /**< between backward and update; NULL (default): none */
    void *gradient_user;       /**< handed to gradient */
    eqat_reduce_fn reduce;     /**< NULL (default): this rank is alone */
    void *reduce_user;         /**< handed to reduce */
    int64_t experts_at_a_time; /**< k > 0: blocks with more than k experts train in stages (below),
                                  which saves memory; default 0: every block in one */
    eqat_progress_fn between;  /**< called before every batch (or linear) of all work that is no
                                  step, from create to the last block, so that nothing long is
                                  silent; losses and rates are not there (NaN, 0); it must not call
                                  the job; NULL (default): none */
    void *between_user;        /**< handed to between */
    int32_t keep;              /**< eqat_keep, of every stage of a block; default
                                  EQAT_KEEP_START_OR_LAST */
    int32_t lr_unit;           /**< eqat_lr_unit; default EQAT_LR_ABSOLUTE */
    int32_t last_loss;         /**< eqat_last_loss; default EQAT_LAST_LOSS_SQUARES.  A `loss` of the
                                  caller's takes the place of either */
    int32_t reserved;          /**< 0 */
    uint64_t offload_memory; /**< with offload_dir: so many bytes of the activations stay in memory
                                all the same; the same result.  Default 0 */
    double decay_ratio; /**< share of a block's steps, the last of them, in which rates fall (see
                           eqat_optimizer); default 1: in all, as in the paper's code */
} eqat_block_ap_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_block_ap_options_init(eqat_block_ap_options *options, size_t struct_size);

/** Losses of one epoch of one block: means over samples, of all ranks. */
typedef struct eqat_epoch_report {
    size_t struct_size; /**< set by the caller */
    double train_loss;  /**< over the training samples, while they train */
    double val_loss;    /**< after the epoch; NaN without validation samples */
} eqat_epoch_report;

/** What became of one stage of a block, or of E2E-QP. */
typedef struct eqat_stage_report {
    size_t struct_size; /**< set by the caller */
    double start_loss;  /**< validation loss before the first step; NaN: not measured */
    double val_loss;    /**< of the state that is kept; NaN without validation samples */
    int64_t epoch;      /**< behind which that state was, counted over all stages; -1: the start */
    int64_t retries;    /**< of Block-AP: how often it went back, because a loss or gradient was not
                           finite, each time with half the rates */
    int64_t step;       /**< of the stage, behind which that state was; 0: the start */
} eqat_stage_report;

/** Stages: a block with E experts and experts_at_a_time k trains in E / k (rounded up) of them. The
 * first trains all that is no expert and the first k experts, each further one the next k experts;
 * what earlier stages trained is frozen by then, and what later ones will train is as in the file.
 * Every stage has an optimizer of its own and takes options.epochs epochs, along a cosine of its
 * own: those of stage i are the epochs from i * options.epochs on.  Masters, moments and gradients
 * are in memory of one stage at a time, everything else of the block as packed codes or dense in
 * the compute dtype.  early_stop ends a stage.  Every other block, and every block without the
 * option, has one stage. */

/** The running job: two activation streams (full precision and quantized) and the block in work. */
typedef struct eqat_block_ap eqat_block_ap;

/** Reads the samples, computes the embedding streams, starts before block 0.  model, quantizer and
 * data are referenced; strings in options are copied or used during the call.  Memory, or
 * offload_memory and offload_dir together: 2 * samples * seq_len * hidden_size values of the
 * compute dtype; memory besides for positions and segments of records.  Labels do not matter here.
 * options may be NULL.  Errors: EQAT_INVALID_ARGUMENT (an option, a group that does not divide a
 * row, a linear that is quantized already, an id or position beyond the model's, embeddings of
 * another width, early_stop without validation samples), EQAT_NUMERIC (a value in the model's files
 * is not finite, in whichever block), EQAT_IO (offload_dir), those of eqat_data_sample and of
 * reading weights (eqat_model), EQAT_CANCELLED. */
EQAT_API eqat_status eqat_block_ap_create(eqat_model *model, eqat_block_ap **out,
                                          const eqat_quantizer *quantizer, eqat_data *data,
                                          const eqat_block_ap_options *options);
EQAT_API void eqat_block_ap_free(eqat_block_ap *job); /**< NULL is fine */
/** Number of the block in work or next to begin; = blocks when all are done. */
EQAT_API int64_t eqat_block_ap_block(const eqat_block_ap *job);
/** Loads the next block, with F32 masters and initial scales and zero points of its first stage;
 * computes the targets by moving the full-precision stream through it.  Until finish or abandon the
 * model can be evaluated and saved, as it was before; it cannot be rounded, or trained by another
 * job.  Errors: EQAT_INVALID_ARGUMENT (a block is in work, here or of another job; all are done; a
 * linear that is quantized already), EQAT_NUMERIC (a weight is not finite, or weights are such as
 * eqat_model_quantize_rtn refuses), those of reading weights, what reduce returns, EQAT_IO
 * (offload_dir), EQAT_CANCELLED: no block is then in work. */
EQAT_API eqat_status eqat_block_ap_begin(eqat_block_ap *job);
/** Steps of one epoch of the current block. */
EQAT_API int64_t eqat_block_ap_steps(const eqat_block_ap *job);
/** Stages of block `block`, 0 when there is no such block: its epochs are options.epochs times as
 * many. */
EQAT_API int64_t eqat_block_ap_stages(const eqat_block_ap *job, int64_t block);
/** The stage that the block in work is in, from 0 on; 0 when none is in work. */
EQAT_API int64_t eqat_block_ap_stage(const eqat_block_ap *job);
/** One training step on batch `step` of `epoch` (0-based, over all stages): forward, backward,
 * update.  The first step of a later stage's epoch freezes the stages before it, as finish does,
 * and begins that one, of which the masters are then read; stages that are left out keep their
 * initial rounding.  Epochs beyond the last belong to the last stage.  loss (may be NULL) waits for
 * the device; without it nobody looks whether it is finite.  Errors: EQAT_INVALID_ARGUMENT (no
 * block is in work, no such batch, an epoch of a stage that is frozen, a loss callback that gives
 * something else than F32 [1]), EQAT_NUMERIC (the loss is not finite; the step counts as taken),
 * EQAT_IO (offload_dir), what the callbacks return, EQAT_CANCELLED.  After a failure or
 * EQAT_CANCELLED in the middle of the update some parameters have had theirs: whatever is called
 * next tells so, until the block is abandoned; run begins it anew. */
EQAT_API eqat_status eqat_block_ap_step(eqat_block_ap *job, int64_t epoch, int64_t step,
                                        double *loss);
/** The forward pass of a step alone, for a loss and an update of one's own: the block in work on
 * the quantized stream, recorded on `tape`, as *y, and what the full-precision block makes as
 * *target, both [batch, T, H] in the compute dtype; the caller frees them.  eqat_optimizer_backward
 * with eqat_block_ap_optimizer then makes the step.  Errors: those of eqat_block_ap_step. */
EQAT_API eqat_status eqat_block_ap_forward(eqat_block_ap *job, eqat_tape *tape, int64_t epoch,
                                           int64_t step, eqat_tensor **y, eqat_tensor **target);
/** Mean loss over the validation samples, of all ranks: calls reduce; NaN without any.  Errors:
 * EQAT_INVALID_ARGUMENT (no block is in work), EQAT_NUMERIC (the mean is not finite), EQAT_IO
 * (offload_dir), what the callbacks return, EQAT_CANCELLED. */
EQAT_API eqat_status eqat_block_ap_validate(eqat_block_ap *job, double *loss);
/** Freezes the block: scales to fp16, codes taken and packed, norm gains rounded to the stored
 * dtype; stages that have not begun get their initial rounding; moves the quantized stream through
 * the packed block.  After a failure on that way the block stays quantized; calling again goes on
 * where it stopped.  Errors: EQAT_INVALID_ARGUMENT (no block is in work), EQAT_IO (offload_dir),
 * EQAT_CANCELLED. */
EQAT_API eqat_status eqat_block_ap_finish(eqat_block_ap *job);
/** Gives the block in work up; the model's block stays as it was.  begin may start it anew. */
EQAT_API void eqat_block_ap_abandon(eqat_block_ap *job);
/** The optimizer of the stage in training, whose gradient callback is the option's at first;
 * borrowed until the first step of the next stage, finish or abandon.  NULL when no block is in
 * work. */
EQAT_API eqat_optimizer *eqat_block_ap_optimizer(eqat_block_ap *job);
/** A tensor of the stage in training by its name within the block ("self_attn.q_proj.weight" F32
 * [N, K],
 * ".scales" and ".zeros" F32 [N, K / group], "input_layernorm.weight" F32 [H]); borrowed until
 * the first step of the next stage, finish or abandon.  NULL when no block is in work or none of
 * the stage has that name. */
EQAT_API eqat_tensor *eqat_block_ap_parameter(eqat_block_ap *job, const char *name);
/** Report of an epoch, counted over all stages, of a block that eqat_block_ap_run has trained.
 * Errors: EQAT_NOT_FOUND (there is none, as of epochs that an early stop left out),
 * EQAT_INVALID_ARGUMENT (struct_size is not set). */
EQAT_API eqat_status eqat_block_ap_epoch(const eqat_block_ap *job, int64_t block, int64_t epoch,
                                         eqat_epoch_report *report);
/** Report of a stage that eqat_block_ap_run has trained.  Errors: EQAT_NOT_FOUND (there is none),
 * EQAT_INVALID_ARGUMENT (struct_size is not set). */
EQAT_API eqat_status eqat_block_ap_stage_report(const eqat_block_ap *job, int64_t block,
                                                int64_t stage, eqat_stage_report *report);
/** The loop over the remaining blocks, made of the steps above; in a block in work it goes on
 * behind the last step that was taken.  Which state of a stage is kept, options.keep tells; the
 * start is measured by a validation before the first step.  When a loss or gradient is not finite
 * the stage goes back to its best state (EQAT_KEEP_BEST) or its start and trains all epochs again
 * at half the rates, up to three times; then it keeps that best state or its initial rounding.
 * eqat_block_ap_stage_report and a warning tell of both.  After a failure or EQAT_CANCELLED the
 * block in work is given up; called again, the loop begins it anew and ends with the same bytes.
 * Errors: those of the steps; EQAT_NUMERIC when the validation loss of a start is not finite. */
EQAT_API eqat_status eqat_block_ap_run(eqat_block_ap *job);
/** Writes all that a new job needs to go on from here with the same bytes: the blocks that are done
 * as they are in the model, of the block in work what is frozen, the trained tensors, the moments
 * and the number of steps of its optimizer, and the reports; not the activation streams.  To be
 * called between steps; a progress callback may call it, the other callbacks may not.  path
 * appears, or is replaced, when all of it is written: about the size of what is packed and, with a
 * block in work, 12 bytes a weight of its stage.  Errors: EQAT_INVALID_ARGUMENT (another job has
 * the model), EQAT_NOT_FOUND (no folder for it), EQAT_IO, those of eqat_data_sample. */
EQAT_API eqat_status eqat_block_ap_save(eqat_block_ap *job, const char *path);
/** Brings a job that was just created to where eqat_block_ap_save has left another one, in any
 * process: run goes on from there, and so may a driver, in the stage of the block in work that
 * eqat_block_ap_stage tells, with the step behind those of it that eqat_optimizer_steps tells.
 * Model files, compute dtype, quantizer, data (as far as two epochs' order and 64 samples tell),
 * seed and options must be those of the other job, weights unchanged by anybody else; offload_dir,
 * offload_memory and callbacks may differ.  The streams move through all blocks that are done,
 * which costs a forward pass of each, full precision and packed, over all samples.  Errors:
 * EQAT_INVALID_ARGUMENT (the job has begun, or what differs by name), EQAT_FORMAT (no state of
 * Block-AP, truncated, damaged), EQAT_NOT_FOUND, EQAT_IO: the job stays as it was.  After
 * EQAT_CANCELLED, or a failure of the streams on their way, the state is there (eqat_block_ap_block
 * tells), and whatever is called next goes on with the streams. */
EQAT_API eqat_status eqat_block_ap_load(eqat_block_ap *job, const char *path);

/* ---- E2E-QP (paper section 3.3): train scales end to end ---- */

/** What E2E-QP trains. */
typedef enum eqat_e2e_params {
    EQAT_E2E_S = 0, /**< scales */
    EQAT_E2E_Z = 1, /**< zero points */
    EQAT_E2E_SZ = 2 /**< both */
} eqat_e2e_params;

/** A loss of the caller's: logits F32 [B, T, V] of a micro-batch, recorded on the tape, and the
 * micro-batch itself (host arrays, labels among them: what position t should predict, negative:
 * masked; valid during the call) -> *loss F32 [1], made of ops on the tape; the library frees it.
 * A step is the mean of its micro-batches' losses, weighed by their numbers of labels.  Returns
 * EQAT_OK or the status that the step returns. */
typedef eqat_status (*eqat_e2e_loss_fn)(void *user, eqat_tape *tape, eqat_tensor *logits,
                                        const eqat_batch *batch, eqat_tensor **loss);

/** How E2E-QP trains. */
typedef struct eqat_e2e_qp_options {
    size_t struct_size; /**< set by eqat_e2e_qp_options_init */
    int64_t batch_size; /**< sequences of an optimizer step; the last one of an epoch takes what is
                           left; default 32 */
    int64_t micro_batch_size;  /**< sequences of one forward and backward; divides batch_size;
                                  default 1 */
    int64_t epochs;            /**< default 1 */
    double lr;                 /**< in units of lr_unit; default 0: see there */
    int32_t params;            /**< eqat_e2e_params; default EQAT_E2E_S */
    bool train_norms;          /**< norm gains too; default false */
    double max_grad_norm;      /**< default 0.3 */
    double warmup_ratio;       /**< share of the steps, rounded up; default 0.03 */
    double min_lr_factor;      /**< default 0 */
    eqat_progress_fn progress; /**< NULL (default): none */
    void *progress_user;       /**< handed to progress */
    bool keep_activations;     /**< see eqat_batch; the same bytes; default false */
    bool host_state;           /**< "cuda:N": what waits, does so in pinned memory of the host: the
                                  optimizer's moments, copies of what trains and, from forward to
                                  backward, the inputs of blocks.  Less memory of the device, the
                                  same bytes; copies take time of their own.  Default false */
    uint8_t reserved[6];       /**< 0 */
    eqat_grad_fn gradient;     /**< as in eqat_block_ap_options; before clipping */
    void *gradient_user;       /**< handed to gradient */
    eqat_reduce_fn reduce;     /**< as in eqat_block_ap_options */
    void *reduce_user;         /**< handed to reduce */
    eqat_e2e_loss_fn loss; /**< NULL (default): the mean cross-entropy over the labels, without ever
                              holding all logits */
    void *loss_user;       /**< handed to loss */
    eqat_progress_fn between; /**< called before every block that is read when the job is made,
                                 every micro-batch of a validation and, by run, of a step, and every
                                 tensor that finish rounds; as in eqat_block_ap_options */
    void *between_user;       /**< handed to between */
    eqat_model *teacher;      /**< NULL (default): none; else another model of the same context,
                                 vocabulary and compute dtype, commonly the one before quantization.
                                 A token's loss is then (1 - teacher_share) of the cross-entropy
                                 and teacher_share of the Kullback-Leibler divergence of the model's
                                 distribution from the teacher's.  Referenced; its residual streams
                                 of a step's samples, at most 256 MB of them, pass its blocks
                                 together, which are read as in an evaluation */
    double teacher_share;     /**< 0 to 1; default 1 */
    int64_t validate_steps;   /**< > 0: validate behind every so many steps, too; default 0: behind
                                 every epoch alone */
    int32_t keep;             /**< eqat_keep, of what trains; default EQAT_KEEP_START_OR_LAST */
    int32_t lr_unit;          /**< eqat_lr_unit, of lr; default EQAT_LR_ABSOLUTE */
} eqat_e2e_qp_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_e2e_qp_options_init(eqat_e2e_qp_options *options, size_t struct_size);

/** The running job. */
typedef struct eqat_e2e_qp eqat_e2e_qp;

/** model must be quantized; its scales are rounded to fp16, from where they train.  model and
 * data are referenced; a model has one job at a time, from here to finish or free.  Records with
 * labels or segments are read once here: micro-batches weigh what they have of a step's labels,
 * over all ranks with `reduce`, which is then called here, once, with as many sums as there are
 * steps and one more. Errors: EQAT_INVALID_ARGUMENT (an option; micro_batch_size does not divide
 * batch_size; no linear is quantized; another job has the model; embeddings of another width;
 * nothing to predict; a teacher that does not fit, or a loss beside it; keep best or
 * validate_steps without validation samples), those of eqat_data_sample
 * and of reading weights (eqat_model), what reduce returns, EQAT_CANCELLED. */
EQAT_API eqat_status eqat_e2e_qp_create(eqat_model *model, eqat_e2e_qp **out, eqat_data *data,
                                        const eqat_e2e_qp_options *options);
/** Whether E2E-QP can train the model with these data and options, before hours of Block-AP:
 * quantized as it is now, and what is not, as `quantizer` would quantize it, unless that is NULL.
 * options may be NULL.  Nothing changes.  Errors: EQAT_INVALID_ARGUMENT as of eqat_e2e_qp_create
 * (but for another job) and of `quantizer`. */
EQAT_API eqat_status eqat_e2e_qp_check(eqat_model *model, const eqat_quantizer *quantizer,
                                       eqat_data *data, const eqat_e2e_qp_options *options);
EQAT_API void eqat_e2e_qp_free(
    eqat_e2e_qp *job); /**< NULL is fine; unfinished training is undone */
/** Optimizer steps in all. */
EQAT_API int64_t eqat_e2e_qp_steps(const eqat_e2e_qp *job);
/** Forward and backward of micro-batch `micro` (0-based) of optimizer step `step`; gradients
 * accumulate.  loss: mean over this micro-batch's labels, may be NULL.  After EQAT_CANCELLED, and
 * any failure on the way, the gradients of the whole step are dropped: take its micro-batches anew.
 * Errors: EQAT_INVALID_ARGUMENT (no such step or micro-batch; the job is finished; an id, label or
 * position beyond the model's; a loss callback that gives something else than F32 [1]), what the
 * loss callback returns, EQAT_NUMERIC (the loss is not finite; the gradients stay), those of
 * eqat_data_sample and of reading weights, EQAT_CANCELLED. */
EQAT_API eqat_status eqat_e2e_qp_accumulate(eqat_e2e_qp *job, int64_t step, int64_t micro,
                                            double *loss);
/** Micro-batches of optimizer step `step`; 0 when there is no such step. */
EQAT_API int64_t eqat_e2e_qp_micro_steps(const eqat_e2e_qp *job, int64_t step);
/** Update from what was accumulated.  Errors: EQAT_INVALID_ARGUMENT (the job is finished), what the
 * gradient callback returns. */
EQAT_API eqat_status eqat_e2e_qp_step(eqat_e2e_qp *job);
/** Mean loss over the labels of the validation samples, of all ranks (calls reduce), with what
 * trains rounded as it would be stored; the loss is that which trains.  NaN without such samples.
 * What trains, and what was accumulated, stay as they are.  Errors: EQAT_INVALID_ARGUMENT (the job
 * is finished), EQAT_NUMERIC (the mean is not finite), those of eqat_e2e_qp_accumulate, what reduce
 * returns, EQAT_CANCELLED. */
EQAT_API eqat_status eqat_e2e_qp_validate(eqat_e2e_qp *job, double *loss);
/** Borrowed until finish, after which it is NULL. */
EQAT_API eqat_optimizer *eqat_e2e_qp_optimizer(eqat_e2e_qp *job);
/** Rounds what was trained to its stored dtype, inside the model; the job takes no more steps.
 * Errors: EQAT_INVALID_ARGUMENT (it is finished already). */
EQAT_API eqat_status eqat_e2e_qp_finish(eqat_e2e_qp *job);
/** The loop over the remaining steps, made of the steps above, finish included.  Which state is
 * kept, options.keep tells: with validation samples the start is measured by a validation before
 * the first step.  After a loss that is not finite training is over: kept is the best state, or
 * what gave the last finite loss, or the start where that is worse.  eqat_e2e_qp_stage_report and a
 * warning tell of both.  After EQAT_CANCELLED it may be called again: the step or validation that
 * was cut off is taken anew, and the result has the same bytes.  Errors: those of the steps, what
 * reduce returns; EQAT_NUMERIC when the loss of the first step, or of the start, is not finite. */
EQAT_API eqat_status eqat_e2e_qp_run(eqat_e2e_qp *job);
/** Writes all that a new job needs to go on behind the last optimizer step with the same bytes: the
 * trained tensors, moments, steps, losses and the best state, without what was accumulated since.
 * Otherwise as eqat_block_ap_save.  Errors: EQAT_INVALID_ARGUMENT (the job is finished),
 * EQAT_NOT_FOUND (no folder for it), EQAT_IO, those of eqat_data_sample. */
EQAT_API eqat_status eqat_e2e_qp_save(eqat_e2e_qp *job, const char *path);
/** Brings a job that has taken no step to where eqat_e2e_qp_save has left another one; step
 * eqat_optimizer_steps comes next.  The packed model, compute dtype, data, seed and options must be
 * those of the other job.  Errors: those of eqat_block_ap_load; the job stays as it was. */
EQAT_API eqat_status eqat_e2e_qp_load(eqat_e2e_qp *job, const char *path);
/** Mean loss over the labels of optimizer step `step`, of a run over all ranks; NaN when not taken.
 */
EQAT_API double eqat_e2e_qp_loss(const eqat_e2e_qp *job, int64_t step);
/** Mean loss over the labels of the validation samples behind step `step` of a run; NaN when it was
 * not taken. */
EQAT_API double eqat_e2e_qp_val_loss(const eqat_e2e_qp *job, int64_t step);
/** Which state eqat_e2e_qp_run has kept.  Errors: EQAT_NOT_FOUND (it has not ended),
 * EQAT_INVALID_ARGUMENT (struct_size is not set). */
EQAT_API eqat_status eqat_e2e_qp_stage_report(const eqat_e2e_qp *job, eqat_stage_report *report);

/* ---- one-call loops ---- */

/** eqat_block_ap_create + run + free.  Errors: those of both. */
EQAT_API eqat_status eqat_block_ap_quantize(eqat_model *model, const eqat_quantizer *quantizer,
                                            eqat_data *data, const eqat_block_ap_options *options);
/** eqat_e2e_qp_create + run + free.  Errors: those of both. */
EQAT_API eqat_status eqat_e2e_qp_train(eqat_model *model, eqat_data *data,
                                       const eqat_e2e_qp_options *options);

#ifdef __cplusplus
}
#endif
#endif
