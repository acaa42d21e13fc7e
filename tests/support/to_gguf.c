#include "gguf_bytes.h"
#include "model/model.h"
#include "public.h"

enum { EVERY = 1, GEMMA = 2, MIXTURE = 4 };

/* A block, without biases. */
static const struct {
    const char *gguf, *hf; /* %d: an expert's number; GGUF stacks them */
    int families;
    bool gain;
} parts[] = {
    {"attn_norm", "input_layernorm", EVERY, true},
    {"attn_q", "self_attn.q_proj", EVERY, false},
    {"attn_k", "self_attn.k_proj", EVERY, false},
    {"attn_v", "self_attn.v_proj", EVERY, false},
    {"attn_output", "self_attn.o_proj", EVERY, false},
    {"attn_q_norm", "self_attn.q_norm", EVERY, true},
    {"attn_k_norm", "self_attn.k_norm", EVERY, true},
    {"post_attention_norm", "post_attention_layernorm", GEMMA, true},
    {"ffn_norm", "pre_feedforward_layernorm", GEMMA, true},
    {"post_ffw_norm", "post_feedforward_layernorm", GEMMA, true},
    {"ffn_gate", "mlp.gate_proj", GEMMA, false},
    {"ffn_up", "mlp.up_proj", GEMMA, false},
    {"ffn_down", "mlp.down_proj", GEMMA, false},
    {"ffn_norm", "post_attention_layernorm", MIXTURE, true},
    {"ffn_gate_inp", "mlp.gate", MIXTURE, false},
    {"ffn_gate_exps", "mlp.experts.%d.gate_proj", MIXTURE, false},
    {"ffn_up_exps", "mlp.experts.%d.up_proj", MIXTURE, false},
    {"ffn_down_exps", "mlp.experts.%d.down_proj", MIXTURE, false},
};

typedef struct copy {
    eqat_context *ctx;
    eqi_source *from;
    eqi_config config;
    bool gemma;
    gguf_bytes g;
    bytes values;
} copy;

static void key_of(copy *c, const char *name, int64_t value)
{
    char text[128];
    snprintf(text, sizeof text, "%s.%s", c->gemma ? "gemma3" : "qwen3moe", name);
    key_u32(&c->g, text, (uint32_t)value);
}

static void key_real(copy *c, const char *name, double value)
{
    char text[128];
    snprintf(text, sizeof text, "%s.%s", c->gemma ? "gemma3" : "qwen3moe", name);
    key_f32(&c->g, text, (float)value);
}

static void keys(copy *c)
{
    const eqi_config *k = &c->config;
    key_string(&c->g, "general.architecture", c->gemma ? "gemma3" : "qwen3moe");
    key_of(c, "block_count", k->blocks);
    key_of(c, "context_length", k->max_positions);
    key_of(c, "embedding_length", k->hidden);
    key_of(c, "feed_forward_length", k->intermediate);
    key_of(c, "attention.head_count", k->heads);
    key_of(c, "attention.head_count_kv", k->kv_heads);
    key_of(c, "attention.key_length", k->head_dim);
    key_of(c, "attention.value_length", k->head_dim);
    key_real(c, "attention.layer_norm_rms_epsilon", k->eps);
    key_real(c, "rope.freq_base", k->ropes[0].theta);
    if (!c->gemma) {
        key_of(c, "expert_count", k->experts);
        key_of(c, "expert_used_count", k->experts_per_token);
        key_of(c, "expert_feed_forward_length", k->expert_mlp);
        return;
    }
    key_of(c, "attention.sliding_window", k->window);
    key_of(c, "attention.sliding_window_pattern", 2);
    key_real(c, "rope.freq_base_swa", k->ropes[1].theta);
    key_real(c, "rope.scaling.factor", k->ropes[0].factor);
}

static const eqi_source_entry *values_of(copy *c, const char *name, bool gain)
{
    const eqi_source_entry *e = eqi_source_find(c->from, name);
    ck_assert_msg(e != NULL, "%s", name);
    float *x = malloc((size_t)e->elements * sizeof *x);
    OK(c->ctx, eqi_source_read_f32(c->from, e, 0, e->elements, x));
    for (int64_t i = 0; gain && c->gemma && i < e->elements; i++) x[i] += 1;
    put(&c->values, x, (size_t)e->elements * sizeof *x);
    free(x);
    return e;
}

static void one(copy *c, const char *gguf, const char *hf, int64_t experts, bool gain)
{
    const eqi_source_entry *e = NULL;
    char name[128];
    put_zeros(&c->values, (32 - c->values.n % 32) % 32);
    const uint64_t offset = c->values.n;
    const char *mark = strstr(hf, "%d");
    for (int64_t i = 0; i < (mark ? experts : 1); i++) {
        if (mark)
            snprintf(name, sizeof name, "%.*s%d%s", (int)(mark - hf), hf, (int)i, mark + 2);
        else
            snprintf(name, sizeof name, "%s", hf);
        e = values_of(c, name, gain);
    }
    const uint64_t rows = (uint64_t)e->shape[0], width = (uint64_t)e->shape[e->ndim - 1];
    const uint64_t ne[3] = {width, rows, (uint64_t)experts};
    tensor_at(&c->g, gguf, G_TYPE_F32, mark ? 3 : (uint32_t)e->ndim, ne, offset);
}

static void all(copy *c)
{
    char gguf[64], hf[128];
    one(c, "token_embd.weight", "model.embed_tokens.weight", 0, false);
    for (int b = 0; b < c->config.blocks; b++)
        for (size_t i = 0; i < EQI_COUNT(parts); i++) {
            if (!(parts[i].families & (EVERY | (c->gemma ? GEMMA : MIXTURE)))) continue;
            snprintf(gguf, sizeof gguf, "blk.%d.%s.weight", b, parts[i].gguf);
            snprintf(hf, sizeof hf, "model.layers.%d.%s.weight", b, parts[i].hf);
            one(c, gguf, hf, c->config.experts, parts[i].gain);
        }
    one(c, "output_norm.weight", "model.norm.weight", 0, true);
    if (!c->config.tied) one(c, "output.weight", "lm_head.weight", 0, false);
}

void convert_to_gguf(eqat_context *ctx, const char *dir, const char *path)
{
    copy c = {.ctx = ctx};
    json_error_t error;
    json_t *json = json_load_file(in_dir(dir, "config.json"), 0, &error);
    ck_assert_msg(json != NULL, "%s", error.text);
    OK(ctx, eqi_config_parse(ctx, &c.config, json, "config.json"));
    json_decref(json);
    c.gemma = !strcmp(c.config.family->name, "gemma3");
    OK(ctx, eqi_source_open_safetensors(ctx, &c.from, dir));
    begin(&c.g, 3);
    keys(&c);
    all(&c);
    end_header(&c.g, 32);
    put(&c.g.file, c.values.p, c.values.n);
    write_file(path, c.g.file.p, c.g.file.n);
    eqi_source_close(c.from);
    free(c.g.file.p);
    free(c.values.p);
}
