#include <stdio.h>
#include <string.h>

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

static const char *shape_text(int ndim, const int64_t *shape, char *buffer, size_t size)
{
    size_t at = (size_t)snprintf(buffer, size, "[");
    for (int i = 0; i < ndim && at < size; i++)
        at +=
            (size_t)snprintf(buffer + at, size - at, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (at < size) snprintf(buffer + at, size - at, "]");
    return buffer;
}

typedef enum tensor_kind { FLOAT, WORDS, SCALES, INDEX } tensor_kind;

static bool stored_fits(eqi_stored stored, tensor_kind kind)
{
    if (kind == WORDS || kind == INDEX)
        return stored == EQI_STORED_I32 || (kind == INDEX && stored == EQI_STORED_I64);
    if (kind == SCALES)
        return stored == EQI_STORED_F16 || stored == EQI_STORED_BF16 || stored == EQI_STORED_F32;
    return eqi_stored_is_float(stored) && stored != EQI_STORED_F64;
}

static eqat_status expect(eqat_model *m, const char *name, tensor_kind kind, int ndim,
                          const int64_t *shape, eqi_stored *stored)
{
    const eqi_source_entry *e = eqi_source_find(m->source, name);
    char found[EQI_SHAPE_TEXT], expected[EQI_SHAPE_TEXT];
    shape_text(ndim, shape, expected, sizeof expected);
    if (!e)
        return eqi_fail(m->ctx, EQAT_FORMAT, "%s: tensor %s: not found, expected shape %s", m->path,
                        name, expected);
    const char *file = eqi_source_path(m->source, e->file);
    if (e->ndim != ndim || memcmp(e->shape, shape, (size_t)ndim * sizeof *shape) != 0)
        return eqi_fail(m->ctx, EQAT_FORMAT, "%s: tensor %s: found shape %s, expected %s", file,
                        name, shape_text(e->ndim, e->shape, found, sizeof found), expected);
    if (!stored_fits(e->stored, kind))
        return eqi_fail(m->ctx, EQAT_FORMAT, "%s: tensor %s: found type %s, expected %s", file,
                        name, eqi_stored_name(e->stored),
                        kind == FLOAT        ? "F32, F16 or BF16"
                            : kind == SCALES ? "F16"
                                             : "I32");
    if (stored) *stored = e->stored;
    return EQAT_OK;
}

static eqat_status expect_in(eqat_model *m, const char *name, const char *suffix, tensor_kind kind,
                             int ndim, const int64_t *shape)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", name, suffix);
    return expect(m, full, kind, ndim, shape, NULL);
}

/* Bits and group follow from the shapes; config.json must not contradict them. */
static eqat_status expect_packed(eqat_model *m, eqi_linear *l, const eqi_source_entry *qweight)
{
    char full[128];
    snprintf(full, sizeof full, "%s.scales", l->name);
    const eqi_source_entry *scales = eqi_source_find(m->source, full);
    if (!m->gptq.present)
        return eqi_fail(m->ctx, EQAT_FORMAT,
                        "%s: tensor %s: expected a quantization_config in config.json", m->path,
                        qweight->name);
    int64_t rows = qweight->ndim == 2 ? qweight->shape[0] : 0,
            groups = scales && scales->ndim == 2 ? scales->shape[0] : 0;
    int bits = m->gptq.bits;
    if (m->gptq.dynamic && l->in >= 32 && rows > 0 && rows <= 8 * (l->in / 32))
        bits = (int)(rows / (l->in / 32));
    int64_t group = m->gptq.group == -1 ? l->in : m->gptq.group;
    if (m->gptq.dynamic && groups > 0 && l->in % groups == 0) group = l->in / groups;
    l->file = (eqi_quant_desc){.bits = bits, .group = group};
    EQI_RETURN_IF(eqi_gptq_check(m->ctx, l->name, l->out, l->in, &l->file));
    if (l->in % group)
        return eqi_fail(m->ctx, EQAT_FORMAT,
                        "%s: %s: found group_size %lld, expected a divisor of %lld", m->path,
                        l->name, (long long)group, (long long)l->in);
    int64_t weight[2] = {eqi_gptq_weight_rows(l->in, bits), l->out};
    int64_t zeros[2] = {l->in / group, eqi_gptq_zero_columns(l->out, bits)},
            steps[2] = {l->in / group, l->out};
    EQI_RETURN_IF(expect_in(m, l->name, "qweight", WORDS, 2, weight));
    EQI_RETURN_IF(expect_in(m, l->name, "qzeros", WORDS, 2, zeros));
    EQI_RETURN_IF(expect_in(m, l->name, "scales", SCALES, 2, steps));
    snprintf(full, sizeof full, "%s.g_idx", l->name);
    return eqi_source_find(m->source, full) ? expect(m, full, INDEX, 1, &l->in, NULL) : EQAT_OK;
}

static eqat_status lay_out_linear(eqat_model *m, eqi_linear *l, int64_t block, eqi_role role)
{
    l->local = set_name(l->name, sizeof l->name, block, roles[role].local);
    l->out = size_of(&m->config, roles[role].out);
    l->in = size_of(&m->config, roles[role].in);
    l->has_bias = has_bias(&m->config, roles[role].bias);
    char full[128];
    snprintf(full, sizeof full, "%s.qweight", l->name);
    const eqi_source_entry *qweight = eqi_source_find(m->source, full);
    if (qweight) {
        EQI_RETURN_IF(expect_packed(m, l, qweight));
    } else {
        snprintf(full, sizeof full, "%s.weight", l->name);
        EQI_RETURN_IF(expect(m, full, FLOAT, 2, (int64_t[]){l->out, l->in}, &l->stored));
    }
    if (!l->has_bias) return EQAT_OK;
    snprintf(full, sizeof full, "%s.bias", l->name);
    return expect(m, full, FLOAT, 1, &l->out, &l->bias_stored);
}

static eqat_status lay_out_norm(eqat_model *m, eqi_norm *n, int64_t block, eqi_norm_role role)
{
    if (norms[role].qk && !m->config.family->qk_norm) return EQAT_OK;
    n->local = set_name(n->name, sizeof n->name, block, norms[role].local);
    n->size = size_of(&m->config, norms[role].size);
    return expect(m, n->name, FLOAT, 1, &n->size, &n->stored);
}

eqat_status eqi_model_layout(eqat_model *m)
{
    const eqi_config *c = &m->config;
    int64_t table[2] = {c->vocab, c->hidden};
    EQI_RETURN_IF(expect(m, "model.embed_tokens.weight", FLOAT, 2, table, &m->embedding_stored));
    m->head_stored = m->embedding_stored;
    if (!c->tied) EQI_RETURN_IF(expect(m, "lm_head.weight", FLOAT, 2, table, &m->head_stored));
    snprintf(m->final_norm.name, sizeof m->final_norm.name, "model.norm.weight");
    m->final_norm.local = m->final_norm.name;
    m->final_norm.size = c->hidden;
    EQI_RETURN_IF(expect(m, m->final_norm.name, FLOAT, 1, &c->hidden, &m->final_norm.stored));

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
