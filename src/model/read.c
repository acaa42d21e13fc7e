#include <math.h>
#include <string.h>

#include "base/half.h"
#include "model/read.h"
#include "quant/freeze.h"

#define CHUNK                                                                                     \
    ((int64_t)1 << 16) /* elements read at once: they stay in a cache from the file to the tensor \
                        */

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

static eqat_status not_finite(eqat_model *m, const eqi_source_entry *e, int64_t at, float value)
{
    return eqi_fail(m->ctx, EQAT_NUMERIC,
                    "%s: tensor %s: found %s at element %lld, expected finite numbers",
                    eqi_source_path(m->source, e->file), e->name, isnan(value) ? "NaN" : "infinity",
                    (long long)at);
}

eqat_status eqi_read_chunk(eqat_model *m, const eqi_source_entry *e, int64_t first, int64_t n,
                           eqi_dtype dtype, bool check_finite, float *wide, uint16_t *narrow,
                           const void **out)
{
    bool raw = e->stored == eqi_stored_as(dtype);
    if (raw) {
        size_t size = eqi_dtype_size(dtype);
        EQI_RETURN_IF(
            eqi_source_read_raw(m->source, e, (uint64_t)first * size, (size_t)n * size, wide));
    } else {
        EQI_RETURN_IF(eqi_source_read_f32(m->source, e, first, n, wide));
        if (e->stored != eqi_stored_as(eqi_kept_dtype(e->stored))) eqi_round_f16(wide, n);
    }
    eqi_dtype found = raw ? dtype : EQI_F32;
    int64_t bad = check_finite ? eqi_first_bad(wide, n, found) : n;
    if (bad < n) return not_finite(m, e, first + bad, eqi_element(wide, bad, found));
    *out = wide;
    if (found == dtype) return EQAT_OK;
    eqi_narrow(wide, n, dtype, narrow);
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

eqat_status eqi_read_tensor(eqat_model *m, const char *name, eqi_dtype dtype, bool check_finite,
                            eqi_tensor **out)
{
    *out = NULL;
    const eqi_source_entry *e = eqi_source_find(m->source, name);
    if (!e) return eqi_fail(m->ctx, EQAT_FORMAT, "%s: tensor %s: not found", m->path, name);
    int64_t rows, width, step = eqi_chunk_rows(e, &rows, &width);
    eqi_tensor *t = NULL, *view = NULL;
    eqat_status st = EQAT_OUT_OF_MEMORY;
    const void *data;
    float *wide = eqi_alloc(m->ctx, (size_t)(step * width) * sizeof *wide, name);
    uint16_t *narrow =
        wide ? eqi_alloc(m->ctx, (size_t)(step * width) * sizeof *narrow, name) : NULL;
    if (!narrow) goto done;
    EQI_GOTO(done, eqi_tensor_create(m->ctx, &t, dtype, e->ndim, e->shape));
    for (int64_t row = 0; row < rows; row += step) {
        int64_t count = rows - row < step ? rows - row : step;
        EQI_GOTO(done,
                 eqi_read_chunk(m, e, row * width, count * width, dtype, check_finite, wide, narrow,
                                &data));
        if (e->ndim > 1)
            EQI_GOTO(done, eqi_tensor_slice(t, &view, 0, row, count));
        else
            view = eqi_tensor_ref(t);
        st = eqi_tensor_upload(view, data, (size_t)(count * width) * eqi_dtype_size(dtype));
        eqi_tensor_unref(view);
        if (st != EQAT_OK) goto done;
    }
done:
    eqi_free(m->ctx, wide);
    eqi_free(m->ctx, narrow);
    if (st != EQAT_OK) {
        eqi_tensor_unref(t);
        t = NULL;
    }
    *out = t;
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
