#include <stdio.h>

#include "model/model.h"

/* The sizes that shapes are made of. */
typedef enum size_name { HIDDEN, QUERIES, KEYS, MLP, HEAD } size_name;
typedef enum bias_name { BIAS_QKV, BIAS_O, BIAS_MLP } bias_name;

static const struct {
    const char *local;
    size_name out, in;
    bias_name bias;
} roles[EQI_ROLE_COUNT] = {
    [EQI_Q] = {"self_attn.q_proj", QUERIES, HIDDEN, BIAS_QKV},
    [EQI_K] = {"self_attn.k_proj", KEYS, HIDDEN, BIAS_QKV},
    [EQI_V] = {"self_attn.v_proj", KEYS, HIDDEN, BIAS_QKV},
    [EQI_O] = {"self_attn.o_proj", HIDDEN, QUERIES, BIAS_O},
    [EQI_GATE] = {"mlp.gate_proj", MLP, HIDDEN, BIAS_MLP},
    [EQI_UP] = {"mlp.up_proj", MLP, HIDDEN, BIAS_MLP},
    [EQI_DOWN] = {"mlp.down_proj", HIDDEN, MLP, BIAS_MLP},
};

static const struct {
    const char *local;
    size_name size;
    bool qk; /* in families with norms of q and k alone */
} norms[EQI_NORM_COUNT] = {
    [EQI_NORM_ATTN] = {"input_layernorm.weight", HIDDEN, false},
    [EQI_NORM_MLP] = {"post_attention_layernorm.weight", HIDDEN, false},
    [EQI_NORM_Q] = {"self_attn.q_norm.weight", HEAD, true},
    [EQI_NORM_K] = {"self_attn.k_norm.weight", HEAD, true},
};

static int64_t size_of(const eqi_config *c, size_name name)
{
    switch (name) {
    case HIDDEN: return c->hidden;
    case QUERIES: return c->heads * c->head_dim;
    case KEYS: return c->kv_heads * c->head_dim;
    case MLP: return c->intermediate;
    case HEAD: return c->head_dim;
    }
    return 0;
}

static bool has_bias(const eqi_config *c, bias_name name)
{
    return name == BIAS_QKV ? c->attention_bias : name == BIAS_O ? c->o_bias : c->mlp_bias;
}

static const char *set_name(char *name, size_t size, int64_t block, const char *local)
{
    int prefix = snprintf(name, size, "model.layers.%lld.", (long long)block);
    snprintf(name + prefix, size - (size_t)prefix, "%s", local);
    return name + prefix;
}

static eqat_status expect(eqat_model *m, const char *name, int ndim, const int64_t *shape,
                          eqi_stored *stored)
{
    return eqi_source_expect(m->source, m->path, name, EQI_ACCEPT_FLOATS, ndim, shape, stored);
}

static eqat_status lay_out_linear(eqat_model *m, eqi_linear *l, int64_t block, eqi_role role)
{
    l->local = set_name(l->name, sizeof l->name, block, roles[role].local);
    l->out = size_of(&m->config, roles[role].out);
    l->in = size_of(&m->config, roles[role].in);
    l->has_bias = has_bias(&m->config, roles[role].bias);
    char full[128];
    eqi_layout_linear packed = eqi_linear_described(l, (eqi_quant_desc){0});
    EQI_RETURN_IF(eqi_packing_expect(&m->packing, m->source, m->path, &packed));
    l->file = packed.q;
    if (!l->file.bits) {
        snprintf(full, sizeof full, "%s.weight", l->name);
        EQI_RETURN_IF(expect(m, full, 2, (int64_t[]){l->out, l->in}, &l->stored));
    }
    if (!l->has_bias) return EQAT_OK;
    snprintf(full, sizeof full, "%s.bias", l->name);
    return expect(m, full, 1, &l->out, &l->bias_stored);
}

static eqat_status lay_out_norm(eqat_model *m, eqi_norm *n, int64_t block, eqi_norm_role role)
{
    if (norms[role].qk && !m->config.family->qk_norm) return EQAT_OK;
    n->local = set_name(n->name, sizeof n->name, block, norms[role].local);
    n->size = size_of(&m->config, norms[role].size);
    return expect(m, n->name, 1, &n->size, &n->stored);
}

eqat_status eqi_model_layout(eqat_model *m)
{
    const eqi_config *c = &m->config;
    int64_t table[2] = {c->vocab, c->hidden};
    EQI_RETURN_IF(expect(m, "model.embed_tokens.weight", 2, table, &m->embedding_stored));
    m->head_stored = m->embedding_stored;
    if (!c->tied) EQI_RETURN_IF(expect(m, "lm_head.weight", 2, table, &m->head_stored));
    snprintf(m->final_norm.name, sizeof m->final_norm.name, "model.norm.weight");
    m->final_norm.local = m->final_norm.name;
    m->final_norm.size = c->hidden;
    EQI_RETURN_IF(expect(m, m->final_norm.name, 1, &c->hidden, &m->final_norm.stored));

    m->blocks = eqi_calloc(m->ctx, (size_t)c->blocks, sizeof *m->blocks, "the blocks of a model");
    if (!m->blocks) return EQAT_OUT_OF_MEMORY;
    for (int64_t b = 0; b < c->blocks; b++) {
        eqi_block *block = &m->blocks[b];
        block->index = b;
        block->n_linears = EQI_ROLE_COUNT;
        for (int i = 0; i < EQI_ROLE_COUNT; i++)
            EQI_RETURN_IF(lay_out_linear(m, &block->linears[i], b, (eqi_role)i));
        for (int i = 0; i < EQI_NORM_COUNT; i++)
            EQI_RETURN_IF(lay_out_norm(m, &block->norms[i], b, (eqi_norm_role)i));
    }
    return EQAT_OK;
}
