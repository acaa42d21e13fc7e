/* A model inside the library: configuration, where its tensors come from, and one record per block.
 */
#ifndef EQI_MODEL_MODEL_H
#define EQI_MODEL_MODEL_H

#include "eqat/model.h"
#include "format/layout.h"
#include "model/config.h"

/* A job that changes the model; one at a time. */
typedef enum eqi_job {
    EQI_JOB_NONE,
    EQI_JOB_BLOCK_AP, /* has a block in work, on a copy of its own */
    EQI_JOB_E2E_QP    /* trains in place: what trains must not be rounded */
} eqi_job;

struct eqat_model {
    eqi_ctx *ctx;
    eqi_handle handle;
    int refs;
    char *path;
    json_t *json; /* config.json as it came */
    eqi_config config;
    bool finite;         /* all values of the files are known to be */
    eqi_packing packing; /* quantization_config of the input */
    eqi_source *source;  /* Hugging Face names, rows as Hugging Face has them */
    eqat_tokenizer *tokenizer;
    eqi_dtype compute;
    eqi_block *blocks;
    eqi_norm final_norm;
    eqi_tensor *embedding; /* [V, H] in the stored dtype (F32, F16 or BF16), loaded on first use */
    eqi_tensor *head;      /* [V, H]; the same tensor when tied */
    eqi_stored embedding_stored, head_stored;
    bool embedding_pinned, head_pinned; /* handed out as parameters: F32, and never dropped */
    struct eqi_parameter *parameters;   /* every name a parameter can have, made on first use */
    size_t n_parameters;
    eqi_rotary rotary[EQI_ROPES];
    int64_t rotary_length; /* positions in these tables */
    int64_t rotary_scaled; /* the length that dynamic scaling was made for */
    eqi_job job;
    int64_t job_block; /* of a Block-AP job */
};

eqat_model *eqi_model_ref(eqat_model *model);
/* EQAT_INVALID_ARGUMENT while a job changes the model. */
eqat_status eqi_model_check_idle(const eqat_model *model);

/* The dtype in which a tensor that is not quantized is kept and saved: its own; F16 for the block
 * types of GGUF, whose values are rounded to it on reading, so that what is evaluated is what is
 * saved. */
eqi_dtype eqi_kept_dtype(eqi_stored stored);
/* Rounds an F32 tensor to that dtype, in place. */
eqat_status eqi_round_kept(eqi_tensor *t, eqi_stored stored);

/* ---- inside src/model ---- */

/* Fills model->blocks and final_norm with names and shapes, and holds every tensor of the source
 * against them. */
eqat_status eqi_model_layout(eqat_model *model);
/* After it: tensors that nothing has expected are listed in the log, and refused where they would
 * be part of the function. */
eqat_status eqi_model_check_unused(eqat_model *model);
/* EQAT_NUMERIC, naming the tensor, when a value of the files is not finite; looks once. */
eqat_status eqi_model_check_finite(eqat_model *model);
/* EQAT_INVALID_ARGUMENT when there is no such block or linear. */
eqat_status eqi_model_find_linear(eqat_model *model, int64_t block, int64_t index,
                                  const eqi_linear **linear);
eqat_status eqi_load_packed(eqat_model *model, const eqi_linear *linear, eqi_weight *weight);
/* x with the model's rotary tables, as its blocks take it; eqi_model_prepare has made them. */
eqi_block_input eqi_model_input(const eqat_model *model, eqi_tensor *x);
/* What enters the first block, [B, T, H] in the compute dtype: a batch's embeddings, checked, or
 * those of its ids; the other members do not matter. */
eqat_status eqi_model_embed_batch(eqi_tape *tape, eqat_model *model, const eqat_batch *batch,
                                  eqi_tensor **out);
/* ids I32 [B, T] -> [B, T, H] in the compute dtype. */
eqat_status eqi_model_embed(eqi_tape *tape, eqat_model *model, eqi_tensor *ids, eqi_tensor **out);
/* Makes rotary tables long enough for T (again when dynamic scaling wants other ones). */
eqat_status eqi_model_prepare(eqat_model *model, int64_t time);
/* What the head takes, of what leaves the last block. */
eqat_status eqi_model_final_norm(eqi_tape *tape, eqat_model *model, eqi_tensor *x,
                                 eqi_tensor **out);
/* Logits F32 [B, last_n, V] of the last positions. */
eqat_status eqi_model_last_logits(eqi_tape *tape, eqat_model *model, eqi_tensor *x, int64_t last_n,
                                  eqi_tensor **logits);
/* Final norm and chunked cross-entropy against labels I32 [B, T]; from, loss and count as those of
 * eqi_op_linear_cross_entropy. */
eqat_status eqi_model_head_loss(eqi_tape *tape, eqat_model *model, eqi_tensor *x,
                                eqi_tensor *labels, const eqi_distill *from, eqi_tensor **loss,
                                eqi_tensor **count);
/* eqat_model_loss with a share of the divergence (from may be NULL). */
eqat_status eqi_model_loss(eqi_tape *tape, eqat_model *model, const eqat_batch *batch,
                           const eqi_distill *from, eqi_tensor **loss);

/* Checks ids [n] against the vocabulary: EQAT_INVALID_ARGUMENT naming position and id. */
eqat_status eqi_model_check_ids(eqat_model *model, const int32_t *ids, size_t n);
/* The same for labels, of which negative ones are masked, and for positions of sequences of `time`
 * tokens; *length grows to what the rotary tables need, see eqi_model_prepare. */
eqat_status eqi_model_check_labels(eqat_model *model, const int32_t *labels, size_t n);
eqat_status eqi_model_check_positions(eqat_model *model, const int32_t *positions, size_t n,
                                      int64_t time, int64_t *length);

#endif
