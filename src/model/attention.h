/* The branches of a block that graphs put together. */
#ifndef EQI_MODEL_ATTENTION_H
#define EQI_MODEL_ATTENTION_H

#include "model/block.h"

/* in->x [B, T, H] -> *out [B, T, H]: norm, attention, o_proj. */
eqat_status eqi_attention_branch(eqi_tape *tape, const eqi_block *block, const eqi_block_input *in,
                                 eqi_tensor **out);

/* x [B, T, H] -> *out [B, T, H]: norm, router, and the sum of what the chosen experts make of each
 * token. Which tokens an expert gets is read back from the device. */
eqat_status eqi_experts_branch(eqi_tape *tape, const eqi_block *block, eqi_tensor *x,
                               eqi_tensor **out);

static inline void eqi_drop(eqi_tensor **t)
{
    eqi_tensor_unref(*t);
    *t = NULL;
}

#endif
