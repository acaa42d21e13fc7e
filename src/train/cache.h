/* Activations of samples on the host: equally many bytes for each, the first of them in memory and
 * the others in unlinked files of a folder. They come and go by batches, tensors [n, ..] whose rows
 * are samples. */
#ifndef EQI_TRAIN_CACHE_H
#define EQI_TRAIN_CACHE_H

#include "tensor/tensor.h"

typedef struct eqi_cache_shape {
    int streams; /* 1 or 2: each holds every sample once */
    int64_t samples;
    int64_t resident; /* those below it are in memory if there is a folder; at most samples */
    size_t bytes;     /* of a sample */
    int64_t batch;    /* samples of a batch, at most */
} eqi_cache_shape;

typedef struct eqi_cache eqi_cache;

/* dir NULL: all in memory. Otherwise a file for each stream, whose space is reserved here and which
 * vanishes with the cache or the process; a thread of the cache's own moves batches between them
 * and two buffers of a batch that are allocated here, too. A device has one buffer more, pinned, in
 * memory as well: what is written comes to it while the device goes on. EQAT_IO names dir. */
eqat_status eqi_cache_create(eqi_ctx *ctx, eqi_cache **out, const eqi_cache_shape *shape,
                             const char *dir);
void eqi_cache_free(eqi_cache *cache); /* NULL is fine */

/* In all that follows samples[n] are numbers below shape.samples, n is at most shape.batch and
 * batch a contiguous tensor of n * bytes. Samples that follow one another move in one piece. */

/* Begins to read a batch that will be wanted soon, as a whole. Only a hint: buffers that hold older
 * hints are given up for it. */
void eqi_cache_ahead(eqi_cache *cache, int stream, const int64_t *samples, int64_t n);
/* Row i of batch becomes samples[i]. */
eqat_status eqi_cache_read(eqi_cache *cache, int stream, const int64_t *samples, int64_t n,
                           eqi_tensor *batch);
/* samples[i] become row i of batch; no number stands twice. A failure to write is told by this
 * call, a later one or flush. */
eqat_status eqi_cache_write(eqi_cache *cache, int stream, const int64_t *samples, int64_t n,
                            const eqi_tensor *batch);
/* Waits for all writes. */
eqat_status eqi_cache_flush(eqi_cache *cache);

#endif
