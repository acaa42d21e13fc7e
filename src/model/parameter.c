#include <stdio.h>
#include <string.h>

#include "base/entry.h"
#include "model/weights.h"

typedef enum where { EMBEDDING, HEAD, FINAL_NORM, NORM, WEIGHT, BIAS, SCALES, ZEROS, CODES } where;

/* A name that a parameter can have; whether it exists depends on what is packed by now. */
struct eqi_parameter {
    char name[104];
    where place;
    int64_t block;
    int part;
};

static void add(eqat_model *m, where place, int64_t block, int part, const char *name,
                const char *suffix)
{
    struct eqi_parameter *p = &m->parameters[m->n_parameters++];
    *p = (struct eqi_parameter){.place = place, .block = block, .part = part};
    snprintf(p->name, sizeof p->name, "%s%s", name, suffix);
}

static eqat_status list_all(eqat_model *m)
{
    static const struct {
        where place;
        const char *suffix;
    } forms[] = {{WEIGHT, ".weight"},
                 {CODES, ".codes"},
                 {SCALES, ".scales"},
                 {ZEROS, ".zeros"},
                 {BIAS, ".bias"}};
    if (m->parameters) return EQAT_OK;
    size_t most = 3;
    for (int64_t b = 0; b < m->config.blocks; b++)
        most += (size_t)m->blocks[b].n_linears * EQI_COUNT(forms) + (size_t)m->blocks[b].n_norms;
    m->parameters =
        eqi_calloc(m->ctx, most, sizeof *m->parameters, "the names of a model's parameters");
    if (!m->parameters) return EQAT_OUT_OF_MEMORY;
    add(m, EMBEDDING, 0, 0, "model.embed_tokens.weight", "");
    for (int64_t b = 0; b < m->config.blocks; b++) {
        const eqi_block *block = &m->blocks[b];
        for (int i = 0; i < block->n_linears; i++)
            for (size_t f = 0; f < EQI_COUNT(forms); f++)
                add(m, forms[f].place, b, i, block->linears[i].name, forms[f].suffix);
        for (int i = 0; i < block->n_norms; i++) add(m, NORM, b, i, block->norms[i].name, "");
    }
    add(m, FINAL_NORM, 0, 0, m->final_norm.name, "");
    if (!m->config.tied) add(m, HEAD, 0, 0, "lm_head.weight", "");
    return EQAT_OK;
}

static bool exists(const eqat_model *m, const struct eqi_parameter *p)
{
    if (p->place <= NORM) return true;
    const eqi_linear *l = &m->blocks[p->block].linears[p->part];
    if (p->place == BIAS) return l->has_bias;
    return (eqi_linear_quantization(l).bits != 0) == (p->place != WEIGHT);
}

const char *eqat_model_parameter_name(eqat_model *m, size_t index)
{
    if (!m) return NULL;
    if (list_all(m) != EQAT_OK) return NULL;
    for (size_t i = 0; i < m->n_parameters; i++)
        if (exists(m, &m->parameters[i]) && index-- == 0) return m->parameters[i].name;
    return NULL;
}

/* A table kept in its stored dtype becomes an F32 master. */
static eqat_status widen(eqi_tensor **t)
{
    if ((*t)->v.dtype == EQI_F32) return EQAT_OK;
    eqi_tensor *wide;
    EQI_RETURN_IF(eqi_tensor_cast(*t, EQI_F32, &wide));
    eqi_tensor_unref(*t);
    *t = wide;
    return EQAT_OK;
}

static eqat_status pin_end(eqat_model *m, where place, eqat_tensor **out)
{
    EQI_RETURN_IF(eqi_model_load_ends(m));
    if (place == FINAL_NORM) {
        *out = m->final_norm.gain;
    } else if (place == HEAD) {
        EQI_RETURN_IF(widen(&m->head));
        m->head_pinned = true;
        *out = m->head;
    } else {
        EQI_RETURN_IF(widen(&m->embedding));
        m->embedding_pinned = true;
        *out = m->embedding;
        if (m->config.tied && m->head != m->embedding) {
            eqi_tensor_unref(m->head);
            m->head = eqi_tensor_ref(m->embedding);
        }
    }
    return EQAT_OK;
}

static eqat_status pin_in_block(eqat_model *m, const struct eqi_parameter *p, eqat_tensor **out)
{
    eqi_block *b;
    EQI_RETURN_IF(eqi_block_keep(m, p->block, EQI_F32, &b));
    const eqi_weight *w = &b->linears[p->place == NORM ? 0 : p->part].weight;
    switch (p->place) {
    case WEIGHT: *out = w->w; break;
    case BIAS: *out = w->bias; break;
    case SCALES: *out = w->s; break;
    case ZEROS: *out = w->z; break;
    case CODES: *out = w->codes; break;
    default: *out = b->norms[p->part].gain; break;
    }
    return EQAT_OK;
}

eqat_status eqat_model_parameter(eqat_model *m, const char *name, eqat_tensor **out)
{
    if (out) *out = NULL;
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, name, out);
    EQI_RETURN_IF(list_all(m));
    for (size_t i = 0; i < m->n_parameters; i++) {
        const struct eqi_parameter *p = &m->parameters[i];
        if (strcmp(p->name, name) != 0 || !exists(m, p)) continue;
        return p->place <= FINAL_NORM ? pin_end(m, p->place, out) : pin_in_block(m, p, out);
    }
    return eqi_fail(m->ctx, EQAT_NOT_FOUND, "%s: no parameter is named %.100s", m->path, name);
}
