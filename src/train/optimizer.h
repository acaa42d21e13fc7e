/* The optimizer inside the library. */
#ifndef EQI_TRAIN_OPTIMIZER_H
#define EQI_TRAIN_OPTIMIZER_H

#include "eqat/optimizer.h"
#include "train/state.h"

/* Lists rates, moments and steps, of which there are at most so many; parameters are their owner's
 * to list. */
eqat_status eqi_optimizer_state(eqat_optimizer *optimizer, eqi_state *state, int64_t most);
/* To be called first. With true the moments wait on the host (tensor/tensor.h) between steps. */
void eqi_optimizer_set_offload(eqat_optimizer *optimizer, bool on);
/* What trains, in the order it was added. */
size_t eqi_optimizer_count(const eqat_optimizer *optimizer);
eqi_tensor *eqi_optimizer_parameter(const eqat_optimizer *optimizer, size_t index);
/* F32 [1] on the device, of the last step; borrowed. */
eqi_tensor *eqi_optimizer_norm(const eqat_optimizer *optimizer);
/* The next step will be followed by a call of eqat_optimizer_grad_norm, which then waits for no
 * more than the norm; to be called before each such step. */
void eqi_optimizer_want_norm(eqat_optimizer *optimizer);
/* A step has failed or was cancelled when some parameters had their update. */
bool eqi_optimizer_is_torn(const eqat_optimizer *optimizer);
/* Of every group. */
void eqi_optimizer_scale_rates(eqat_optimizer *optimizer, double factor);

#endif
