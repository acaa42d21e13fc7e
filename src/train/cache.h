/* Activation streams: equally long records on the host, in memory or in unlinked files of a folder.
 */
#ifndef EQI_TRAIN_CACHE_H
#define EQI_TRAIN_CACHE_H

#include "tensor/tensor.h"

typedef struct eqi_cache eqi_cache;

/* `streams` streams of `records` records of `bytes` bytes. dir NULL: in memory. Otherwise the
 * streams lie in files whose space is reserved here and which vanish with the cache or the process;
 * a thread of the cache's own moves up to `slots` records between them and buffers that are
 * allocated here, too. */
eqat_status eqi_cache_create(eqi_ctx *ctx, eqi_cache **out, int streams, int64_t records,
                             size_t bytes, const char *dir, int slots);
void eqi_cache_free(eqi_cache *cache); /* NULL is fine */

/* Begins to read a record that will be wanted soon. Only a hint: buffers that hold older hints are
 * given up for it. */
void eqi_cache_ahead(eqi_cache *cache, int stream, int64_t record);
/* The record into t, a contiguous tensor of its size. */
eqat_status eqi_cache_get(eqi_cache *cache, int stream, int64_t record, eqi_tensor *t);
/* t becomes the record. A failure to write is told by this call, a later one or flush. */
eqat_status eqi_cache_put(eqi_cache *cache, int stream, int64_t record, const eqi_tensor *t);
/* Waits for all writes. */
eqat_status eqi_cache_flush(eqi_cache *cache);

#endif
