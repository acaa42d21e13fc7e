#include "model/read.h"

/* A look at all values of a file before hours are spent on the first of its blocks. */

static eqat_status check_tensor(eqat_model *m, const eqi_source_entry *e)
{
    eqi_dtype kept = eqi_kept_dtype(e->stored);
    eqi_dtype dtype = e->stored == eqi_stored_as(kept) ? kept : EQI_F32; /* nothing to convert */
    int64_t rows, width, step = eqi_chunk_rows(e, &rows, &width);
    const void *data;
    eqat_status st = EQAT_OK;
    float *buffer = eqi_alloc(m->ctx, (size_t)(step * width) * sizeof *buffer, e->name);
    if (!buffer) return EQAT_OUT_OF_MEMORY;
    for (int64_t row = 0; row < rows && st == EQAT_OK; row += step) {
        int64_t count = rows - row < step ? rows - row : step;
        st = eqi_check_cancel(m->ctx);
        if (st == EQAT_OK)
            st = eqi_read_chunk(m, e, row * width, count * width, dtype, true, buffer, NULL, &data);
    }
    eqi_free(m->ctx, buffer);
    return st;
}

eqat_status eqi_model_check_finite(eqat_model *m)
{
    if (m->finite) return EQAT_OK;
    for (size_t i = 0; i < eqi_source_count(m->source); i++) {
        const eqi_source_entry *e = eqi_source_at(m->source, i);
        if (eqi_source_was_expected(m->source, i) && eqi_stored_is_float(e->stored))
            EQI_RETURN_IF(check_tensor(m, e));
    }
    m->finite = true;
    return EQAT_OK;
}
