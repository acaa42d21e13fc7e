/* A decoder block as data: any number of linears and norms, each with its role, and the graph that
 * puts them together. Who keeps their weights in memory: weights.h. */
#ifndef EQI_MODEL_BLOCK_H
#define EQI_MODEL_BLOCK_H

#include "eqat/quantizer.h"
#include "format/layout.h"
#include "format/source.h"
#include "ops/ops.h"
#include "quant/kind.h"

typedef struct eqi_config eqi_config;
typedef struct eqi_block eqi_block;

typedef enum eqi_role {
    EQI_Q,
    EQI_K,
    EQI_V,
    EQI_O,
    EQI_GATE, /* of the whole MLP or, with `expert` of the linear, of one expert */
    EQI_UP,
    EQI_DOWN,
    EQI_ROUTER
} eqi_role;

typedef enum eqi_norm_role {
    EQI_NORM_ATTN, /* in front of attention */
    EQI_NORM_ATTN_OUT,
    EQI_NORM_MLP,
    EQI_NORM_MLP_OUT,
    EQI_NORM_Q,
    EQI_NORM_K
} eqi_norm_role;

typedef struct eqi_linear {
    eqi_role role;
    int expert;        /* 0 where there are none */
    bool plain;        /* never quantized: trains as a plain weight */
    char name[96];     /* "model.layers.0.self_attn.q_proj" */
    const char *local; /* "self_attn.q_proj", inside name */
    int64_t out, in;
    bool has_bias;
    eqi_weight weight; /* what is in memory: all NULL when nothing is */
    /* While it trains, in a block of a job's own: how it is quantized, and the kind's tensors. */
    eqi_quant quant;
    eqi_tensor *beside[EQI_KIND_TENSORS];
    eqi_tensor *moments; /* of its inputs, shared by all that have the same; or NULL */
    bool measures;       /* every pass adds its inputs to the moments */
    eqi_stored stored;   /* dtype of the weight in the input, when it is dense there */
    eqi_stored bias_stored;
    eqi_quant_desc file; /* of a linear that is packed in the input; bits 0: dense there */
} eqi_linear;

typedef struct eqi_norm {
    eqi_norm_role role;
    char name[96]; /* "model.layers.0.input_layernorm.weight" */
    const char *local;
    int64_t size;
    eqi_tensor *gain; /* F32 */
    eqi_stored stored;
} eqi_norm;

/* Where a block's weights are, and which copy is the newest. docs/architecture.md draws it.
 *
 *            acquire: a copy for the pass at hand
 *   DENSE  ------------------------------------------> dropped by release
 *     | keep (handed out)        | masters (a copy of a job's own)
 *     v                          v
 *   MASTERS                    MASTERS -- freeze --> FROZEN
 *     | set_linear               in the job             | put
 *     v                                                 v
 *   PACKED <---------------------------------------- PACKED, in the model */
typedef enum eqi_block_state {
    EQI_BLOCK_DENSE,   /* the file has all of it */
    EQI_BLOCK_MASTERS, /* F32 in memory, which may be newer than the file */
    EQI_BLOCK_FROZEN,  /* rounded, with codes taken; the stream is not yet behind it */
    EQI_BLOCK_PACKED   /* codes in memory, perhaps the host's (eqi_block_offload); the F32 tensors
                          beside them may be newer than the file */
} eqi_block_state;

/* cos and sin F32 [positions, head_dim / 2]. */
typedef struct eqi_rotary {
    eqi_tensor *cos, *sin;
} eqi_rotary;

#define EQI_ROPES 2 /* of whole attention, and of windows where those have one of their own */

/* Keys and values of earlier positions, [B, capacity, KV, D] in the compute dtype, of which
 * `length` are there. */
typedef struct eqi_kv {
    eqi_tensor *k, *v;
    int64_t length;
} eqi_kv;

typedef struct eqi_block_input {
    eqi_tensor *x;                    /* [B, T, H] in the compute dtype */
    eqi_tensor *positions, *segments; /* I32 [B, T] or NULL; segments not with kv */
    const eqi_rotary *rotary;         /* EQI_ROPES of them */
    /* NULL: no earlier positions; else T more are put in, and `positions` tells where they are. */
    eqi_kv *kv;
} eqi_block_input;

/* Records the block on the tape: in->x [B, T, H] -> *out [B, T, H]. The weights are in memory. */
typedef eqat_status eqi_block_graph(eqi_tape *tape, const eqi_block *block,
                                    const eqi_block_input *in, eqi_tensor **out);

/* What attention differs in from block to block. */
typedef struct eqi_attention {
    int64_t heads, kv_heads, head_dim;
    int64_t window; /* 0: everything before */
    double scale;   /* of the scores */
    double softcap; /* 0: none */
    int rope;       /* which of the rotary tables */
} eqi_attention;

struct eqi_block {
    int64_t index;
    const eqi_config *config;
    eqi_block_graph *graph;
    eqi_attention attention;
    int n_linears, n_norms;
    eqi_linear *linears; /* in the family's order */
    eqi_norm *norms;
    eqi_block_state state;
    int readers;     /* passes that have acquired it */
    bool handed_out; /* somebody knows its tensors, which have to stay where they are */
};

/* The one of this role and expert; NULL: the block has none. */
const eqi_linear *eqi_block_linear(const eqi_block *block, eqi_role role, int expert);
/* Whether both, of one block, have the same inputs: q, k and v; gate and up. */
bool eqi_linear_shares_input(const eqi_linear *a, const eqi_linear *b);
/* How a quantizer quantizes it: eqi_quantizer_choose, unless it is plain. */
eqat_status eqi_linear_choose(const eqi_linear *linear, const eqat_quantizer *quantizer,
                              eqi_quant *quant);
const eqi_norm *eqi_block_norm(const eqi_block *block, eqi_norm_role role);

/* x [.., in] -> [.., out] through a linear in whatever form its weight has. */
eqat_status eqi_linear_forward(eqi_tape *tape, const eqi_linear *linear, eqi_tensor *x,
                               eqi_tensor **out);
/* The same by role. */
eqat_status eqi_block_apply(eqi_tape *tape, const eqi_block *block, eqi_role role, eqi_tensor *x,
                            eqi_tensor **out);
/* x normalised by the block's norm of this role. */
eqat_status eqi_block_normalise(eqi_tape *tape, const eqi_block *block, eqi_norm_role role,
                                eqi_tensor *x, eqi_tensor **out);

eqat_status eqi_block_forward(eqi_tape *tape, const eqi_block *block, const eqi_block_input *in,
                              eqi_tensor **out);

/* What a linear is by now, in memory or, when it is not there, in the file; bits 0: dense. */
eqi_quant_desc eqi_linear_quantization(const eqi_linear *linear);

/* The linear as storage layouts see it, packed as `q`. */
eqi_layout_linear eqi_linear_described(const eqi_linear *linear, eqi_quant_desc q);

/* --- the rows that families list: their linears and norms, in order; name NULL ends them --- */

/* The sizes that shapes are made of. */
typedef enum eqi_size {
    EQI_SIZE_HIDDEN,
    EQI_SIZE_QUERIES, /* heads * head_dim */
    EQI_SIZE_KEYS,    /* kv_heads * head_dim */
    EQI_SIZE_MLP,
    EQI_SIZE_HEAD,
    EQI_SIZE_EXPERTS,
    EQI_SIZE_EXPERT_MLP
} eqi_size;

typedef enum eqi_bias { EQI_BIAS_NONE, EQI_BIAS_QKV, EQI_BIAS_O, EQI_BIAS_MLP } eqi_bias;

/* Which blocks have it. */
typedef enum eqi_where { EQI_EVERYWHERE, EQI_IN_DENSE, EQI_IN_SPARSE, EQI_IN_EXPERTS } eqi_where;

typedef struct eqi_linear_row {
    eqi_role role;
    const char *name; /* inside the block, "self_attn.q_proj"; one %d for the number of an expert */
    eqi_size out, in;
    eqi_bias bias;
    eqi_where where; /* EQI_IN_EXPERTS: once for each, in sparse blocks */
    bool plain;
} eqi_linear_row;

typedef struct eqi_norm_row {
    eqi_norm_role role;
    const char *name; /* "input_layernorm.weight" */
    eqi_size size;
} eqi_norm_row;

/* Llama and everything shaped like it: with or without norms of heads and behind the branches. */
eqi_block_graph eqi_graph_decoder;
/* The same with experts in place of the MLP. */
eqi_block_graph eqi_graph_experts;

#endif
