/* Rows of a model's weights, as GGUF files want them. */
#ifndef EQI_MODEL_GGUF_ROWS_H
#define EQI_MODEL_GGUF_ROWS_H

#include "format/gguf_carriers.h"
#include "model/model.h"

/* Where row i of an interleaved tensor is in Hugging Face's order: the two halves of each head of
 * `head_dim` rows, turn by turn. */
static inline int64_t eqi_gguf_row_of(int64_t i, int64_t head_dim)
{
    const int64_t r = i % head_dim;
    return i - r + r % 2 * (head_dim / 2) + r / 2;
}

/* A matrix that is not quantized. */
typedef struct eqi_gguf_rows {
    eqat_model *m;
    const eqi_source_entry *entry;
    eqi_tensor *t; /* F32 in memory, newer than the file; or NULL */
    eqi_stored stored;
    int64_t width;
    size_t bytes; /* of a row */
    float *wide;
    uint16_t *narrow;
} eqi_gguf_rows;

/* stored: F32, F16 or BF16, or the file's own type of blocks. t may be NULL. */
eqat_status eqi_gguf_rows_open(eqi_gguf_rows *rows, eqat_model *model,
                               const eqi_source_entry *entry, eqi_tensor *t, eqi_stored stored);
/* Valid until the next one. A value that is not finite is EQAT_NUMERIC. */
eqat_status eqi_gguf_rows_read(eqi_gguf_rows *rows, int64_t row, const void **data);
void eqi_gguf_rows_close(eqi_gguf_rows *rows);

/* A quantized linear, from memory or the model's file. */
typedef struct eqi_gguf_packed {
    eqi_ctx *ctx;
    eqi_layout_linear linear;
    eqi_packed weight;
    int16_t *steps; /* of one row */
} eqi_gguf_packed;

/* As eqi_model_packed. */
eqat_status eqi_gguf_packed_open(eqi_gguf_packed *packed, eqat_model *model,
                                 const eqi_linear *linear);
eqi_gguf_row eqi_gguf_packed_row(eqi_gguf_packed *packed, int64_t row); /* until the next one */
void eqi_gguf_packed_close(eqi_gguf_packed *packed);

#endif
