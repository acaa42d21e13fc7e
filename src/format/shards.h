/* The weights of a Hugging Face folder: model.safetensors, or shards of it and their index. */
#ifndef EQI_FORMAT_SHARDS_H
#define EQI_FORMAT_SHARDS_H

#include "format/source.h"

/* Declare every tensor, then write their bytes in the declared order, in any number of pieces. */
typedef struct eqi_shards eqi_shards;

/* most: bytes of tensors in one file, unless a single tensor has more; 0: all in one file. kind:
 * the metadata "format" ("pt"). */
eqat_status eqi_shards_create(eqi_ctx *ctx, eqi_shards **out, const char *dir, int64_t most,
                              const char *kind);
eqat_status eqi_shards_declare(eqi_shards *shards, const char *name, eqi_stored stored, int ndim,
                               const int64_t *shape);
eqat_status eqi_shards_write(eqi_shards *shards, const void *data, size_t n);
/* Frees in every case. */
eqat_status eqi_shards_close(eqi_shards *shards);
void eqi_shards_discard(eqi_shards *shards); /* NULL is fine */

#endif
