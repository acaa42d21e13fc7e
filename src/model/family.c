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

static const eqi_family families[] = {
    {.name = "llama",
     .model_type = "llama",
     .architecture = "LlamaForCausalLM",
     .linears = linears,
     .norms = norms,
     .graph = eqi_graph_decoder,
     .attention_bias_key = true,
     .mlp_bias_key = true},
    {.name = "mistral",
     .model_type = "mistral",
     .architecture = "MistralForCausalLM",
     .linears = linears,
     .norms = norms,
     .graph = eqi_graph_decoder,
     .window = EQI_WINDOW_ALWAYS},
    {.name = "qwen2",
     .model_type = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .linears = linears,
     .norms = norms,
     .graph = eqi_graph_decoder,
     .qkv_bias = true,
     .window = EQI_WINDOW_SWITCHED},
    {.name = "qwen3",
     .model_type = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .linears = linears,
     .norms = norms_of_heads_too,
     .graph = eqi_graph_decoder,
     .attention_bias_key = true,
     .window = EQI_WINDOW_SWITCHED,
     .head_dim = 128},
};

const eqi_family *eqi_family_find(const char *model_type)
{
    for (size_t i = 0; i < EQI_COUNT(families); i++)
        if (!strcmp(families[i].model_type, model_type)) return &families[i];
    return NULL;
}
