/* The optimizer inside the library. */
#ifndef EQI_TRAIN_OPTIMIZER_H
#define EQI_TRAIN_OPTIMIZER_H

#include "eqat/optimizer.h"
#include "train/state.h"

/* Lists moments and steps; parameters are their owner's to list. */
eqat_status eqi_optimizer_state(eqat_optimizer *optimizer, eqi_state *state);

#endif
