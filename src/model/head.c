#include <string.h>

#include "model/read.h"

#define NAME "lm_head.weight"
#define TABLE "model.embed_tokens.weight"

static bool same_values(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (a[i] != b[i]) return false;
    return true;
}

static eqat_status compare(eqat_model *m, const eqi_source_entry *head,
                           const eqi_source_entry *table, bool *same)
{
    int64_t rows, width, step = eqi_chunk_rows(head, &rows, &width);
    float *values = eqi_alloc(m->ctx, 2 * (size_t)(step * width) * sizeof *values, NAME);
    if (!values) return EQAT_OUT_OF_MEMORY;
    eqat_status st = EQAT_OK;
    *same = true;
    for (int64_t row = 0; row < rows && *same; row += step) {
        int64_t n = (rows - row < step ? rows - row : step) * width;
        EQI_GOTO(done, eqi_source_read_f32(m->source, head, row * width, n, values));
        EQI_GOTO(done, eqi_source_read_f32(m->source, table, row * width, n, values + n));
        *same = same_values(values, values + n, n);
    }
done:
    eqi_free(m->ctx, values);
    return st;
}

eqat_status eqi_model_check_head(eqat_model *m)
{
    const int64_t shape[2] = {m->config.vocab, m->config.hidden};
    const eqi_source_entry *head = eqi_source_find(m->source, NAME),
                           *table = eqi_source_find(m->source, TABLE);
    bool same;
    if (!head) return EQAT_OK;
    EQI_RETURN_IF(eqi_source_expect(m->source, m->path, NAME, EQI_ACCEPT_FLOATS, 2, shape, NULL));
    EQI_RETURN_IF(compare(m, head, table, &same));
    if (same) return EQAT_OK;
    eqi_log(m->ctx, EQI_LOG_WARN,
            "%s: tensor " NAME
            ": found another one than the embeddings, though tie_word_embeddings is true: it is "
            "used, and tie_word_embeddings becomes false",
            m->path);
    m->config.tied = false;
    if (json_object_set_new(m->json, "tie_word_embeddings", json_false()) != 0)
        return eqi_fail(m->ctx, EQAT_OUT_OF_MEMORY, "out of memory: config.json");
    return EQAT_OK;
}
