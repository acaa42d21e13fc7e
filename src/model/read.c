#include <math.h>
#include <string.h>

#include "backend/backend.h"
#include "base/half.h"
#include "base/threads.h"
#include "model/read.h"
#include "quant/freeze.h"

/* Elements read at once: they stay in a cache from the file to the tensor. */
#define CHUNK ((int64_t)1 << 16)

eqi_dtype eqi_kept_dtype(eqi_stored stored)
{
    return stored == EQI_STORED_F32 ? EQI_F32 : stored == EQI_STORED_BF16 ? EQI_BF16 : EQI_F16;
}

eqi_stored eqi_stored_as(eqi_dtype dtype)
{
    return dtype == EQI_F32 ? EQI_STORED_F32 : dtype == EQI_BF16 ? EQI_STORED_BF16 : EQI_STORED_F16;
}

eqat_status eqi_round_kept(eqi_tensor *t, eqi_stored stored)
{
    eqi_dtype kept = eqi_kept_dtype(stored);
    if (kept == t->v.dtype || t->v.dtype != EQI_F32) return EQAT_OK;
    eqi_tensor *rounded;
    EQI_RETURN_IF(eqi_tensor_cast(t, kept, &rounded));
    eqat_status st = eqi_tensor_copy(t, rounded);
    eqi_tensor_unref(rounded);
    return st;
}

/* ---- chunks ---- */

/* Of floats that become fp16, the least that would be infinite. */
#define F16_END 65520.0f
/* Elements of a task that widens: a multiple of every block. */
#define PIECE 4096

eqi_dtype eqi_read_dtype(eqi_stored stored)
{
    const eqi_dtype kept = eqi_kept_dtype(stored);
    return stored == eqi_stored_as(kept) ? kept : EQI_F32;
}

static eqat_status bad_value(eqat_model *m, const eqi_source_entry *e, int64_t at, float value)
{
    const char *path = eqi_source_path(m->source, e->file);
    if (isfinite(value))
        return eqi_fail(m->ctx, EQAT_NUMERIC,
                        "%s: tensor %s: found %g at element %lld, expected what fp16 holds", path,
                        e->name, (double)value, (long long)at);
    return eqi_fail(m->ctx, EQAT_NUMERIC,
                    "%s: tensor %s: found %s at element %lld, expected finite numbers", path,
                    e->name, isnan(value) ? "NaN" : "infinity", (long long)at);
}

typedef struct widening {
    eqi_stored stored;
    const unsigned char *from;
    float *to;
    int64_t n;
} widening;

static void widen_piece(void *arg, size_t index, int worker)
{
    const widening *w = arg;
    const int64_t first = (int64_t)index * PIECE, left = w->n - first;
    (void)worker;
    eqi_stored_widen(w->stored, w->from + eqi_stored_bytes(w->stored, first),
                     left < PIECE ? left : PIECE, w->to + first);
}

static eqat_status read_blocks(eqat_model *m, const eqi_source_entry *e, int64_t first, int64_t n,
                               float *wide, uint16_t *narrow)
{
    const widening w = {
        .stored = e->stored, .from = (const unsigned char *)narrow, .to = wide, .n = n};
    EQI_RETURN_IF(eqi_source_read_raw(m->source, e, eqi_stored_bytes(e->stored, first),
                                      (size_t)eqi_stored_bytes(e->stored, n), narrow));
    eqi_parallel(m->ctx, (size_t)((n + PIECE - 1) / PIECE), widen_piece, (void *)&w);
    return EQAT_OK;
}

eqat_status eqi_read_chunk(eqat_model *m, const eqi_source_entry *e, int64_t first, int64_t n,
                           bool check_finite, float *wide, uint16_t *narrow)
{
    const eqi_dtype dtype = eqi_read_dtype(e->stored);
    const bool raw = e->stored == eqi_stored_as(dtype);
    const size_t size = eqi_dtype_size(dtype);
    if (raw)
        EQI_RETURN_IF(
            eqi_source_read_raw(m->source, e, (uint64_t)first * size, (size_t)n * size, wide));
    else if (eqi_stored_block(e->stored) > 1)
        EQI_RETURN_IF(read_blocks(m, e, first, n, wide, narrow));
    else
        EQI_RETURN_IF(eqi_source_read_f32(m->source, e, first, n, wide));
    if (!check_finite) return EQAT_OK;
    const int64_t bad = raw ? eqi_first_bad(wide, n, dtype) : eqi_first_from(wide, n, F16_END);
    return bad < n ? bad_value(m, e, first + bad, eqi_element(wide, bad, dtype)) : EQAT_OK;
}

eqat_status eqi_read_kept(eqat_model *m, const eqi_source_entry *e, int64_t first, int64_t n,
                          eqi_dtype kept, float *wide, uint16_t *narrow, const void **out)
{
    const eqi_dtype read = eqi_read_dtype(e->stored);
    *out = wide;
    if (read == kept || read == EQI_F32)
        EQI_RETURN_IF(eqi_read_chunk(m, e, first, n, false, wide, narrow));
    else
        EQI_RETURN_IF(eqi_source_read_f32(m->source, e, first, n, wide));
    if (read == kept || kept == EQI_F32) return EQAT_OK;
    eqi_narrow(wide, n, kept, narrow);
    *out = narrow;
    return EQAT_OK;
}

int64_t eqi_chunk_rows(const eqi_source_entry *e, int64_t *rows, int64_t *width)
{
    *rows = e->ndim > 1 ? e->shape[0] : 1;
    *width = *rows ? e->elements / *rows : 0;
    int64_t step = *width ? CHUNK / *width : CHUNK;
    return step < 1 ? 1 : step < *rows ? step : *rows;
}

/* ---- tensors ---- */

typedef struct reading {
    eqat_model *m;
    const eqi_source_entry *e;
    bool check_finite;
    float *wide;
    uint16_t *narrow;
    eqi_tensor *read, *kept; /* a chunk as it is read; rounded to what is kept, or NULL */
    eqi_tensor *to;
} reading;

static eqi_view elements_of(const eqi_tensor *t, int64_t first, int64_t n)
{
    return (eqi_view){.data = (char *)t->v.data + (size_t)first * eqi_dtype_size(t->v.dtype),
                      .dtype = t->v.dtype,
                      .ndim = 1,
                      .shape = {n},
                      .stride = {1}};
}

/* The backend converts: all threads, and the widest instructions. */
static eqat_status read_elements(reading *r, int64_t first, int64_t n)
{
    eqi_ctx *ctx = r->m->ctx;
    const size_t size = eqi_dtype_size(eqi_read_dtype(r->e->stored));
    EQI_RETURN_IF(eqi_read_chunk(r->m, r->e, first, n, r->check_finite, r->wide, r->narrow));
    if (!r->read)
        return eqi_tensor_upload_part(r->to, (size_t)first * size, r->wide, (size_t)n * size);
    const eqi_view read = elements_of(r->read, 0, n), to = elements_of(r->to, first, n);
    EQI_RETURN_IF(eqi_tensor_upload_part(r->read, 0, r->wide, (size_t)n * size));
    if (!r->kept) return ctx->backend->copy(ctx, &to, &read);
    const eqi_view kept = elements_of(r->kept, 0, n);
    EQI_RETURN_IF(ctx->backend->copy(ctx, &kept, &read));
    return ctx->backend->copy(ctx, &to, &kept);
}

static eqat_status read_all(reading *r, eqi_dtype dtype)
{
    eqi_ctx *ctx = r->m->ctx;
    const eqi_source_entry *e = r->e;
    const eqi_dtype read = eqi_read_dtype(e->stored), kept = eqi_kept_dtype(e->stored);
    const int64_t n = e->elements < CHUNK ? e->elements : CHUNK;
    r->wide = eqi_alloc(ctx, (size_t)n * sizeof *r->wide, e->name);
    r->narrow = r->wide ? eqi_alloc(ctx, (size_t)n * sizeof *r->narrow, e->name) : NULL;
    if (!r->narrow) return EQAT_OUT_OF_MEMORY;
    EQI_RETURN_IF(eqi_tensor_create(ctx, &r->to, dtype, e->ndim, e->shape));
    if (read != dtype || read != kept) EQI_RETURN_IF(eqi_tensor_create(ctx, &r->read, read, 1, &n));
    if (read != kept && kept != dtype) EQI_RETURN_IF(eqi_tensor_create(ctx, &r->kept, kept, 1, &n));
    for (int64_t i = 0; i < e->elements; i += n)
        EQI_RETURN_IF(read_elements(r, i, e->elements - i < n ? e->elements - i : n));
    return EQAT_OK;
}

eqat_status eqi_read_tensor(eqat_model *m, const char *name, eqi_dtype dtype, bool check_finite,
                            eqi_tensor **out)
{
    reading r = {.m = m, .e = eqi_source_find(m->source, name), .check_finite = check_finite};
    *out = NULL;
    if (!r.e) return eqi_fail(m->ctx, EQAT_FORMAT, "%s: tensor %s: not found", m->path, name);
    const eqat_status st = read_all(&r, dtype);
    eqi_tensor_unref(r.read);
    eqi_tensor_unref(r.kept);
    eqi_free(m->ctx, r.wide);
    eqi_free(m->ctx, r.narrow);
    if (st == EQAT_OK)
        *out = r.to;
    else
        eqi_tensor_unref(r.to);
    return st;
}

eqat_status eqi_load_packed(eqat_model *m, const eqi_linear *l, eqi_weight *weight)
{
    eqi_layout_linear linear = eqi_linear_described(l, l->file);
    eqi_weight w = {0};
    eqat_status st = eqi_packing_read(&m->packing, m->source, &linear, &w);
    if (st != EQAT_OK) {
        eqi_weight_release(&w);
        return st;
    }
    w.bias = weight->bias;
    *weight = w;
    return EQAT_OK;
}
