/* A model inside the library: configuration, where its tensors come from, and one record per block. */
#ifndef EQI_MODEL_MODEL_H
#define EQI_MODEL_MODEL_H

#include <jansson.h>

#include "base/context.h"
#include "eqat/model.h"
#include "format/source.h"
#include "ops/ops.h"

typedef enum eqi_rope_kind { EQI_ROPE_PLAIN, EQI_ROPE_LINEAR, EQI_ROPE_DYNAMIC, EQI_ROPE_LLAMA3 } eqi_rope_kind;

/* What families differ in: a row of the table in family.c. */
typedef struct eqi_family {
    const char *name;          /* "llama" */
    const char *model_type;    /* of config.json */
    const char *architecture;  /* "LlamaForCausalLM" */
    bool qkv_bias;             /* default when config.json does not say */
    bool qk_norm;              /* per-head RMSNorm of q and k */
    bool sliding_window;       /* honours config.json's sliding_window */
} eqi_family;

const eqi_family *eqi_family_find(const char *model_type); /* NULL: not supported */

typedef struct eqi_config {
    const eqi_family *family;
    int64_t hidden, intermediate, blocks, heads, kv_heads, head_dim, vocab, max_positions, window;
    double eps;
    bool tied, attention_bias, o_bias, mlp_bias;
    eqi_rope_kind rope;
    double rope_theta, rope_factor, rope_low, rope_high;
    int64_t rope_original;
    int64_t window_from; /* blocks below this number see everything (Qwen2's max_window_layers) */
} eqi_config;

/* From a parsed config.json; `path` is for messages. Unknown architectures, activations, rope types are EQAT_UNSUPPORTED by name. */
eqat_status eqi_config_parse(eqi_ctx *ctx, eqi_config *out, const json_t *json, const char *path);

/* cos and sin F32 [positions, head_dim/2]; `length` matters to dynamic scaling. */
eqat_status eqi_rope_tables(eqi_ctx *ctx, const eqi_config *config, int64_t positions, int64_t length, eqi_tensor **cos,
                            eqi_tensor **sin);

/* The linears of a block are rows of a table, so that nothing counts on seven of them. */
typedef enum eqi_role { EQI_Q, EQI_K, EQI_V, EQI_O, EQI_GATE, EQI_UP, EQI_DOWN, EQI_ROLE_COUNT } eqi_role;

typedef struct eqi_linear {
    char name[96]; /* "model.layers.0.self_attn.q_proj" */
    const char *local; /* "self_attn.q_proj", inside name */
    int64_t out, in;
    eqi_weight weight; /* what is loaded: all NULL when nothing is */
    eqi_stored stored; /* dtype of the weight in the input */
} eqi_linear;

typedef struct eqi_norm {
    char name[96]; /* "model.layers.0.input_layernorm.weight" */
    const char *local;
    int64_t size;
    eqi_tensor *gain; /* F32 */
    eqi_stored stored;
} eqi_norm;

typedef enum eqi_norm_role { EQI_NORM_ATTN, EQI_NORM_MLP, EQI_NORM_Q, EQI_NORM_K, EQI_NORM_COUNT } eqi_norm_role;

typedef struct eqi_block {
    int64_t index;
    int n_linears;
    eqi_linear linears[EQI_ROLE_COUNT]; /* by role */
    eqi_norm norms[EQI_NORM_COUNT];     /* size 0: this family has none */
    bool resident;                      /* packed (or pinned by the user): weights stay in memory */
    bool loaded;
} eqi_block;

struct eqat_model {
    eqi_ctx *ctx;
    int refs;
    char *path;
    json_t *json;       /* config.json as it came */
    eqi_config config;
    eqi_source *source; /* Hugging Face names, rows as Hugging Face has them */
    eqat_tokenizer *tokenizer;
    eqi_dtype compute;
    eqi_block *blocks;
    eqi_norm final_norm;
    eqi_tensor *embedding; /* [V, H] in the stored dtype (F32, F16 or BF16), loaded on first use */
    eqi_tensor *head;      /* [V, H]; the same tensor when tied */
    eqi_tensor *rope_cos, *rope_sin; /* tables for rope_length positions */
    int64_t rope_length;
};

eqat_model *eqi_model_ref(eqat_model *model);

/* Loads a dense block: linears as `dtype` (F32 masters for training, or the compute dtype for forward passes), norms and biases as F32; a
 * quantized block loads packed and becomes resident. A resident block is left as it is. NaN or infinite weights are
 * EQAT_NUMERIC naming the tensor when check_finite. */
eqat_status eqi_block_load(eqat_model *model, int64_t index, eqi_dtype dtype, bool check_finite);
/* Drops a block's weights unless it is resident. */
void eqi_block_unload(eqat_model *model, int64_t index);
/* Replaces a linear's weight by packed codes and marks the block resident; takes over the references in *packed. */
void eqi_block_set_packed(eqat_model *model, int64_t index, int linear, eqi_weight *packed);

/* x [B, T, H] -> out [B, T, H] through one block whose weights are loaded. positions, segments: I32 [B, T] or NULL. */
eqat_status eqi_block_forward(eqi_tape *tape, eqat_model *model, int64_t index, eqi_tensor *x, eqi_tensor *positions,
                              eqi_tensor *segments, eqi_tensor **out);
/* ids I32 [B, T] -> [B, T, H] in the compute dtype. */
eqat_status eqi_model_embed(eqi_tape *tape, eqat_model *model, eqi_tensor *ids, eqi_tensor **out);
/* Makes rope tables long enough for T (again when dynamic scaling wants other ones). */
eqat_status eqi_model_prepare(eqat_model *model, int64_t time);
/* Loads embeddings, head and final norm. */
eqat_status eqi_model_load_ends(eqat_model *model);
/* Drops them, unless they were handed out as parameters; the next use loads them again. Block-AP needs the embedding table, which can
 * be larger than a block, for a moment only. */
void eqi_model_unload_ends(eqat_model *model);
/* Final norm and chunked cross-entropy against labels I32 [B, T]; loss as eqi_op_linear_cross_entropy. */
eqat_status eqi_model_head_loss(eqi_tape *tape, eqat_model *model, eqi_tensor *x, eqi_tensor *labels, eqi_tensor **loss,
                                eqi_tensor **count);

/* Checks ids [n] against the vocabulary: EQAT_INVALID_ARGUMENT naming position and id. */
eqat_status eqi_model_check_ids(eqat_model *model, const int32_t *ids, size_t n);

#endif
