#include "format/gguf_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format/gguf_impl.h"
#include "format/source_impl.h"

typedef enum kind {
    PLAIN,
    ROTARY, /* its rows turn with the position */
    EXPERTS /* [experts, out, in]: one tensor "mlp.experts.N." each in Hugging Face's names */
} kind;

typedef struct row {
    const char *gguf, *hf;
    kind kind;
    const char *architecture; /* NULL: all but those that have a row of their own above */
} row;

static const row block_names[] =
    {
        {"attn_norm.weight", "input_layernorm.weight", PLAIN, NULL},
        {"attn_q.weight", "self_attn.q_proj.weight", ROTARY, NULL},
        {"attn_q.bias", "self_attn.q_proj.bias", ROTARY, NULL},
        {"attn_k.weight", "self_attn.k_proj.weight", ROTARY, NULL},
        {"attn_k.bias", "self_attn.k_proj.bias", ROTARY, NULL},
        {"attn_v.weight", "self_attn.v_proj.weight", PLAIN, NULL},
        {"attn_v.bias", "self_attn.v_proj.bias", PLAIN, NULL},
        {"attn_output.weight", "self_attn.o_proj.weight", PLAIN, NULL},
        {"attn_output.bias", "self_attn.o_proj.bias", PLAIN, NULL},
        {"attn_q_norm.weight", "self_attn.q_norm.weight", PLAIN, NULL},
        {"attn_k_norm.weight", "self_attn.k_norm.weight", PLAIN, NULL},
        {"post_attention_norm.weight", "post_attention_layernorm.weight", PLAIN, "gemma3"},
        {"ffn_norm.weight", "pre_feedforward_layernorm.weight", PLAIN, "gemma3"},
        {"post_ffw_norm.weight", "post_feedforward_layernorm.weight", PLAIN, "gemma3"},
        {"ffn_norm.weight", "post_attention_layernorm.weight", PLAIN, NULL},
        {"ffn_gate.weight", "mlp.gate_proj.weight", PLAIN, NULL},
        {"ffn_gate.bias", "mlp.gate_proj.bias", PLAIN, NULL},
        {"ffn_up.weight", "mlp.up_proj.weight", PLAIN, NULL},
        {"ffn_up.bias", "mlp.up_proj.bias", PLAIN, NULL},
        {"ffn_down.weight", "mlp.down_proj.weight", PLAIN, NULL},
        {"ffn_down.bias", "mlp.down_proj.bias", PLAIN, NULL},
        {"ffn_gate_inp.weight", "mlp.gate.weight", PLAIN, "qwen3moe"},
        {"ffn_gate_exps.weight", "gate_proj.weight", EXPERTS, "qwen3moe"},
        {"ffn_up_exps.weight", "up_proj.weight", EXPERTS, "qwen3moe"},
        {"ffn_down_exps.weight", "down_proj.weight", EXPERTS, "qwen3moe"},
},
                 model_names[] = {
                     {"token_embd.weight", "model.embed_tokens.weight", PLAIN, NULL},
                     {"output_norm.weight", "model.norm.weight", PLAIN, NULL},
                     {"output.weight", "lm_head.weight", PLAIN, NULL},
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

static const row *find_row(const row *rows, size_t n, const char *architecture, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(name, rows[i].gguf) &&
            (!rows[i].architecture || !strcmp(architecture, rows[i].architecture)))
            return &rows[i];
    return NULL;
}

/* The row of a tensor, and its block or -1. */
static const row *find_name(const char *architecture, const char *name, int64_t *block)
{
    const char *rest = parse_block(name, block);
    if (rest) return find_row(block_names, EQI_COUNT(block_names), architecture, rest);
    *block = -1;
    return find_row(model_names, EQI_COUNT(model_names), architecture, name);
}

static void write_name(const row *r, int64_t block, int64_t expert, char out[EQI_HF_NAME_MAX])
{
    if (block < 0)
        snprintf(out, EQI_HF_NAME_MAX, "%s", r->hf);
    else if (r->kind == EXPERTS)
        snprintf(out, EQI_HF_NAME_MAX, "model.layers.%lld.mlp.experts.%lld.%s", (long long)block,
                 (long long)expert, r->hf);
    else
        snprintf(out, EQI_HF_NAME_MAX, "model.layers.%lld.%s", (long long)block, r->hf);
}

bool eqi_gguf_hf_name(const char *architecture, const char *gguf_name, int64_t expert,
                      char out[EQI_HF_NAME_MAX], int64_t *block)
{
    int64_t n;
    const row *r = find_name(architecture, gguf_name, &n);
    if (!r) return false;
    write_name(r, n, expert, out);
    if (block) *block = n;
    return true;
}

/* Steps over a prefix with a number in it, "model.layers.12."; NULL: there is none. */
static const char *after_number(const char *text, const char *prefix, long long *number)
{
    const size_t n = strlen(prefix);
    char *end;
    if (strncmp(text, prefix, n) || text[n] < '0' || text[n] > '9') return NULL;
    *number = strtoll(text + n, &end, 10);
    return *end == '.' ? end + 1 : NULL;
}

static bool is_norm(const char *hf_name)
{
    static const char end[] = "norm.weight";
    const size_t n = strlen(hf_name);
    return n >= sizeof end - 1 && !strcmp(hf_name + n - (sizeof end - 1), end);
}

static const row *find_hf(const row *rows, size_t n, const char *architecture, const char *hf,
                          bool expert)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(hf, rows[i].hf) && (rows[i].kind == EXPERTS) == expert &&
            (!rows[i].architecture || !strcmp(architecture, rows[i].architecture)))
            return &rows[i];
    return NULL;
}

bool eqi_gguf_find_place(const char *architecture, const char *hf_name, eqi_gguf_place *out)
{
    long long block = 0, expert;
    const char *local = after_number(hf_name, "model.layers.", &block);
    const char *inside = local ? after_number(local, "mlp.experts.", &expert) : NULL;
    const row *r = local
        ? find_hf(block_names, EQI_COUNT(block_names), architecture, inside ? inside : local,
                  inside != NULL)
        : find_hf(model_names, EQI_COUNT(model_names), architecture, hf_name, false);
    if (!r) return false;
    if (local)
        snprintf(out->name, sizeof out->name, "blk.%lld.%s", block, r->gguf);
    else
        snprintf(out->name, sizeof out->name, "%s", r->gguf);
    out->interleaved = r->kind == ROTARY && !strcmp(architecture, "llama");
    out->one_more = is_norm(hf_name) && !strcmp(architecture, "gemma3");
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

typedef struct shape {
    const char *architecture;
    int64_t blocks, head_dim, experts;
} shape;

static eqat_status interleave(eqi_gguf *g, eqi_source *s, const eqi_source_entry *e,
                              int64_t head_dim)
{
    eqi_ctx *ctx = eqi_gguf_context(g);
    const char *path = eqi_gguf_path(g);
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

/* Gemma multiplies by 1 + weight, and converters store that sum. */
static eqat_status shift_norm(eqi_gguf *g, eqi_source *s, const eqi_source_entry *e)
{
    if (e->stored != EQI_STORED_F32)
        return eqi_fail(eqi_gguf_context(g), EQAT_UNSUPPORTED,
                        "%s: tensor '%.200s': found type %s, expected F32", eqi_gguf_path(g),
                        e->name, eqi_stored_name(e->stored));
    s->items[s->count - 1].one_more = true;
    return EQAT_OK;
}

/* Every expert is an entry of its own: a part of the tensor. */
static eqat_status add_experts(eqi_gguf *g, eqi_source *s, const eqi_source_entry *e, const row *r,
                               int64_t block, int64_t experts)
{
    char name[EQI_HF_NAME_MAX];
    if (e->ndim != 3 || e->shape[0] != experts)
        return eqi_fail(eqi_gguf_context(g), EQAT_FORMAT,
                        "%s: tensor '%.200s': found %d dimensions, the first of %lld, expected 3, "
                        "the first of %lld",
                        eqi_gguf_path(g), e->name, e->ndim, (long long)(e->ndim ? e->shape[0] : 0),
                        (long long)experts);
    if (e->bytes == 0)
        return eqi_fail(eqi_gguf_context(g), EQAT_FORMAT,
                        "%s: tensor '%.200s': it is empty, expected weights", eqi_gguf_path(g),
                        e->name);
    eqi_source_entry part = *e;
    part.ndim = 2;
    memmove(part.shape, e->shape + 1, 2 * sizeof *part.shape);
    for (int64_t i = 0; i < experts; i++) {
        write_name(r, block, i, name);
        EQI_RETURN_IF(eqi_source_add(s, name, &part));
        part.offset += e->bytes / (uint64_t)experts;
    }
    return EQAT_OK;
}

static eqat_status add_tensor(eqi_gguf *g, eqi_source *s, const eqi_source_entry *e,
                              const shape *model)
{
    eqi_ctx *ctx = eqi_gguf_context(g);
    const char *path = eqi_gguf_path(g);
    char name[EQI_HF_NAME_MAX];
    int64_t block;
    const row *r = find_name(model->architecture, e->name, &block);
    if (!r)
        return eqi_fail(ctx, EQAT_UNSUPPORTED,
                        "%s: tensor '%.200s': not known for architecture %.40s", path, e->name,
                        model->architecture);
    if (block >= model->blocks)
        return eqi_fail(
            ctx, EQAT_FORMAT,
            "%s: tensor '%.200s': found block %lld, expected fewer than the %lld of the model",
            path, e->name, (long long)block, (long long)model->blocks);
    if (r->kind == EXPERTS) return add_experts(g, s, e, r, block, model->experts);
    write_name(r, block, 0, name);
    EQI_RETURN_IF(eqi_source_add(s, name, e));
    if (r->kind == ROTARY && !strcmp(model->architecture, "llama"))
        return interleave(g, s, e, model->head_dim);
    return is_norm(name) && !strcmp(model->architecture, "gemma3") ? shift_norm(g, s, e) : EQAT_OK;
}

static eqat_status fill_source(eqi_gguf *g, eqi_source *s, const json_t *config)
{
    const shape model = {
        .architecture = eqi_gguf_string(g, "general.architecture", NULL),
        .blocks = json_integer_value(json_object_get(config, "num_hidden_layers")),
        .head_dim = json_integer_value(json_object_get(config, "head_dim")),
        .experts = json_integer_value(json_object_get(config, "num_experts")),
    };
    const eqi_source *tensors = eqi_gguf_tensors(g);
    for (size_t i = 0; i < eqi_source_count(tensors); i++) {
        const eqi_source_entry *e = eqi_source_at(tensors, i);
        if (!is_rope_table(e->name)) EQI_RETURN_IF(add_tensor(g, s, e, &model));
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
