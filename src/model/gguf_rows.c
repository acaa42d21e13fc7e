#include "model/gguf_rows.h"

#include <math.h>

#include "model/formats.h"
#include "model/read.h"

eqat_status eqi_gguf_rows_open(eqi_gguf_rows *r, eqat_model *m, const eqi_source_entry *entry,
                               eqi_tensor *t, eqi_stored stored)
{
    *r = (eqi_gguf_rows){.m = m,
                         .entry = entry,
                         .t = t && t->v.dtype == EQI_F32 ? t : NULL,
                         .stored = stored,
                         .width = entry->shape[entry->ndim - 1]};
    r->bytes = (size_t)eqi_stored_bytes(stored, r->width);
    r->wide = eqi_alloc(m->ctx, (size_t)r->width * sizeof *r->wide, entry->name);
    r->narrow = eqi_alloc(m->ctx, (size_t)r->width * sizeof *r->narrow, entry->name);
    if (r->wide && r->narrow) return EQAT_OK;
    eqi_gguf_rows_close(r);
    return EQAT_OUT_OF_MEMORY;
}

static eqat_status from_memory(eqi_gguf_rows *r, int64_t row, const void **data)
{
    const size_t bytes = (size_t)r->width * sizeof *r->wide;
    const eqi_dtype kept = eqi_kept_dtype(r->stored);
    EQI_RETURN_IF(eqi_tensor_download_part(r->t, (size_t)row * bytes, r->wide, bytes));
    *data = r->wide;
    if (kept != EQI_F32) {
        eqi_narrow(r->wide, r->width, kept, r->narrow);
        *data = r->narrow;
    }
    const int64_t bad = eqi_first_bad(*data, r->width, kept);
    if (bad == r->width) return EQAT_OK;
    return eqi_fail(r->m->ctx, EQAT_NUMERIC, "%s: found %s, expected finite numbers",
                    r->entry->name, isnan(r->wide[bad]) ? "NaN" : "infinity");
}

eqat_status eqi_gguf_rows_read(eqi_gguf_rows *r, int64_t row, const void **data)
{
    if (r->t) return from_memory(r, row, data);
    *data = r->wide;
    if (eqi_stored_block(r->stored) > 1)
        return eqi_source_read_raw(r->m->source, r->entry, (uint64_t)row * r->bytes, r->bytes,
                                   r->wide);
    return eqi_read_kept(r->m, r->entry, row * r->width, r->width, eqi_kept_dtype(r->stored),
                         r->wide, r->narrow, data);
}

void eqi_gguf_rows_close(eqi_gguf_rows *r)
{
    eqi_free(r->m->ctx, r->wide);
    eqi_free(r->m->ctx, r->narrow);
}

eqat_status eqi_gguf_packed_open(eqi_gguf_packed *p, eqat_model *m, const eqi_linear *l)
{
    *p = (eqi_gguf_packed){.ctx = m->ctx,
                           .linear = eqi_linear_described(l, eqi_linear_quantization(l))};
    p->steps = eqi_alloc(m->ctx, (size_t)l->in * sizeof *p->steps, "packed weights");
    eqat_status st = p->steps ? eqi_model_packed(m, l, &p->linear, &p->weight) : EQAT_OUT_OF_MEMORY;
    if (st != EQAT_OK) eqi_gguf_packed_close(p);
    return st;
}

eqi_gguf_row eqi_gguf_packed_row(eqi_gguf_packed *p, int64_t row)
{
    const eqi_quant_desc *q = &p->linear.q;
    const int64_t n = p->linear.in, groups = n / q->group;
    const uint32_t *words = p->weight.codes + row * eqi_packed_words(&p->linear);
    const uint8_t *z = p->weight.z + row * groups;
    const uint32_t top = (1u << q->bits) - 1;
    uint64_t held = 0;
    int bits = 0;
    for (int64_t i = 0; i < n; i++) {
        if (bits < q->bits) {
            held |= (uint64_t)*words++ << bits;
            bits += 32;
        }
        p->steps[i] = (int16_t)((int)((uint32_t)held & top) - z[i / q->group]);
        held >>= q->bits;
        bits -= q->bits;
    }
    return (eqi_gguf_row){
        .steps = p->steps, .scales = p->weight.s + row * groups, .n = n, .group = q->group};
}

void eqi_gguf_packed_close(eqi_gguf_packed *p)
{
    eqi_packed_free(p->ctx, &p->weight);
    eqi_free(p->ctx, p->steps);
}
