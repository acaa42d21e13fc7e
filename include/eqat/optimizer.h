/** @file
 * libeqat: AdamW with parameter groups and schedules.  SPDX-License-Identifier: Apache-2.0 */
#ifndef EQAT_OPTIMIZER_H
#define EQAT_OPTIMIZER_H

#include "eqat/tape.h"

#ifdef __cplusplus
extern "C" {
#endif

/** AdamW (Loshchilov and Hutter) over groups of trainable tensors, each group with a rate of its
 * own, all under one schedule.  Its factor at step k (from 0) is k / warmup_steps for
 * k < warmup_steps, then 1, and in the last d = decay_ratio (total_steps - warmup_steps) steps
 * min_lr_factor + (1 - min_lr_factor) (1 + cos(pi (k - total_steps + d) / d)) / 2; min_lr_factor
 * from total_steps on.  total_steps 0: constant after the warm-up.  Threads: as the context. */
typedef struct eqat_optimizer eqat_optimizer;

/** AdamW and its schedule. */
typedef struct eqat_optimizer_options {
    size_t struct_size;   /**< set by eqat_optimizer_options_init */
    double beta1;         /**< default 0.9 */
    double beta2;         /**< default 0.999 */
    double eps;           /**< default 1e-8 */
    double weight_decay;  /**< decoupled; default 0 */
    double max_grad_norm; /**< clips the norm over all groups; 0 (default): no clipping */
    int64_t total_steps;  /**< default 0 */
    int64_t warmup_steps; /**< default 0 */
    double min_lr_factor; /**< floor of the cosine as a share of the rate; default 0 */
    double decay_ratio;   /**< share of the steps behind the warm-up, the last of them, in which the
                             rate falls; default 1: the cosine of the paper's code */
} eqat_optimizer_options;

/** Writes defaults into the first `struct_size` bytes of *options, and no further. */
EQAT_API void eqat_optimizer_options_init(eqat_optimizer_options *options, size_t struct_size);
/** An optimizer without groups.  options may be NULL.  Errors: EQAT_INVALID_ARGUMENT (an option).
 */
EQAT_API eqat_status eqat_optimizer_create(eqat_context *context, eqat_optimizer **out,
                                           const eqat_optimizer_options *options);
EQAT_API void eqat_optimizer_free(eqat_optimizer *optimizer); /**< NULL is fine */

/** A new group with learning rate lr; *group (may be NULL) receives its number, from 0.  Errors:
 * EQAT_INVALID_ARGUMENT (a rate below 0 or not finite). */
EQAT_API eqat_status eqat_optimizer_add_group(eqat_optimizer *optimizer, double lr, int32_t *group);
/** Adds a trainable F32 tensor to a group; the optimizer keeps a reference and two moments of its
 * size.  Errors: EQAT_INVALID_ARGUMENT (no such group; a tensor that is not F32, not contiguous,
 * not trainable, or in a group already). */
EQAT_API eqat_status eqat_optimizer_add(eqat_optimizer *optimizer, int32_t group,
                                        eqat_tensor *parameter);

/** Drops the gradients of all parameters. */
EQAT_API void eqat_optimizer_zero_grad(eqat_optimizer *optimizer);

/** Called between backward and update, when gradients are complete: the place for an all-reduce or
 * clipping of one's own.  Every parameter has a gradient then: what took no part in the loss has
 * one of zeros, so that all ranks reduce the same tensors. */
typedef eqat_status (*eqat_grad_fn)(void *user, eqat_tensor *const *parameters, size_t count);
/** Sets the callback, in place of an earlier one; NULL: none. */
EQAT_API void eqat_optimizer_set_grad_callback(eqat_optimizer *optimizer, eqat_grad_fn callback,
                                               void *user);

/** One update from gradients multiplied by grad_scale, which are then cleared.  A parameter without
 * one has a gradient of zeros: what earlier ones left in its moments goes on to act.  When the
 * gradient norm is not finite, nothing is changed.  Enqueued on the device; does not wait.  Errors:
 * what the gradient callback returns. */
EQAT_API eqat_status eqat_optimizer_step(eqat_optimizer *optimizer, double grad_scale);
/** eqat_tape_backward(tape, loss, 1) and eqat_optimizer_step(optimizer, 1) in one.  Without
 * callback, clipping and recomputed segments on the tape, every gradient is applied and dropped as
 * soon as it is complete, so that they never exist together; the numbers are the same, but a
 * gradient that is not finite then stops the update of its own tensor and of those behind it, not
 * of those before, and so does a cancel.  A loss in which no parameter took part (its experts saw
 * no token) gives gradients of zeros.  The tape is cleared, also on failure; gradients are then
 * unspecified. Errors: those of eqat_tape_backward and eqat_optimizer_step. */
EQAT_API eqat_status eqat_optimizer_backward(eqat_optimizer *optimizer, eqat_tape *tape,
                                             eqat_tensor *loss);
/** Factor of the schedule at step k, from 0; NaN of NULL. */
EQAT_API double eqat_optimizer_lr_factor(const eqat_optimizer *optimizer, int64_t k);
/** Number of steps taken. */
EQAT_API int64_t eqat_optimizer_steps(const eqat_optimizer *optimizer);
/** Gradient norm of the last step before clipping, after grad_scale; waits for the device.  NaN or
 * infinity tells a skipped step.  Errors: none of its own. */
EQAT_API eqat_status eqat_optimizer_grad_norm(eqat_optimizer *optimizer, double *norm);

#ifdef __cplusplus
}
#endif
#endif
