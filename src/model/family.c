#include <string.h>

#include "model/config.h"

static const eqi_linear_row linears[] = {
    {EQI_Q, "self_attn.q_proj", EQI_SIZE_QUERIES, EQI_SIZE_HIDDEN, EQI_BIAS_QKV},
    {EQI_K, "self_attn.k_proj", EQI_SIZE_KEYS, EQI_SIZE_HIDDEN, EQI_BIAS_QKV},
    {EQI_V, "self_attn.v_proj", EQI_SIZE_KEYS, EQI_SIZE_HIDDEN, EQI_BIAS_QKV},
    {EQI_O, "self_attn.o_proj", EQI_SIZE_HIDDEN, EQI_SIZE_QUERIES, EQI_BIAS_O},
    {EQI_GATE, "mlp.gate_proj", EQI_SIZE_MLP, EQI_SIZE_HIDDEN, EQI_BIAS_MLP},
    {EQI_UP, "mlp.up_proj", EQI_SIZE_MLP, EQI_SIZE_HIDDEN, EQI_BIAS_MLP},
    {EQI_DOWN, "mlp.down_proj", EQI_SIZE_HIDDEN, EQI_SIZE_MLP, EQI_BIAS_MLP},
    {.name = NULL},
};

/* Those of experts come last. */
static const eqi_linear_row linears_of_experts[] = {
    {EQI_Q, "self_attn.q_proj", EQI_SIZE_QUERIES, EQI_SIZE_HIDDEN, EQI_BIAS_QKV},
    {EQI_K, "self_attn.k_proj", EQI_SIZE_KEYS, EQI_SIZE_HIDDEN, EQI_BIAS_QKV},
    {EQI_V, "self_attn.v_proj", EQI_SIZE_KEYS, EQI_SIZE_HIDDEN, EQI_BIAS_QKV},
    {EQI_O, "self_attn.o_proj", EQI_SIZE_HIDDEN, EQI_SIZE_QUERIES, EQI_BIAS_O},
    {EQI_GATE, "mlp.gate_proj", EQI_SIZE_MLP, EQI_SIZE_HIDDEN, .where = EQI_IN_DENSE},
    {EQI_UP, "mlp.up_proj", EQI_SIZE_MLP, EQI_SIZE_HIDDEN, .where = EQI_IN_DENSE},
    {EQI_DOWN, "mlp.down_proj", EQI_SIZE_HIDDEN, EQI_SIZE_MLP, .where = EQI_IN_DENSE},
    {EQI_ROUTER, "mlp.gate", EQI_SIZE_EXPERTS, EQI_SIZE_HIDDEN, .where = EQI_IN_SPARSE,
     .plain = true},
    {EQI_GATE, "mlp.experts.%d.gate_proj", EQI_SIZE_EXPERT_MLP, EQI_SIZE_HIDDEN,
     .where = EQI_IN_EXPERTS},
    {EQI_UP, "mlp.experts.%d.up_proj", EQI_SIZE_EXPERT_MLP, EQI_SIZE_HIDDEN,
     .where = EQI_IN_EXPERTS},
    {EQI_DOWN, "mlp.experts.%d.down_proj", EQI_SIZE_HIDDEN, EQI_SIZE_EXPERT_MLP,
     .where = EQI_IN_EXPERTS},
    {.name = NULL},
};

static const eqi_norm_row norms[] = {
    {EQI_NORM_ATTN, "input_layernorm.weight", EQI_SIZE_HIDDEN},
    {EQI_NORM_MLP, "post_attention_layernorm.weight", EQI_SIZE_HIDDEN},
    {.name = NULL},
};

static const eqi_norm_row norms_of_heads_too[] = {
    {EQI_NORM_ATTN, "input_layernorm.weight", EQI_SIZE_HIDDEN},
    {EQI_NORM_MLP, "post_attention_layernorm.weight", EQI_SIZE_HIDDEN},
    {EQI_NORM_Q, "self_attn.q_norm.weight", EQI_SIZE_HEAD},
    {EQI_NORM_K, "self_attn.k_norm.weight", EQI_SIZE_HEAD},
    {.name = NULL},
};

static const eqi_norm_row norms_around_branches[] = {
    {EQI_NORM_ATTN, "input_layernorm.weight", EQI_SIZE_HIDDEN},
    {EQI_NORM_ATTN_OUT, "post_attention_layernorm.weight", EQI_SIZE_HIDDEN},
    {EQI_NORM_MLP, "pre_feedforward_layernorm.weight", EQI_SIZE_HIDDEN},
    {EQI_NORM_MLP_OUT, "post_feedforward_layernorm.weight", EQI_SIZE_HIDDEN},
    {EQI_NORM_Q, "self_attn.q_norm.weight", EQI_SIZE_HEAD},
    {EQI_NORM_K, "self_attn.k_norm.weight", EQI_SIZE_HEAD},
    {.name = NULL},
};

#define USUAL                                                                         \
    .graph = eqi_graph_decoder, .activation_key = "hidden_act", .activation = "silu", \
    .theta = 10000, .max_positions = 2048

static const eqi_family families[] = {
    {.name = "llama",
     .model_type = "llama",
     .architecture = "LlamaForCausalLM",
     .linears = linears,
     .norms = norms,
     USUAL,
     .attention_bias_key = true,
     .mlp_bias_key = true},
    {.name = "mistral",
     .model_type = "mistral",
     .architecture = "MistralForCausalLM",
     .linears = linears,
     .norms = norms,
     USUAL,
     .window = EQI_WINDOW_ALWAYS},
    {.name = "qwen2",
     .model_type = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .linears = linears,
     .norms = norms,
     USUAL,
     .qkv_bias = true,
     .window = EQI_WINDOW_SWITCHED},
    {.name = "qwen3",
     .model_type = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .linears = linears,
     .norms = norms_of_heads_too,
     USUAL,
     .attention_bias_key = true,
     .window = EQI_WINDOW_SWITCHED,
     .head_dim = 128},
    {.name = "qwen3_moe",
     .model_type = "qwen3_moe",
     .architecture = "Qwen3MoeForCausalLM",
     .linears = linears_of_experts,
     .norms = norms_of_heads_too,
     USUAL,
     .sparse_graph = eqi_graph_experts,
     .attention_bias_key = true,
     .window = EQI_WINDOW_SWITCHED_FOR_ALL,
     .experts = true},
    {.name = "gemma3",
     .model_type = "gemma3_text",
     .architecture = "Gemma3ForCausalLM",
     .linears = linears,
     .norms = norms_around_branches,
     .graph = eqi_graph_decoder,
     .activation_key = "hidden_activation",
     .activation = "gelu_pytorch_tanh",
     .attention_bias_key = true,
     .window = EQI_WINDOW_PATTERN,
     .head_dim = 256,
     .norm_offset = 1,
     .scale_embeddings = true,
     .tied = true,
     .theta = 1e6,
     .local_theta = 10000,
     .query_scalar = 256,
     .max_positions = 131072},
};

const eqi_family *eqi_family_find(const char *model_type)
{
    for (size_t i = 0; i < EQI_COUNT(families); i++)
        if (!strcmp(families[i].model_type, model_type)) return &families[i];
    return NULL;
}
