#include "format/gguf_names.h"

#include <stdio.h>
#include <string.h>

#include "format/gguf_impl.h"
#include "format/source_impl.h"

static const struct {
    const char *gguf, *hf;
    bool rotary; /* its rows turn with the position */
} block_names[] =
    {
        {"attn_norm.weight", "input_layernorm.weight", false},
        {"attn_q.weight", "self_attn.q_proj.weight", true},
        {"attn_q.bias", "self_attn.q_proj.bias", true},
        {"attn_k.weight", "self_attn.k_proj.weight", true},
        {"attn_k.bias", "self_attn.k_proj.bias", true},
        {"attn_v.weight", "self_attn.v_proj.weight", false},
        {"attn_v.bias", "self_attn.v_proj.bias", false},
        {"attn_output.weight", "self_attn.o_proj.weight", false},
        {"attn_output.bias", "self_attn.o_proj.bias", false},
        {"attn_q_norm.weight", "self_attn.q_norm.weight", false},
        {"attn_k_norm.weight", "self_attn.k_norm.weight", false},
        {"ffn_norm.weight", "post_attention_layernorm.weight", false},
        {"ffn_gate.weight", "mlp.gate_proj.weight", false},
        {"ffn_gate.bias", "mlp.gate_proj.bias", false},
        {"ffn_up.weight", "mlp.up_proj.weight", false},
        {"ffn_up.bias", "mlp.up_proj.bias", false},
        {"ffn_down.weight", "mlp.down_proj.weight", false},
        {"ffn_down.bias", "mlp.down_proj.bias", false},
},
  model_names[] = {
      {"token_embd.weight", "model.embed_tokens.weight", false},
      {"output_norm.weight", "model.norm.weight", false},
      {"output.weight", "lm_head.weight", false},
};

/* The number in "blk.12.", in its one canonical spelling; NULL, or what follows it. */
static const char *parse_block(const char *name, int64_t *block)
{
    if (strncmp(name, "blk.", 4)) return NULL;
    const char *p = name + 4;
    int64_t n = 0;
    int digits = 0;
    for (; *p >= '0' && *p <= '9' && digits < 7; p++, digits++) n = 10 * n + (*p - '0');
    if (digits == 0 || *p != '.' || (digits > 1 && name[4] == '0')) return NULL;
    *block = n;
    return p + 1;
}

static bool find_name(const char *name, char out[EQI_HF_NAME_MAX], int64_t *block, bool *rotary)
{
    const char *rest = parse_block(name, block);
    if (!rest) {
        *block = -1;
        *rotary = false;
        for (size_t i = 0; i < EQI_COUNT(model_names); i++)
            if (!strcmp(name, model_names[i].gguf)) {
                snprintf(out, EQI_HF_NAME_MAX, "%s", model_names[i].hf);
                return true;
            }
        return false;
    }
    for (size_t i = 0; i < EQI_COUNT(block_names); i++)
        if (!strcmp(rest, block_names[i].gguf)) {
            snprintf(out, EQI_HF_NAME_MAX, "model.layers.%lld.%s", (long long)*block,
                     block_names[i].hf);
            *rotary = block_names[i].rotary;
            return true;
        }
    return false;
}

bool eqi_gguf_hf_name(const char *gguf_name, char out[EQI_HF_NAME_MAX], int64_t *block)
{
    int64_t n;
    bool rotary;
    if (!find_name(gguf_name, out, &n, &rotary)) return false;
    if (block) *block = n;
    return true;
}

/* Rope tables are part of the configuration, and may also have been stored per block by old
 * converters. */
static bool is_rope_table(const char *name)
{
    int64_t block;
    const char *rest = parse_block(name, &block);
    return !strcmp(name, "rope_freqs.weight") || (rest && !strcmp(rest, "attn_rot_embd.weight"));
}

static eqat_status add_tensor(eqi_gguf *g, eqi_source *s, const eqi_source_entry *e,
                              bool interleaved, int64_t blocks, int64_t head_dim)
{
    eqi_ctx *ctx = eqi_gguf_context(g);
    const char *path = eqi_gguf_path(g);
    char name[EQI_HF_NAME_MAX];
    int64_t block;
    bool rotary;
    if (!find_name(e->name, name, &block, &rotary))
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: tensor '%.200s': not known for architecture %.40s", path, e->name,
                        eqi_gguf_string(g, "general.architecture", NULL));
    if (block >= blocks)
        return eqi_fail(
            ctx, EQAT_FORMAT,
            "%s: tensor '%.200s': found block %lld, expected fewer than the %lld of the model",
            path, e->name, (long long)block, (long long)blocks);
    EQI_RETURN_IF(eqi_source_add(s, name, e));
    if (!rotary || !interleaved) return EQAT_OK;
    const int64_t rows = e->ndim ? e->shape[0] : 0;
    if (rows == 0 || rows % head_dim || head_dim % 2)
        return eqi_fail(ctx, EQAT_FORMAT,
                        "%s: tensor '%.200s': found %lld rows, expected heads of %lld", path,
                        e->name, (long long)rows, (long long)head_dim);
    if (e->elements / rows % eqi_stored_block(e->stored))
        return eqi_fail(ctx, EQAT_FORMAT, "%s: tensor '%.200s': found type %s for a single column",
                        path, e->name, eqi_stored_name(e->stored));
    s->items[s->count - 1].interleaved_heads = rows / head_dim;
    return EQAT_OK;
}

static eqat_status fill_source(eqi_gguf *g, eqi_source *s, const json_t *config)
{
    const int64_t blocks = json_integer_value(json_object_get(config, "num_hidden_layers"));
    const int64_t head_dim = json_integer_value(json_object_get(config, "head_dim"));
    const bool interleaved = !strcmp(eqi_gguf_string(g, "general.architecture", NULL), "llama");
    const eqi_source *tensors = eqi_gguf_tensors(g);
    for (size_t i = 0; i < eqi_source_count(tensors); i++) {
        const eqi_source_entry *e = eqi_source_at(tensors, i);
        if (!is_rope_table(e->name))
            EQI_RETURN_IF(add_tensor(g, s, e, interleaved, blocks, head_dim));
    }
    return eqi_source_finish(s);
}

eqat_status eqi_gguf_open_hf(eqi_gguf *g, eqi_source **source, json_t **config)
{
    *source = NULL;
    EQI_RETURN_IF(eqi_gguf_config(g, config));
    eqi_source *s = NULL;
    eqat_status st = eqi_gguf_source_create(g, &s);
    if (st == EQAT_OK) st = fill_source(g, s, *config);
    if (st != EQAT_OK) {
        eqi_source_close(s);
        json_decref(*config);
        *config = NULL;
        return st;
    }
    *source = s;
    return EQAT_OK;
}
