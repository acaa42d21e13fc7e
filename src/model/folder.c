#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/half.h"
#include "model/folder.h"
#include "model/read.h"
#include "quant/freeze.h"

#define CHUNK ((int64_t)1 << 16)

/* One walk over the tensors declares them, a second one writes them. */
typedef struct emitter {
    eqat_model *m;
    eqi_ctx *ctx;
    const eqi_folder *folder;
    size_t linear; /* of folder->linears, the next */
    eqi_shards *out;
    bool writing;
} emitter;

static eqat_status declare(emitter *e, const char *name, eqi_stored stored, int ndim,
                           const int64_t *shape)
{
    return eqi_shards_declare(e->out, name, stored, ndim, shape);
}

static eqat_status refuse_value(emitter *e, const char *name, float value)
{
    return eqi_fail(e->ctx, EQAT_NUMERIC, "%s: found %s, expected finite numbers", name,
                    isnan(value) ? "NaN" : "infinity");
}

/* An F32 tensor in memory, a chunk at a time, as `stored`. */
static eqat_status write_memory(emitter *e, const char *name, eqi_stored stored, eqi_tensor *t)
{
    int64_t n = eqi_view_count(&t->v), step = n < CHUNK ? n : CHUNK;
    eqi_dtype kept = eqi_kept_dtype(stored);
    eqi_tensor *flat = NULL, *part = NULL;
    eqat_status st = EQAT_OUT_OF_MEMORY;
    float *wide = eqi_alloc(e->ctx, (size_t)step * sizeof *wide, name);
    uint16_t *narrow = wide ? eqi_alloc(e->ctx, (size_t)step * sizeof *narrow, name) : NULL;
    if (!narrow) goto done;
    EQI_GOTO(done, eqi_tensor_reshape(t, &flat, 1, &n));
    for (int64_t at = 0; at < n; at += step) {
        int64_t count = n - at < step ? n - at : step;
        EQI_GOTO(done, eqi_tensor_slice(flat, &part, 0, at, count));
        st = eqi_tensor_download(part, wide, (size_t)count * sizeof *wide);
        eqi_tensor_unref(part);
        if (st != EQAT_OK) goto done;
        if (kept != EQI_F32) eqi_narrow(wide, count, kept, narrow);
        const void *data = kept == EQI_F32 ? (const void *)wide : narrow;
        int64_t bad = eqi_first_bad(data, count, kept);
        if (bad < count) {
            st = refuse_value(e, name, wide[bad]);
            goto done;
        }
        EQI_GOTO(done, eqi_shards_write(e->out, data, (size_t)count * eqi_dtype_size(kept)));
    }
done:
    eqi_tensor_unref(flat);
    eqi_free(e->ctx, wide);
    eqi_free(e->ctx, narrow);
    return st;
}

static eqat_status write_source(emitter *e, const eqi_source_entry *entry, eqi_stored stored)
{
    int64_t rows, width, step = eqi_chunk_rows(entry, &rows, &width);
    size_t size = eqi_dtype_size(eqi_kept_dtype(stored));
    eqat_status st = EQAT_OUT_OF_MEMORY;
    float *wide = eqi_alloc(e->ctx, (size_t)(step * width) * sizeof *wide, entry->name);
    uint16_t *narrow =
        wide ? eqi_alloc(e->ctx, (size_t)(step * width) * sizeof *narrow, entry->name) : NULL;
    if (!narrow) goto done;
    st = EQAT_OK;
    for (int64_t row = 0; row < rows; row += step) {
        int64_t count = (rows - row < step ? rows - row : step) * width;
        const void *data;
        EQI_GOTO(done,
                 eqi_read_kept(e->m, entry, row * width, count, eqi_kept_dtype(stored), wide,
                               narrow, &data));
        EQI_GOTO(done, eqi_shards_write(e->out, data, (size_t)count * size));
    }
done:
    eqi_free(e->ctx, wide);
    eqi_free(e->ctx, narrow);
    return st;
}

/* t: the tensor in memory or NULL. Only F32 ones can differ from the file. */
static eqat_status emit_dense(emitter *e, const char *name, eqi_tensor *t)
{
    const eqi_source_entry *entry = eqi_source_find(e->m->source, name);
    if (!entry)
        return eqi_fail(e->ctx, EQAT_NOT_FOUND, "%s: tensor %s: not found", e->m->path, name);
    eqi_stored stored = eqi_stored_as(eqi_kept_dtype(entry->stored));
    if (!e->writing) return declare(e, name, stored, entry->ndim, entry->shape);
    bool memory = t && t->v.dtype == EQI_F32;
    return memory ? write_memory(e, name, stored, t) : write_source(e, entry, stored);
}

static eqat_status write_packed(emitter *e, const eqi_linear *l, const eqi_layout_linear *linear)
{
    eqi_packed p;
    EQI_RETURN_IF(eqi_model_packed(e->m, l, linear, &p));
    eqat_status st = eqi_layout_write(e->ctx, e->folder->layout, e->out, linear, &p);
    eqi_packed_free(e->ctx, &p);
    return st;
}

static eqat_status emit_linear(emitter *e, eqi_linear *l)
{
    char name[128];
    const eqi_layout_linear *linear = &e->folder->linears[e->linear++];
    if (linear->q.bits && !e->writing) {
        EQI_RETURN_IF(eqi_layout_declare(e->folder->layout, e->out, linear));
    } else if (linear->q.bits) {
        EQI_RETURN_IF(write_packed(e, l, linear));
    } else {
        snprintf(name, sizeof name, "%s.weight", l->name);
        EQI_RETURN_IF(emit_dense(e, name, l->weight.w));
    }
    snprintf(name, sizeof name, "%s.bias", l->name);
    return l->has_bias ? emit_dense(e, name, l->weight.bias) : EQAT_OK;
}

static eqat_status tell(const emitter *e, int64_t part)
{
    return e->writing ? eqi_save_tell(e->m, e->folder->options, "step", part) : EQAT_OK;
}

static eqat_status emit_all(emitter *e)
{
    eqat_model *m = e->m;
    e->linear = 0;
    EQI_RETURN_IF(tell(e, 0));
    EQI_RETURN_IF(emit_dense(e, "model.embed_tokens.weight", m->embedding));
    for (int64_t b = 0; b < m->config.blocks; b++) {
        eqi_block *block = &m->blocks[b];
        if (e->writing) EQI_RETURN_IF(eqi_check_cancel(e->ctx));
        EQI_RETURN_IF(tell(e, b + 1));
        for (int i = 0; i < block->n_linears; i++)
            EQI_RETURN_IF(emit_linear(e, &block->linears[i]));
        for (int i = 0; i < block->n_norms; i++)
            EQI_RETURN_IF(emit_dense(e, block->norms[i].name, block->norms[i].gain));
    }
    EQI_RETURN_IF(tell(e, m->config.blocks + 1));
    EQI_RETURN_IF(emit_dense(e, m->final_norm.name, m->final_norm.gain));
    if (!m->config.tied) EQI_RETURN_IF(emit_dense(e, "lm_head.weight", m->head));
    return tell(e, m->config.blocks + 2);
}

static eqat_status write_weights(eqat_model *m, const eqi_folder *f, const char *dir)
{
    emitter e = {.m = m, .ctx = m->ctx, .folder = f};
    const char *kind = f->layout->kind ? f->layout->kind : "pt";
    eqat_status st;
    EQI_GOTO(done, eqi_shards_create(m->ctx, &e.out, dir, f->options->max_shard_size, kind));
    EQI_GOTO(done, emit_all(&e));
    e.writing = true;
    EQI_GOTO(done, emit_all(&e));
    EQI_GOTO(done, eqi_save_tell(m, f->options, "sync", 0));
    eqi_shards *out = e.out;
    e.out = NULL;
    st = eqi_shards_close(out);
done:
    eqi_shards_discard(e.out);
    return st;
}

static eqat_status round_f32(eqi_tensor *t, eqi_stored stored)
{
    return t ? eqi_round_kept(t, stored) : EQAT_OK;
}

/* What still trains, in E2E-QP, must not be rounded. */
eqat_status eqi_round_trained(eqat_model *m)
{
    if (m->job == EQI_JOB_E2E_QP) return EQAT_OK;
    EQI_RETURN_IF(round_f32(m->embedding, m->embedding_stored));
    if (!m->config.tied) EQI_RETURN_IF(round_f32(m->head, m->head_stored));
    EQI_RETURN_IF(round_f32(m->final_norm.gain, m->final_norm.stored));
    for (int64_t b = 0; b < m->config.blocks; b++) {
        eqi_block *block = &m->blocks[b];
        if (block->state == EQI_BLOCK_DENSE) continue;
        for (int i = 0; i < block->n_linears; i++) {
            eqi_linear *l = &block->linears[i];
            if (l->weight.codes) EQI_RETURN_IF(eqi_quant_round_s(l->weight.s));
            EQI_RETURN_IF(round_f32(l->weight.w, l->stored));
            EQI_RETURN_IF(round_f32(l->weight.bias, l->bias_stored));
        }
        for (int i = 0; i < block->n_norms; i++)
            EQI_RETURN_IF(round_f32(block->norms[i].gain, block->norms[i].stored));
    }
    return EQAT_OK;
}

static eqat_status write_files(eqat_model *m, const eqi_folder *f, const char *dir)
{
    EQI_RETURN_IF(eqi_round_trained(m));
    EQI_RETURN_IF(write_weights(m, f, dir));
    EQI_RETURN_IF(eqi_save_config(m, f, dir));
    return m->tokenizer ? eqat_tokenizer_save(m->tokenizer, dir) : EQAT_OK;
}

static eqat_status write_folder(eqat_model *m, const eqi_folder *f, const char *dir)
{
    eqi_outdir *out;
    EQI_RETURN_IF(eqi_outdir_begin(m->ctx, &out, dir));
    eqat_status st = write_files(m, f, out->temp);
    if (st == EQAT_OK) st = eqi_outdir_commit(&out);
    eqi_outdir_abort(&out);
    return st;
}

eqat_status eqi_folder_save(eqat_model *m, const char *dir, const eqat_save_options *o)
{
    eqi_folder f;
    eqat_status st = eqi_folder_plan(m, NULL, o, &f);
    if (st == EQAT_OK) {
        eqi_folder_warn(m, &f);
        st = write_folder(m, &f, dir);
    }
    eqi_folder_release(m, &f);
    return st;
}
