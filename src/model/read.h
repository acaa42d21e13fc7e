/* Tensors of a model's files, piece by piece, as they are kept in memory. */
#ifndef EQI_MODEL_READ_H
#define EQI_MODEL_READ_H

#include "model/model.h"

eqi_stored eqi_stored_as(eqi_dtype dtype);
/* Rows to read at once of an entry seen as [rows, width]. */
int64_t eqi_chunk_rows(const eqi_source_entry *entry, int64_t *rows, int64_t *width);
/* What chunks are read as: as they are stored, or F32 where no tensor is stored like that. */
eqi_dtype eqi_read_dtype(eqi_stored stored);
/* Elements [first, first + n) as that, in `wide`; both buffers have room for n elements. */
eqat_status eqi_read_chunk(eqat_model *model, const eqi_source_entry *entry, int64_t first,
                           int64_t n, bool check_finite, float *wide, uint16_t *narrow);
/* The same as `kept`; *out is one of the two buffers. */
eqat_status eqi_read_kept(eqat_model *model, const eqi_source_entry *entry, int64_t first,
                          int64_t n, eqi_dtype kept, float *wide, uint16_t *narrow,
                          const void **out);
/* A whole float tensor of the source as `dtype`, of values as they are kept. */
eqat_status eqi_read_tensor(eqat_model *model, const char *name, eqi_dtype dtype, bool check_finite,
                            eqi_tensor **out);
/* Of tied embeddings: a head in the file that is another tensor is told and used,
 * tie_word_embeddings of the model's configuration becomes false. */
eqat_status eqi_model_check_head(eqat_model *model);

#endif
