/* Attention of a block, shared by the graphs. */
#ifndef EQI_MODEL_ATTENTION_H
#define EQI_MODEL_ATTENTION_H

#include "model/block.h"

/* in->x [B, T, H] -> *out [B, T, H]: norm, attention, o_proj. */
eqat_status eqi_attention_branch(eqi_tape *tape, const eqi_block *block, const eqi_block_input *in,
                                 eqi_tensor **out);

static inline void eqi_drop(eqi_tensor **t)
{
    eqi_tensor_unref(*t);
    *t = NULL;
}

#endif
