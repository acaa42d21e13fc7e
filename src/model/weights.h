/* Who keeps a block's weights in memory, and why: the only file that fills, replaces and drops
 * them. eqi_block_state tells what is where; its diagram stands in block.h and
 * docs/architecture.md. */
#ifndef EQI_MODEL_WEIGHTS_H
#define EQI_MODEL_WEIGHTS_H

#include "model/model.h"

/* A block's weights for a pass: dense ones in the compute dtype, what is packed or kept as it is,
 * norms and biases F32. *block is valid until eqi_block_release, which every success needs. Values
 * are not checked. */
eqat_status eqi_block_acquire(eqat_model *model, int64_t index, const eqi_block **block);
/* Drops what the last pass read, unless the block is kept or packed. */
void eqi_block_release(eqat_model *model, int64_t index);
/* Of a device with memory of its own: what is packed goes to the host, until a pass acquires it or
 * somebody keeps it. What is in use or was handed out stays, and so does all of a dense block. */
eqat_status eqi_block_offload(eqat_model *model, int64_t index);

/* Weights that stay in memory and may be changed there, as parameters that were handed out and
 * E2E-QP's norm gains are: dense ones as `dtype`. NaN or infinite values are EQAT_NUMERIC naming
 * the tensor. */
eqat_status eqi_block_keep(eqat_model *model, int64_t index, eqi_dtype dtype, eqi_block **block);

/* A copy of the block for its caller alone: F32 masters from the file, or copies of what is kept;
 * without what is packed. The model's block stays as it is. Checked as eqi_block_keep does. Given
 * up with eqi_block_drop. */
eqat_status eqi_block_masters(eqat_model *model, int64_t index, eqi_block *own);
/* The same of a block that may be packed in memory by now, with what the file holds. */
eqat_status eqi_block_originals(eqat_model *model, int64_t index, eqi_block *own);
/* A copy without any weights, for its caller to fill with these two, which read what the model does
 * not keep: norms and biases F32, and the weight of one linear, unless they are there (the weight
 * in this dtype) already. */
eqat_status eqi_block_outline(eqat_model *model, int64_t index, eqi_block *own);
eqat_status eqi_block_own_vectors(eqat_model *model, eqi_block *own);
eqat_status eqi_block_own_weight(eqat_model *model, eqi_block *own, int linear, eqi_dtype dtype);
void eqi_block_drop(eqi_ctx *ctx, eqi_block *own); /* cleared by memset is fine */
/* Moves the weights of such a copy, frozen, into the model; tensors that were handed out before go.
 */
void eqi_block_put(eqat_model *model, eqi_block *own);

/* Replaces a linear's weight by packed codes; takes over the references in *packed. */
void eqi_linear_set_packed(eqat_model *model, int64_t index, int linear, eqi_weight *packed);

/* Embedding, head and final norm. */
eqat_status eqi_model_load_embedding(eqat_model *model);
eqat_status eqi_model_load_ends(eqat_model *model);
/* Drops embedding and head, unless they were handed out as parameters; the next use loads them
 * again. Block-AP needs the embedding table, which can be larger than a block, for a moment only.
 */
void eqi_model_unload_ends(eqat_model *model);
void eqi_model_drop_weights(eqat_model *model); /* all of them, when the model goes */

#endif
