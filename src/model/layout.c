#include <stdio.h>
#include <string.h>

#include "model/read.h"

static int64_t size_of(const eqi_config *c, eqi_size size)
{
    switch (size) {
    case EQI_SIZE_HIDDEN: return c->hidden;
    case EQI_SIZE_QUERIES: return c->heads * c->head_dim;
    case EQI_SIZE_KEYS: return c->kv_heads * c->head_dim;
    case EQI_SIZE_MLP: return c->intermediate;
    case EQI_SIZE_HEAD: return c->head_dim;
    case EQI_SIZE_EXPERTS: return c->experts;
    case EQI_SIZE_EXPERT_MLP: return c->expert_mlp;
    }
    return 0;
}

static bool has_bias(const eqi_config *c, eqi_bias bias)
{
    switch (bias) {
    case EQI_BIAS_NONE: return false;
    case EQI_BIAS_QKV: return c->attention_bias;
    case EQI_BIAS_O: return c->o_bias;
    case EQI_BIAS_MLP: return c->mlp_bias;
    }
    return false;
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

/* "mlp.experts.%d.up_proj" with its number, any other name as it is. */
static void expert_name(char *out, size_t size, const char *name, int expert)
{
    const char *mark = strstr(name, "%d");
    if (mark)
        snprintf(out, size, "%.*s%d%s", (int)(mark - name), name, expert, mark + 2);
    else
        snprintf(out, size, "%s", name);
}

static eqat_status lay_out_linear(eqat_model *m, eqi_linear *l, int64_t block,
                                  const eqi_linear_row *row, int expert)
{
    char local[64];
    l->role = row->role;
    l->expert = expert;
    l->plain = row->plain;
    expert_name(local, sizeof local, row->name, expert);
    l->local = set_name(l->name, sizeof l->name, block, local);
    l->out = size_of(&m->config, row->out);
    l->in = size_of(&m->config, row->in);
    l->has_bias = has_bias(&m->config, row->bias);
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

static eqat_status lay_out_norm(eqat_model *m, eqi_norm *n, int64_t block, const eqi_norm_row *row)
{
    n->role = row->role;
    n->local = set_name(n->name, sizeof n->name, block, row->name);
    n->size = size_of(&m->config, row->size);
    return expect(m, n->name, 1, &n->size, &n->stored);
}

static eqi_attention attention_of(const eqi_config *c, int64_t block)
{
    bool sliding = eqi_block_in(&c->sliding, block);
    return (eqi_attention){.heads = c->heads,
                           .kv_heads = c->kv_heads,
                           .head_dim = c->head_dim,
                           .window = sliding ? c->window : 0,
                           .scale = c->score_scale,
                           .rope = sliding && c->n_ropes > 1};
}

static eqat_status add_linear(eqat_model *m, eqi_block *b, const eqi_linear_row *row, int expert)
{
    return lay_out_linear(m, &b->linears[b->n_linears++], b->index, row, expert);
}

/* Rows in order; those of experts stand together and repeat, expert after expert. */
static eqat_status lay_out_linears(eqat_model *m, eqi_block *b, const eqi_linear_row *row,
                                   bool sparse)
{
    for (; row->name && row->where != EQI_IN_EXPERTS; row++)
        if (row->where == EQI_EVERYWHERE || (row->where == EQI_IN_SPARSE) == sparse)
            EQI_RETURN_IF(add_linear(m, b, row, 0));
    for (int e = 0; sparse && e < m->config.experts; e++)
        for (const eqi_linear_row *r = row; r->name; r++) EQI_RETURN_IF(add_linear(m, b, r, e));
    return EQAT_OK;
}

static eqat_status lay_out_block(eqat_model *m, eqi_block *b, int64_t index)
{
    const eqi_family *f = m->config.family;
    bool sparse = eqi_block_in(&m->config.sparse, index);
    int n_norms = 0;
    b->index = index;
    b->config = &m->config;
    b->graph = sparse ? f->sparse_graph : f->graph;
    b->attention = attention_of(&m->config, index);
    while (f->norms[n_norms].name) n_norms++;
    size_t most = 0; /* every row, of experts each as often as there are experts */
    for (const eqi_linear_row *row = f->linears; row->name; row++)
        most += row->where == EQI_IN_EXPERTS ? (size_t)m->config.experts : 1;
    b->linears = eqi_calloc(m->ctx, most, sizeof *b->linears, "a block's linears");
    if (!b->linears) return EQAT_OUT_OF_MEMORY;
    b->norms = eqi_calloc(m->ctx, (size_t)n_norms, sizeof *b->norms, "a block's norms");
    if (!b->norms) return EQAT_OUT_OF_MEMORY;
    b->n_norms = n_norms;
    EQI_RETURN_IF(lay_out_linears(m, b, f->linears, sparse));
    for (int i = 0; i < n_norms; i++)
        EQI_RETURN_IF(lay_out_norm(m, &b->norms[i], index, &f->norms[i]));
    return EQAT_OK;
}

eqat_status eqi_model_layout(eqat_model *m)
{
    const eqi_config *c = &m->config;
    int64_t table[2] = {c->vocab, c->hidden};
    EQI_RETURN_IF(expect(m, "model.embed_tokens.weight", 2, table, &m->embedding_stored));
    m->head_stored = m->embedding_stored;
    if (c->tied) EQI_RETURN_IF(eqi_model_check_head(m));
    if (!c->tied) EQI_RETURN_IF(expect(m, "lm_head.weight", 2, table, &m->head_stored));
    snprintf(m->final_norm.name, sizeof m->final_norm.name, "model.norm.weight");
    m->final_norm.local = m->final_norm.name;
    m->final_norm.size = c->hidden;
    EQI_RETURN_IF(expect(m, m->final_norm.name, 1, &c->hidden, &m->final_norm.stored));

    m->blocks = eqi_calloc(m->ctx, (size_t)c->blocks, sizeof *m->blocks, "the blocks of a model");
    if (!m->blocks) return EQAT_OUT_OF_MEMORY;
    for (int64_t b = 0; b < c->blocks; b++) EQI_RETURN_IF(lay_out_block(m, &m->blocks[b], b));
    return EQAT_OK;
}
