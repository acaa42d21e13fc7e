#include "model/gguf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/half.h"
#include "data/tokenizer/gguf_keys.h"
#include "format/gguf_carriers.h"
#include "format/gguf_names.h"
#include "model/formats.h"
#include "model/gguf_rows.h"
#include "model/read.h"

#define NAME 128 /* room for the full name of a tensor */

/* One walk over the tensors chooses their types and declares them, a second one writes them. */
typedef struct emitter {
    eqat_model *m;
    eqi_ctx *ctx;
    const char *architecture;
    const eqi_gguf_carrier *forced; /* NULL: none */
    bool allow_lossy;
    const eqat_save_options *told; /* NULL: nobody */
    eqi_gguf_writer *out;
    bool writing;
    const eqi_gguf_carrier **chosen; /* of packed linears, one after the other */
    size_t next;
    double bits, weights;                                         /* of the blocks' linears */
    int64_t of_type[EQI_STORED_COUNT], tensors[EQI_STORED_COUNT]; /* elements; linears */
    float largest;                                                /* error */
    char worst[NAME], text[NAME];
} emitter;

static eqat_status place(emitter *e, const char *name, eqi_gguf_place *out)
{
    if (eqi_gguf_find_place(e->architecture, name, out)) return EQAT_OK;
    return eqi_fail(e->ctx, EQAT_UNSUPPORTED, "%s: GGUF's %s has no such tensor", name,
                    e->architecture);
}

static void declare(emitter *e, const char *name, eqi_stored stored, int ndim, const int64_t *shape)
{
    int64_t n = 1;
    for (int i = 0; i < ndim; i++) n *= shape[i];
    e->of_type[stored] += n;
    eqi_gguf_declare(e->out, name, stored, ndim, shape);
}

/* ---- what is not quantized ---- */

/* The type of a matrix in the file: what it is kept as, and blocks as they came. */
static eqi_stored matrix_type(const eqi_source_entry *entry, const eqi_tensor *t)
{
    const bool trained = t && t->v.dtype == EQI_F32;
    return eqi_stored_block(entry->stored) > 1 && !trained
        ? entry->stored
        : eqi_stored_as(eqi_kept_dtype(entry->stored));
}

static eqat_status write_vector(emitter *e, const eqi_source_entry *entry, eqi_tensor *t,
                                const eqi_gguf_place *p)
{
    const int64_t n = entry->elements;
    float *x = eqi_alloc(e->ctx, (size_t)n * 2 * sizeof *x, entry->name), *out = x + n;
    if (!x) return EQAT_OUT_OF_MEMORY;
    eqat_status st = t && t->v.dtype == EQI_F32 ? eqi_tensor_download(t, x, (size_t)n * sizeof *x)
                                                : eqi_source_read_f32(e->m->source, entry, 0, n, x);
    for (int64_t i = 0; st == EQAT_OK && i < n; i++) {
        out[i] = x[p->interleaved ? eqi_gguf_row_of(i, e->m->config.head_dim) : i];
        if (p->one_more) out[i] += 1;
        if (!isfinite(out[i]))
            st = eqi_fail(e->ctx, EQAT_NUMERIC,
                          "%s: found %s at element %lld, expected finite numbers", entry->name,
                          isnan(out[i]) ? "NaN" : "infinity", (long long)i);
    }
    if (st == EQAT_OK) st = eqi_gguf_write(e->out, out, (size_t)n * sizeof *out);
    eqi_free(e->ctx, x);
    return st;
}

static eqat_status write_matrix(emitter *e, const eqi_source_entry *entry, eqi_tensor *t,
                                eqi_stored stored, bool interleaved)
{
    eqi_gguf_rows rows;
    EQI_RETURN_IF(eqi_gguf_rows_open(&rows, e->m, entry, t, stored));
    eqat_status st = EQAT_OK;
    for (int64_t i = 0; st == EQAT_OK && i < entry->shape[0]; i++) {
        const void *data;
        st = eqi_gguf_rows_read(&rows, interleaved ? eqi_gguf_row_of(i, e->m->config.head_dim) : i,
                                &data);
        if (st == EQAT_OK) st = eqi_gguf_write(e->out, data, rows.bytes);
    }
    eqi_gguf_rows_close(&rows);
    return st;
}

static eqat_status find_entry(emitter *e, const char *name, const eqi_source_entry **entry)
{
    *entry = eqi_source_find(e->m->source, name);
    return *entry ? EQAT_OK
                  : eqi_fail(e->ctx, EQAT_NOT_FOUND, "%s: tensor %s: not found", e->m->path, name);
}

/* t: the tensor in memory or NULL. Only F32 ones can differ from the file. */
static eqat_status emit_dense(emitter *e, const char *name, eqi_tensor *t, bool wide)
{
    const eqi_source_entry *entry;
    eqi_gguf_place p;
    EQI_RETURN_IF(find_entry(e, name, &entry));
    EQI_RETURN_IF(place(e, name, &p));
    const bool vector = entry->ndim == 1;
    const eqi_stored stored = vector || wide ? EQI_STORED_F32 : matrix_type(entry, t);
    if (e->writing)
        return vector ? write_vector(e, entry, t, &p)
                      : write_matrix(e, entry, t, stored, p.interleaved);
    declare(e, p.name, stored, entry->ndim, entry->shape);
    return EQAT_OK;
}

/* ---- linears of blocks; several when they are experts, which one tensor holds ---- */

/* "which ... exactly" */
static const char *nobody(emitter *e)
{
    if (!e->forced) return "no GGUF type holds";
    snprintf(e->text, sizeof e->text, "%s does not hold", e->forced->name);
    return e->text;
}

static eqat_status not_held(emitter *e, const eqi_linear *l, const eqi_gguf_row *row)
{
    int low = 0, high = 0;
    for (int64_t i = 0; i < row->n; i++) {
        if (row->steps[i] < low) low = row->steps[i];
        if (row->steps[i] > high) high = row->steps[i];
    }
    return eqi_fail(e->ctx, EQAT_UNSUPPORTED,
                    "%s: found groups of %lld with codes %d to %d steps from the zero point, which "
                    "%s exactly (allow_lossy rounds them)",
                    l->name, (long long)row->group, low, high, nobody(e));
}

/* Climbs from *c on to the type that holds all rows. */
static eqat_status choose(emitter *e, eqi_linear *l, const eqi_gguf_carrier **c)
{
    eqi_gguf_packed p;
    EQI_RETURN_IF(eqi_gguf_packed_open(&p, e->m, l));
    eqat_status st = EQAT_OK;
    for (int64_t i = 0; st == EQAT_OK && i < l->out; i++) {
        eqi_gguf_row row = eqi_gguf_packed_row(&p, i);
        while (st == EQAT_OK && !eqi_gguf_carrier_holds(*c, &row)) {
            const eqi_gguf_carrier *next = e->forced ? NULL : eqi_gguf_carrier_next(*c);
            if (next) {
                *c = next;
            } else {
                st = e->allow_lossy ? EQAT_OK : not_held(e, l, &row);
                break;
            }
        }
    }
    eqi_gguf_packed_close(&p);
    return st;
}

static eqat_status write_packed(emitter *e, eqi_linear *l, const eqi_gguf_carrier *c,
                                bool interleaved)
{
    eqi_gguf_packed p;
    EQI_RETURN_IF(eqi_gguf_packed_open(&p, e->m, l));
    const size_t bytes = (size_t)eqi_stored_bytes(c->stored, l->in);
    unsigned char *row = eqi_alloc(e->ctx, bytes, l->name);
    eqat_status st = row ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; st == EQAT_OK && i < l->out; i++) {
        const int64_t at = interleaved ? eqi_gguf_row_of(i, e->m->config.head_dim) : i;
        const eqi_gguf_row steps = eqi_gguf_packed_row(&p, at);
        const float error = eqi_gguf_carrier_encode(c, &steps, row);
        if (error > e->largest) {
            e->largest = error;
            snprintf(e->worst, sizeof e->worst, "%s", l->name);
        }
        st = eqi_gguf_write(e->out, row, bytes);
    }
    eqi_free(e->ctx, row);
    eqi_gguf_packed_close(&p);
    return st;
}

/* A linear, or `count` experts: the same linear of each. */
typedef struct stack {
    eqi_linear *first;
    int64_t count;
    eqi_block *block;
} stack;

static eqi_linear *linear_of(const stack *s, int64_t i)
{
    return i ? (eqi_linear *)eqi_block_linear(s->block, s->first->role, (int)i) : s->first;
}

static eqat_status declare_stack(emitter *e, const stack *s, const char *name, eqi_stored stored)
{
    const eqi_linear *l = s->first;
    const int64_t shape[3] = {s->count, l->out, l->in};
    if (l->in % eqi_stored_block(stored))
        return eqi_fail(e->ctx, EQAT_UNSUPPORTED,
                        "%s: found %lld inputs, expected a multiple of %lld for %s", l->name,
                        (long long)l->in, (long long)eqi_stored_block(stored),
                        eqi_stored_name(stored));
    const double weights = (double)(s->count * l->out) * (double)l->in;
    e->weights += weights;
    e->tensors[stored]++;
    e->bits += weights / (double)eqi_stored_block(stored) * 8 *
        (double)eqi_stored_bytes(stored, eqi_stored_block(stored));
    declare(e, name, stored, s->count > 1 ? 3 : 2, s->count > 1 ? shape : shape + 1);
    return EQAT_OK;
}

static eqat_status emit_packed(emitter *e, const stack *s, const eqi_gguf_place *p)
{
    const eqi_gguf_carrier **c = &e->chosen[e->next++];
    if (!e->writing) {
        *c = e->forced ? e->forced : eqi_gguf_carrier_first();
        for (int64_t i = 0; i < s->count; i++) EQI_RETURN_IF(choose(e, linear_of(s, i), c));
        return declare_stack(e, s, p->name, (*c)->stored);
    }
    for (int64_t i = 0; i < s->count; i++)
        EQI_RETURN_IF(write_packed(e, linear_of(s, i), *c, p->interleaved));
    return EQAT_OK;
}

static eqat_status weight_entry(emitter *e, const eqi_linear *l, const eqi_source_entry **entry)
{
    char name[NAME];
    snprintf(name, sizeof name, "%s.weight", l->name);
    return find_entry(e, name, entry);
}

static eqat_status emit_plain(emitter *e, const stack *s, const eqi_gguf_place *p)
{
    const eqi_source_entry *entry;
    EQI_RETURN_IF(weight_entry(e, s->first, &entry));
    eqi_stored stored = s->first->plain ? EQI_STORED_F32 : matrix_type(entry, s->first->weight.w);
    if (!e->writing) return declare_stack(e, s, p->name, stored);
    for (int64_t i = 0; i < s->count; i++) {
        eqi_linear *l = linear_of(s, i);
        EQI_RETURN_IF(weight_entry(e, l, &entry));
        EQI_RETURN_IF(write_matrix(e, entry, l->weight.w, stored, p->interleaved));
    }
    return EQAT_OK;
}

/* All packed, or all not and of one type. */
static eqat_status check_alike(emitter *e, const stack *s)
{
    for (int64_t i = 1; i < s->count; i++) {
        const eqi_linear *l = linear_of(s, i);
        const bool packed = eqi_linear_quantization(l).bits != 0,
                   first = eqi_linear_quantization(s->first).bits != 0;
        if (packed != first)
            return eqi_fail(e->ctx, EQAT_UNSUPPORTED,
                            "%s: found it %s, expected all experts of a block alike", l->name,
                            packed ? "quantized and the first expert not"
                                   : "not quantized and the first expert quantized");
        const eqi_source_entry *a, *b;
        if (packed) continue;
        EQI_RETURN_IF(weight_entry(e, s->first, &a));
        EQI_RETURN_IF(weight_entry(e, l, &b));
        if (matrix_type(a, s->first->weight.w) != matrix_type(b, l->weight.w))
            return eqi_fail(e->ctx, EQAT_UNSUPPORTED,
                            "%s: found type %s, expected %s as the first expert's", l->name,
                            eqi_stored_name(b->stored), eqi_stored_name(a->stored));
    }
    return EQAT_OK;
}

static eqat_status emit_linear(emitter *e, eqi_block *block, eqi_linear *l)
{
    char name[NAME];
    eqi_gguf_place p;
    const bool expert = strstr(l->local, ".experts.") != NULL;
    if (expert && l->expert > 0) return EQAT_OK; /* written with the first */
    const stack s = {l, expert ? e->m->config.experts : 1, block};
    snprintf(name, sizeof name, "%s.weight", l->name);
    EQI_RETURN_IF(place(e, name, &p));
    if (!e->writing) EQI_RETURN_IF(check_alike(e, &s));
    EQI_RETURN_IF(eqi_linear_quantization(l).bits ? emit_packed(e, &s, &p) : emit_plain(e, &s, &p));
    snprintf(name, sizeof name, "%s.bias", l->name);
    return l->has_bias ? emit_dense(e, name, l->weight.bias, true) : EQAT_OK;
}

/* ---- the whole ---- */

static eqat_status emit_rope(emitter *e)
{
    const int64_t pairs = e->m->config.head_dim / 2;
    if (!eqi_gguf_rope_factors(e->m, NULL)) return EQAT_OK;
    if (!e->writing) {
        declare(e, "rope_freqs.weight", EQI_STORED_F32, 1, &pairs);
        return EQAT_OK;
    }
    float *factors = eqi_alloc(e->ctx, (size_t)pairs * sizeof *factors, "rotary factors");
    if (!factors) return EQAT_OUT_OF_MEMORY;
    eqi_gguf_rope_factors(e->m, factors);
    eqat_status st = eqi_gguf_write(e->out, factors, (size_t)pairs * sizeof *factors);
    eqi_free(e->ctx, factors);
    return st;
}

static eqat_status tell_part(const emitter *e, int64_t part)
{
    return e->told ? eqi_save_tell(e->m, e->told, e->writing ? "step" : "types", part) : EQAT_OK;
}

static eqat_status emit_all(emitter *e)
{
    eqat_model *m = e->m;
    e->next = 0;
    EQI_RETURN_IF(tell_part(e, 0));
    EQI_RETURN_IF(emit_rope(e));
    EQI_RETURN_IF(emit_dense(e, "model.embed_tokens.weight", m->embedding, false));
    for (int64_t b = 0; b < m->config.blocks; b++) {
        eqi_block *block = &m->blocks[b];
        EQI_RETURN_IF(eqi_check_cancel(e->ctx));
        EQI_RETURN_IF(tell_part(e, b + 1));
        for (int i = 0; i < block->n_linears; i++)
            EQI_RETURN_IF(emit_linear(e, block, &block->linears[i]));
        for (int i = 0; i < block->n_norms; i++)
            EQI_RETURN_IF(emit_dense(e, block->norms[i].name, block->norms[i].gain, true));
    }
    EQI_RETURN_IF(tell_part(e, m->config.blocks + 1));
    EQI_RETURN_IF(emit_dense(e, m->final_norm.name, m->final_norm.gain, true));
    if (!m->config.tied) EQI_RETURN_IF(emit_dense(e, "lm_head.weight", m->head, false));
    return e->writing ? tell_part(e, m->config.blocks + 2) : EQAT_OK;
}

/* What llama.cpp calls a file by: the type that most of its elements have. */
static void put_types(emitter *e)
{
    static const struct {
        eqi_stored stored;
        uint32_t number;
    } files[] = {{EQI_STORED_F32, 0},   {EQI_STORED_F16, 1},  {EQI_STORED_BF16, 32},
                 {EQI_STORED_Q4_0, 2},  {EQI_STORED_Q4_1, 3}, {EQI_STORED_Q5_0, 8},
                 {EQI_STORED_Q5_1, 9},  {EQI_STORED_Q8_0, 7}, {EQI_STORED_Q2_0, 41},
                 {EQI_STORED_TQ2_0, 37}};
    size_t most = 0;
    for (size_t i = 1; i < EQI_COUNT(files); i++)
        if (e->of_type[files[i].stored] > e->of_type[files[most].stored]) most = i;
    eqi_gguf_put_u32(e->out, "general.file_type", files[most].number);
    eqi_gguf_put_u32(e->out, "general.quantization_version", 2);
}

static eqat_status begin(emitter *e, eqat_model *m, const eqat_save_options *o, const char *path)
{
    size_t linears = 0;
    *e = (emitter){.m = m,
                   .ctx = m->ctx,
                   .architecture = eqi_gguf_architecture(m->config.family->model_type),
                   .forced = o->gguf_type ? eqi_gguf_carrier_find(o->gguf_type) : NULL,
                   .allow_lossy = o->allow_lossy};
    for (int64_t b = 0; b < m->config.blocks; b++) linears += (size_t)m->blocks[b].n_linears;
    EQI_RETURN_IF(eqi_gguf_create(m->ctx, &e->out, path));
    EQI_RETURN_IF(eqi_gguf_put_config(m, e->out));
    EQI_RETURN_IF(eqi_gguf_put_tokenizer(m->ctx, m->tokenizer, m->config.vocab, e->out));
    e->chosen = eqi_calloc(m->ctx, linears, sizeof *e->chosen, "the types of a GGUF file");
    return e->chosen ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

static void end(emitter *e)
{
    eqi_gguf_discard(e->out);
    eqi_free(e->ctx, e->chosen);
}

/* What a quantizer is about to make of a linear, by its bits, groups and kind alone: fixed zero
 * points are in the middle. */
static eqat_status check_future(emitter *e, const eqi_linear *l, const eqat_quantizer *quantizer)
{
    eqi_quant q = {.kind = NULL};
    if (eqi_linear_quantization(l).bits) return EQAT_OK;
    EQI_RETURN_IF(eqi_linear_choose(l, quantizer, &q));
    if (!q.kind || e->allow_lossy) return EQAT_OK;
    const bool middle = q.kind == eqi_quant_kinds[EQAT_ZERO_POINT_FIXED],
               small = q.desc.group % 32 != 0;
    const eqi_gguf_carrier *c = e->forced ? e->forced : eqi_gguf_carrier_first();
    while (c && !eqi_gguf_carrier_suits(c, q.desc.bits, q.desc.group, middle))
        c = e->forced ? NULL : eqi_gguf_carrier_next(c);
    if (c) return EQAT_OK;
    return eqi_fail(e->ctx, EQAT_UNSUPPORTED,
                    "%s: found %d bits in groups of %lld%s, which %s exactly (allow_lossy rounds "
                    "them)",
                    l->name, q.desc.bits, (long long)q.desc.group,
                    small || middle ? "" : " with zero points that train", nobody(e));
}

eqat_status eqi_gguf_file_check(eqat_model *m, const eqat_quantizer *quantizer,
                                const eqat_save_options *o)
{
    emitter e;
    eqat_status st = begin(&e, m, o, NULL);
    if (st == EQAT_OK) st = emit_all(&e);
    for (int64_t b = 0; quantizer && b < m->config.blocks; b++)
        for (int i = 0; st == EQAT_OK && i < m->blocks[b].n_linears; i++)
            st = check_future(&e, &m->blocks[b].linears[i], quantizer);
    end(&e);
    return st;
}

static void tell(const emitter *e)
{
    char types[128] = "";
    for (int t = 0; t < EQI_STORED_COUNT; t++)
        if (e->tensors[t])
            snprintf(types + strlen(types), sizeof types - strlen(types), "%s%lld in %s",
                     *types ? ", " : "", (long long)e->tensors[t], eqi_stored_name((eqi_stored)t));
    eqi_log(e->ctx, EQI_LOG_INFO, "gguf: %.3f bits per weight of the linears: %s",
            e->bits / e->weights, types);
    if (e->largest > 0)
        eqi_log(e->ctx, EQI_LOG_WARN, "gguf: not exact: largest error of a weight %g, in %s",
                (double)e->largest, e->worst);
}

eqat_status eqi_gguf_file_save(eqat_model *m, const char *path, const eqat_save_options *o)
{
    emitter e;
    eqat_status st = begin(&e, m, o, path);
    e.told = o;
    if (st == EQAT_OK) st = eqi_round_trained(m);
    if (st == EQAT_OK) st = emit_all(&e);
    if (st == EQAT_OK) put_types(&e);
    e.writing = true;
    if (st == EQAT_OK) st = emit_all(&e);
    if (st == EQAT_OK) st = eqi_save_tell(m, o, "sync", 0);
    if (st == EQAT_OK) {
        st = eqi_gguf_finish(e.out);
        e.out = NULL;
    }
    if (st == EQAT_OK) tell(&e);
    end(&e);
    return st;
}
