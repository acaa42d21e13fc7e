#include "model/read.h"

/* A look at all values of a file before hours are spent on the first of its blocks. */

static eqat_status check_tensor(eqat_model *m, const eqi_source_entry *e)
{
    int64_t rows, width, step = eqi_chunk_rows(e, &rows, &width);
    float *wide = eqi_alloc(m->ctx, (size_t)(step * width) * sizeof *wide, e->name);
    uint16_t *narrow =
        wide ? eqi_alloc(m->ctx, (size_t)(step * width) * sizeof *narrow, e->name) : NULL;
    eqat_status st = narrow ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    for (int64_t row = 0; row < rows && st == EQAT_OK; row += step) {
        int64_t count = rows - row < step ? rows - row : step;
        st = eqi_check_cancel(m->ctx);
        if (st == EQAT_OK)
            st = eqi_read_chunk(m, e, row * width, count * width, true, wide, narrow);
    }
    eqi_free(m->ctx, wide);
    eqi_free(m->ctx, narrow);
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
