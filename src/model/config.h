/* What config.json says of a model: sizes, attention, rotary embedding, experts; and the families,
 * which are rows of a table. */
#ifndef EQI_MODEL_CONFIG_H
#define EQI_MODEL_CONFIG_H

#include <jansson.h>

#include "model/block.h"

#define EQI_BLOCKS_MAX 4096

/* One bit a block. */
typedef struct eqi_block_set {
    uint64_t bits[EQI_BLOCKS_MAX / 64];
} eqi_block_set;

static inline bool eqi_block_in(const eqi_block_set *set, int64_t block)
{
    return set->bits[block / 64] >> (block % 64) & 1;
}

static inline void eqi_block_include(eqi_block_set *set, int64_t block)
{
    set->bits[block / 64] |= (uint64_t)1 << (block % 64);
}

/* Which blocks see only a window of positions. */
typedef enum eqi_window_rule {
    EQI_WINDOW_NONE,
    EQI_WINDOW_ALWAYS,   /* all, when config.json has sliding_window */
    EQI_WINDOW_SWITCHED, /* use_sliding_window turns it on, from block max_window_layers on or as
                            layer_types lists them */
    EQI_WINDOW_SWITCHED_FOR_ALL, /* use_sliding_window turns it on */
    EQI_WINDOW_PATTERN /* as layer_types lists them, or all but every sliding_window_pattern-th */
} eqi_window_rule;

/* What families differ in: a row of the table in family.c. */
typedef struct eqi_family {
    const char *name;         /* "llama" */
    const char *model_type;   /* of config.json */
    const char *architecture; /* "LlamaForCausalLM" */
    const eqi_linear_row *linears;
    const eqi_norm_row *norms;
    eqi_block_graph *graph;
    eqi_block_graph *sparse_graph; /* of mixtures of experts */
    bool qkv_bias;                 /* q, k and v have biases, whatever config.json says */
    bool attention_bias_key;       /* honours attention_bias: q, k, v and o */
    bool mlp_bias_key;             /* honours mlp_bias */
    eqi_window_rule window;
    bool experts;                            /* blocks may be mixtures of experts */
    bool scale_embeddings;                   /* by the root of hidden_size */
    bool tied;                               /* when config.json does not say */
    const char *activation_key, *activation; /* and its value when config.json does not say */
    double theta;                            /* when config.json does not say */
    double local_theta;                      /* of blocks with a window; 0: theta is for all */
    double query_scalar;   /* query_pre_attn_scalar when config.json does not say; 0: head_dim */
    int64_t max_positions; /* when config.json does not say */
    int64_t head_dim;      /* when config.json does not say; 0: hidden / heads */
    double norm_offset;    /* norms multiply by this + gain */
} eqi_family;

const eqi_family *eqi_family_find(const char *model_type); /* NULL: not supported */

typedef enum eqi_rope_kind {
    EQI_ROPE_PLAIN,
    EQI_ROPE_LINEAR,
    EQI_ROPE_DYNAMIC,
    EQI_ROPE_LLAMA3
} eqi_rope_kind;

typedef struct eqi_rope {
    eqi_rope_kind kind;
    double theta, factor, low, high;
    int64_t original;
} eqi_rope;

struct eqi_config {
    const eqi_family *family;
    int64_t hidden, intermediate, blocks, heads, kv_heads, head_dim, vocab, max_positions, window;
    double eps;
    bool tied, attention_bias, o_bias, mlp_bias;
    eqi_activation activation;
    double score_scale;    /* of attention */
    eqi_block_set sliding; /* blocks that see `window` positions */
    eqi_block_set sparse;  /* blocks that are mixtures of experts */
    int64_t experts, experts_per_token, expert_mlp;
    bool normalise_experts; /* the weights of a token's experts sum to 1 */
    int n_ropes;
    eqi_rope ropes[EQI_ROPES];
};

/* From a parsed config.json; `path` is for messages. Unknown architectures, activations, rope types
 * are EQAT_UNSUPPORTED by name. */
eqat_status eqi_config_parse(eqi_ctx *ctx, eqi_config *out, const json_t *json, const char *path);

/* cos and sin F32 [positions, head_dim/2] of one of the config's ropes; `length` matters to dynamic
 * scaling. */
eqat_status eqi_rope_tables(eqi_ctx *ctx, const eqi_config *config, const eqi_rope *rope,
                            int64_t positions, int64_t length, eqi_rotary *out);
void eqi_rotary_release(eqi_rotary *rotary);

#endif
