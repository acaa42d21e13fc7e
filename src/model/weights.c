#include "model/weights.h"

#include <stdio.h>
#include <string.h>

#include "model/read.h"
#include "quant/freeze.h"

/* ---- reading ---- */

/* An F32 tensor of a block that is kept may be newer than the file; anything else can be read
 * again. */
static bool wanted(const eqi_block *b, const eqi_weight *w, eqi_dtype dtype)
{
    if (w->codes) return false;
    bool kept = b->state != EQI_BLOCK_DENSE && w->w && w->w->v.dtype == EQI_F32;
    return !w->w || (w->w->v.dtype != dtype && !kept);
}

static eqat_status read_part(eqat_model *m, const eqi_linear *l, const char *part, eqi_dtype dtype,
                             bool check_finite, eqi_tensor **out)
{
    char name[128];
    snprintf(name, sizeof name, "%s.%s", l->name, part);
    return eqi_read_tensor(m, name, dtype, check_finite, out);
}

static eqat_status read_linear(eqat_model *m, const eqi_block *b, eqi_linear *l, eqi_dtype dtype,
                               bool check_finite)
{
    if (wanted(b, &l->weight, dtype) && l->file.bits) {
        EQI_RETURN_IF(eqi_load_packed(m, l, &l->weight));
    } else if (wanted(b, &l->weight, dtype)) {
        eqi_tensor *w;
        EQI_RETURN_IF(read_part(m, l, "weight", dtype, check_finite, &w));
        eqi_tensor_unref(l->weight.w);
        l->weight.w = w;
    }
    if (!l->has_bias || l->weight.bias) return EQAT_OK;
    return read_part(m, l, "bias", EQI_F32, check_finite, &l->weight.bias);
}

static eqat_status read_norm(eqat_model *m, eqi_norm *n, bool check_finite)
{
    return n->gain ? EQAT_OK : eqi_read_tensor(m, n->name, EQI_F32, check_finite, &n->gain);
}

static void drop_tensor(eqi_tensor **t)
{
    eqi_tensor_unref(*t);
    *t = NULL;
}

static void clear(eqi_block *b)
{
    for (int i = 0; i < b->n_linears; i++) {
        eqi_linear *l = &b->linears[i];
        eqi_weight_release(&l->weight);
        for (int t = 0; t < EQI_KIND_TENSORS; t++) drop_tensor(&l->beside[t]);
        l->quant = (eqi_quant){0};
    }
    for (int i = 0; i < b->n_norms; i++) drop_tensor(&b->norms[i].gain);
}

static void drop_unless_wanted(eqi_block *b)
{
    if (b->state == EQI_BLOCK_DENSE && !b->readers) clear(b);
}

/* One tensor of a block; NULL: it has none there. */
typedef eqat_status move(eqi_tensor *t);

static eqat_status to_device(eqi_tensor *t) { return t ? eqi_tensor_to_device(t) : EQAT_OK; }

/* A tape that needs it for its way back holds it, too. */
static eqat_status to_host(eqi_tensor *t)
{
    return t && t->refs == 1 ? eqi_tensor_to_host(t) : EQAT_OK;
}

static eqat_status move_all(const eqi_block *b, move *to)
{
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_weight *w = &b->linears[i].weight;
        eqi_tensor *const all[] = {w->w, w->codes, w->s, w->z, w->bias};
        for (size_t k = 0; k < EQI_COUNT(all); k++) EQI_RETURN_IF(to(all[k]));
    }
    for (int i = 0; i < b->n_norms; i++) EQI_RETURN_IF(to(b->norms[i].gain));
    return EQAT_OK;
}

/* Whatever is not in memory, or in the host's. Codes stay there. */
static eqat_status fill(eqat_model *m, eqi_block *b, eqi_dtype dtype, bool check_finite)
{
    for (int i = 0; i < b->n_linears; i++) {
        EQI_RETURN_IF(read_linear(m, b, &b->linears[i], dtype, check_finite));
        if (b->linears[i].weight.codes) b->state = EQI_BLOCK_PACKED;
    }
    for (int i = 0; i < b->n_norms; i++) EQI_RETURN_IF(read_norm(m, &b->norms[i], check_finite));
    return move_all(b, to_device);
}

/* ---- the model's blocks ---- */

eqat_status eqi_block_acquire(eqat_model *m, int64_t index, const eqi_block **block)
{
    eqi_block *b = &m->blocks[index];
    eqat_status st = fill(m, b, m->compute, false);
    if (st == EQAT_OK) b->readers++;
    drop_unless_wanted(b);
    *block = st == EQAT_OK ? b : NULL;
    return st;
}

void eqi_block_release(eqat_model *m, int64_t index)
{
    eqi_block *b = &m->blocks[index];
    b->readers--;
    drop_unless_wanted(b);
}

eqat_status eqi_block_offload(eqat_model *m, int64_t index)
{
    const eqi_block *b = &m->blocks[index];
    bool stays = b->state != EQI_BLOCK_PACKED || b->readers || b->handed_out;
    return stays ? EQAT_OK : move_all(b, to_host);
}

eqat_status eqi_block_keep(eqat_model *m, int64_t index, eqi_dtype dtype, eqi_block **block)
{
    eqi_block *b = &m->blocks[index];
    eqat_status st = fill(m, b, dtype, true);
    if (st == EQAT_OK && b->state == EQI_BLOCK_DENSE) b->state = EQI_BLOCK_MASTERS;
    if (st == EQAT_OK) b->handed_out = true;
    drop_unless_wanted(b);
    *block = st == EQAT_OK ? b : NULL;
    return st;
}

void eqi_linear_set_packed(eqat_model *m, int64_t index, int linear, eqi_weight *packed)
{
    eqi_block *b = &m->blocks[index];
    eqi_weight *w = &b->linears[linear].weight;
    if (!packed->bias) {
        packed->bias = w->bias;
        w->bias = NULL;
    }
    eqi_weight_release(w);
    *w = *packed;
    *packed = (eqi_weight){0};
    b->state = EQI_BLOCK_PACKED;
}

/* ---- a copy of a job's own ---- */

static bool kept(const eqi_tensor *t) { return t && t->v.dtype == EQI_F32; }

/* Values as `l` has them in memory, else from the file; so in what follows. */
static eqat_status own_weight(eqat_model *m, const eqi_linear *l, eqi_dtype dtype, eqi_weight *own)
{
    eqi_tensor *w;
    if (eqi_linear_quantization(l).bits || (own->w && own->w->v.dtype == dtype)) return EQAT_OK;
    EQI_RETURN_IF(kept(l->weight.w) ? eqi_tensor_cast(l->weight.w, dtype, &w)
                                    : read_part(m, l, "weight", dtype, true, &w));
    eqi_tensor_unref(own->w);
    own->w = w;
    return EQAT_OK;
}

static eqat_status own_bias(eqat_model *m, const eqi_linear *l, eqi_weight *own)
{
    if (eqi_linear_quantization(l).bits || !l->has_bias || own->bias) return EQAT_OK;
    if (!l->weight.bias) return read_part(m, l, "bias", EQI_F32, true, &own->bias);
    own->bias = eqi_tensor_ref(l->weight.bias);
    return EQAT_OK;
}

static eqat_status own_vectors(eqat_model *m, const eqi_block *b, eqi_block *own)
{
    for (int i = 0; i < b->n_linears; i++)
        EQI_RETURN_IF(own_bias(m, &b->linears[i], &own->linears[i].weight));
    for (int i = 0; i < b->n_norms; i++) {
        const eqi_norm *n = &b->norms[i];
        if (own->norms[i].gain) continue;
        EQI_RETURN_IF(n->gain ? eqi_tensor_cast(n->gain, EQI_F32, &own->norms[i].gain)
                              : read_norm(m, &own->norms[i], true));
    }
    return EQAT_OK;
}

eqat_status eqi_block_own_vectors(eqat_model *m, eqi_block *own)
{
    return own_vectors(m, &m->blocks[own->index], own);
}

eqat_status eqi_block_own_weight(eqat_model *m, eqi_block *own, int linear, eqi_dtype dtype)
{
    return own_weight(m, &m->blocks[own->index].linears[linear], dtype,
                      &own->linears[linear].weight);
}

eqat_status eqi_block_outline(eqat_model *m, int64_t index, eqi_block *own)
{
    const eqi_block *b = &m->blocks[index];
    *own = *b;
    own->readers = 0;
    own->state = EQI_BLOCK_MASTERS;
    own->norms = NULL;
    own->linears =
        eqi_calloc(m->ctx, (size_t)b->n_linears, sizeof *own->linears, "a block's linears");
    own->norms = own->linears
        ? eqi_calloc(m->ctx, (size_t)b->n_norms, sizeof *own->norms, "a block's norms")
        : NULL;
    if (!own->norms) {
        own->n_linears = own->n_norms = 0;
        eqi_block_drop(m->ctx, own);
        return EQAT_OUT_OF_MEMORY;
    }
    for (int i = 0; i < b->n_linears; i++) {
        own->linears[i] = b->linears[i];
        own->linears[i].weight = (eqi_weight){0};
        own->linears[i].local = own->linears[i].name + (b->linears[i].local - b->linears[i].name);
    }
    for (int i = 0; i < b->n_norms; i++) {
        own->norms[i] = b->norms[i];
        own->norms[i].gain = NULL;
        own->norms[i].local = own->norms[i].name + (b->norms[i].local - b->norms[i].name);
    }
    return EQAT_OK;
}

static eqat_status fill_own(eqat_model *m, const eqi_block *b, eqi_block *own)
{
    for (int i = 0; i < b->n_linears; i++)
        EQI_RETURN_IF(own_weight(m, &b->linears[i], EQI_F32, &own->linears[i].weight));
    return own_vectors(m, b, own);
}

eqat_status eqi_block_masters(eqat_model *m, int64_t index, eqi_block *own)
{
    EQI_RETURN_IF(eqi_block_outline(m, index, own));
    eqat_status st = fill_own(m, &m->blocks[index], own);
    if (st != EQAT_OK) eqi_block_drop(m->ctx, own);
    return st;
}

eqat_status eqi_block_originals(eqat_model *m, int64_t index, eqi_block *own)
{
    EQI_RETURN_IF(eqi_block_outline(m, index, own));
    eqat_status st = fill_own(m, own, own); /* which has nothing in memory */
    if (st != EQAT_OK) eqi_block_drop(m->ctx, own);
    return st;
}

void eqi_block_drop(eqi_ctx *ctx, eqi_block *own)
{
    clear(own);
    eqi_free(ctx, own->linears);
    eqi_free(ctx, own->norms);
    *own = (eqi_block){0};
}

void eqi_block_put(eqat_model *m, eqi_block *own)
{
    eqi_block *b = &m->blocks[own->index];
    clear(b);
    b->state = EQI_BLOCK_MASTERS;
    b->handed_out = false;
    for (int i = 0; i < b->n_linears; i++) {
        b->linears[i].weight = own->linears[i].weight;
        own->linears[i].weight = (eqi_weight){0};
        if (b->linears[i].weight.codes) b->state = EQI_BLOCK_PACKED;
    }
    for (int i = 0; i < b->n_norms; i++) {
        b->norms[i].gain = own->norms[i].gain;
        own->norms[i].gain = NULL;
    }
}

/* ---- both ends ---- */

eqat_status eqi_model_load_embedding(eqat_model *m)
{
    if (m->embedding) return EQAT_OK;
    return eqi_read_tensor(m, "model.embed_tokens.weight", eqi_kept_dtype(m->embedding_stored),
                           true, &m->embedding);
}

eqat_status eqi_model_load_ends(eqat_model *m)
{
    EQI_RETURN_IF(eqi_model_load_embedding(m));
    if (!m->head && m->config.tied) m->head = eqi_tensor_ref(m->embedding);
    if (!m->head)
        EQI_RETURN_IF(
            eqi_read_tensor(m, "lm_head.weight", eqi_kept_dtype(m->head_stored), true, &m->head));
    return read_norm(m, &m->final_norm, true);
}

void eqi_model_unload_ends(eqat_model *m)
{
    bool keep_head = m->config.tied ? m->embedding_pinned : m->head_pinned;
    if (!keep_head) drop_tensor(&m->head);
    if (!m->embedding_pinned) drop_tensor(&m->embedding);
}

void eqi_model_drop_weights(eqat_model *m)
{
    for (int64_t i = 0; m->blocks && i < m->config.blocks; i++) {
        eqi_block *b = &m->blocks[i];
        clear(b);
        eqi_free(m->ctx, b->linears);
        eqi_free(m->ctx, b->norms);
    }
    eqi_free(m->ctx, m->blocks);
    drop_tensor(&m->final_norm.gain);
    drop_tensor(&m->embedding);
    drop_tensor(&m->head);
}
