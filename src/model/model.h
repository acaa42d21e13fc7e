/* A model inside the library: configuration, where its tensors come from, and one record per block.
 */
#ifndef EQI_MODEL_MODEL_H
#define EQI_MODEL_MODEL_H

#include <jansson.h>

#include "base/context.h"
#include "eqat/model.h"
#include "format/layout.h"
#include "format/source.h"
#include "ops/ops.h"

typedef enum eqi_rope_kind {
    EQI_ROPE_PLAIN,
    EQI_ROPE_LINEAR,
    EQI_ROPE_DYNAMIC,
    EQI_ROPE_LLAMA3
} eqi_rope_kind;

/* Which blocks see only a window of positions. */
typedef enum eqi_window_rule {
    EQI_WINDOW_NONE,
    EQI_WINDOW_ALWAYS,  /* all, when config.json has sliding_window */
    EQI_WINDOW_SWITCHED /* use_sliding_window turns it on, from block max_window_layers on or as
                           layer_types lists them */
} eqi_window_rule;

/* What families differ in: a row of the table in family.c. */
typedef struct eqi_family {
    const char *name;         /* "llama" */
    const char *model_type;   /* of config.json */
    const char *architecture; /* "LlamaForCausalLM" */
    bool qkv_bias;            /* q, k and v have biases, whatever config.json says */
    bool attention_bias_key;  /* honours attention_bias: q, k, v and o */
    bool mlp_bias_key;        /* honours mlp_bias */
    bool qk_norm;             /* per-head RMSNorm of q and k */
    eqi_window_rule window;
    int64_t head_dim; /* when config.json does not say; 0: hidden / heads */
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

/* From a parsed config.json; `path` is for messages. Unknown architectures, activations, rope types
 * are EQAT_UNSUPPORTED by name. */
eqat_status eqi_config_parse(eqi_ctx *ctx, eqi_config *out, const json_t *json, const char *path);

/* cos and sin F32 [positions, head_dim/2]; `length` matters to dynamic scaling. */
eqat_status eqi_rope_tables(eqi_ctx *ctx, const eqi_config *config, int64_t positions,
                            int64_t length, eqi_tensor **cos, eqi_tensor **sin);

/* The linears of a block are rows of a table, so that nothing counts on seven of them. */
typedef enum eqi_role {
    EQI_Q,
    EQI_K,
    EQI_V,
    EQI_O,
    EQI_GATE,
    EQI_UP,
    EQI_DOWN,
    EQI_ROLE_COUNT
} eqi_role;

typedef struct eqi_linear {
    char name[96];     /* "model.layers.0.self_attn.q_proj" */
    const char *local; /* "self_attn.q_proj", inside name */
    int64_t out, in;
    bool has_bias;
    eqi_weight weight; /* what is loaded: all NULL when nothing is */
    eqi_stored stored; /* dtype of the weight in the input, when it is dense there */
    eqi_stored bias_stored;
    eqi_quant_desc file; /* of a linear that is packed in the input; bits 0: dense there */
} eqi_linear;

typedef struct eqi_norm {
    char name[96]; /* "model.layers.0.input_layernorm.weight" */
    const char *local;
    int64_t size;
    eqi_tensor *gain; /* F32 */
    eqi_stored stored;
} eqi_norm;

typedef enum eqi_norm_role {
    EQI_NORM_ATTN,
    EQI_NORM_MLP,
    EQI_NORM_Q,
    EQI_NORM_K,
    EQI_NORM_COUNT
} eqi_norm_role;

typedef struct eqi_block {
    int64_t index;
    int n_linears;
    eqi_linear linears[EQI_ROLE_COUNT]; /* by role */
    eqi_norm norms[EQI_NORM_COUNT];     /* size 0: this family has none */
    bool resident;                      /* packed (or pinned by the user): weights stay in memory */
    bool loaded;
    bool in_work; /* of a Block-AP job */
} eqi_block;

struct eqat_model {
    eqi_ctx *ctx;
    int refs;
    char *path;
    json_t *json; /* config.json as it came */
    eqi_config config;
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
    eqi_tensor *rope_cos, *rope_sin; /* tables for rope_length positions */
    int64_t rope_length,
        rope_scaled; /* rope_scaled: the length that dynamic scaling was made for */
    bool
        in_training; /* of an E2E-QP job: its step sizes and zero points are not those to be kept */
};

eqat_model *eqi_model_ref(eqat_model *model);
/* EQAT_INVALID_ARGUMENT while a Block-AP job has this block, or any block, in work. */
eqat_status eqi_block_check_idle(const eqat_model *model, int64_t index);
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
eqi_stored eqi_stored_as(eqi_dtype dtype);
void eqi_narrow(const float *restrict x, int64_t n, eqi_dtype dtype,
                uint16_t *restrict y); /* to BF16 or F16 */
/* Index of the first value (F32, BF16 or F16) that is not finite, or n. */
int64_t eqi_first_bad(const void *values, int64_t n, eqi_dtype dtype);
/* Rows to read at once of an entry seen as [rows, width]. */
int64_t eqi_chunk_rows(const eqi_source_entry *entry, int64_t *rows, int64_t *width);
/* Elements [first, first + n) as `dtype`, values as they are kept; *out is one of the two buffers
 * of n elements. */
eqat_status eqi_read_chunk(eqat_model *model, const eqi_source_entry *entry, int64_t first,
                           int64_t n, eqi_dtype dtype, bool check_finite, float *wide,
                           uint16_t *narrow, const void **out);
/* A whole float tensor of the source, the same way. */
eqat_status eqi_read_tensor(eqat_model *model, const char *name, eqi_dtype dtype, bool check_finite,
                            eqi_tensor **out);
/* What a linear is by now, in memory or, when it is not loaded, in the file; bits 0: dense. */
eqi_quant_desc eqi_linear_quantization(const eqi_linear *linear);
/* The linear as storage layouts see it, packed as `q`. */
eqi_layout_linear eqi_linear_described(const eqi_linear *linear, eqi_quant_desc q);
eqat_status eqi_load_packed(eqat_model *model, const eqi_linear *linear, eqi_weight *weight);
eqat_status eqi_model_load_embedding(eqat_model *model);
/* config.json, with quantization_config as the layout has it, and the small files beside it. */
eqat_status eqi_save_config(eqat_model *model, const eqi_layout *layout, const char *dir);
/* eqi_block_forward with rotary tables of the caller's. */
eqat_status eqi_block_graph(eqi_tape *tape, eqat_model *model, int64_t index, eqi_tensor *cos,
                            eqi_tensor *sin, eqi_tensor *x, eqi_tensor *positions,
                            eqi_tensor *segments, eqi_tensor **out);

/* Loads a dense block: linears as `dtype` (F32 masters for training, or the compute dtype for
 * forward passes), norms and biases as F32; a quantized block loads packed and becomes resident.
 * What a resident block holds packed or as F32 is left as it is. NaN or infinite weights are
 * EQAT_NUMERIC naming the tensor when check_finite. */
eqat_status eqi_block_load(eqat_model *model, int64_t index, eqi_dtype dtype, bool check_finite);
/* Drops a block's weights unless it is resident. */
void eqi_block_unload(eqat_model *model, int64_t index);
/* Replaces a linear's weight by packed codes and marks the block resident; takes over the
 * references in *packed. */
void eqi_block_set_packed(eqat_model *model, int64_t index, int linear, eqi_weight *packed);

/* x [B, T, H] -> out [B, T, H] through one block whose weights are loaded. positions, segments: I32
 * [B, T] or NULL. */
eqat_status eqi_block_forward(eqi_tape *tape, eqat_model *model, int64_t index, eqi_tensor *x,
                              eqi_tensor *positions, eqi_tensor *segments, eqi_tensor **out);
/* ids I32 [B, T] -> [B, T, H] in the compute dtype. */
eqat_status eqi_model_embed(eqi_tape *tape, eqat_model *model, eqi_tensor *ids, eqi_tensor **out);
/* Makes rope tables long enough for T (again when dynamic scaling wants other ones). */
eqat_status eqi_model_prepare(eqat_model *model, int64_t time);
/* Loads embeddings, head and final norm. */
eqat_status eqi_model_load_ends(eqat_model *model);
/* Drops embeddings and head, unless they were handed out as parameters; the next use loads them
 * again. Block-AP needs the embedding table, which can be larger than a block, for a moment only.
 */
void eqi_model_unload_ends(eqat_model *model);
/* Final norm and chunked cross-entropy against labels I32 [B, T]; loss as
 * eqi_op_linear_cross_entropy. */
eqat_status eqi_model_head_loss(eqi_tape *tape, eqat_model *model, eqi_tensor *x,
                                eqi_tensor *labels, eqi_tensor **loss, eqi_tensor **count);

/* Checks ids [n] against the vocabulary: EQAT_INVALID_ARGUMENT naming position and id. */
eqat_status eqi_model_check_ids(eqat_model *model, const int32_t *ids, size_t n);

#endif
