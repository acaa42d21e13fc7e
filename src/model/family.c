#include "model/model.h"

#include <string.h>

static const eqi_family families[] = {
    {.name = "llama",
     .model_type = "llama",
     .architecture = "LlamaForCausalLM",
     .attention_bias_key = true,
     .mlp_bias_key = true},
    {.name = "mistral",
     .model_type = "mistral",
     .architecture = "MistralForCausalLM",
     .window = EQI_WINDOW_ALWAYS},
    {.name = "qwen2",
     .model_type = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .qkv_bias = true,
     .window = EQI_WINDOW_SWITCHED},
    {.name = "qwen3",
     .model_type = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .attention_bias_key = true,
     .qk_norm = true,
     .window = EQI_WINDOW_SWITCHED,
     .head_dim = 128},
};

const eqi_family *eqi_family_find(const char *model_type)
{
    for (size_t i = 0; i < EQI_COUNT(families); i++)
        if (!strcmp(families[i].model_type, model_type)) return &families[i];
    return NULL;
}
