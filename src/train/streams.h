/* The two activation streams of Block-AP: for every sample [T, H] behind the last block that is
 * done, once of the full-precision model and once of the quantized one. They begin as the
 * embeddings and move block by block, in place. */
#ifndef EQI_TRAIN_STREAMS_H
#define EQI_TRAIN_STREAMS_H

#include "tensor/tensor.h"

typedef enum eqi_stream { EQI_STREAM_FULL, EQI_STREAM_QUANTIZED, EQI_STREAM_COUNT } eqi_stream;

typedef struct eqi_streams_shape {
    int64_t samples, time, hidden; /* each at least 1 */
    int64_t batch;   /* samples of a fetch and of a pass's step, at most; may exceed `samples` */
    uint64_t memory; /* bytes that stay in memory if there is a folder, of whole samples */
    eqi_dtype dtype;
} eqi_streams_shape;

typedef struct eqi_streams eqi_streams;

/* Makes [n, T, H] of samples [first, first + n); the caller of the callback owns *x. */
typedef eqat_status (*eqi_streams_embed)(void *user, int64_t first, int64_t n, eqi_tensor **x);
/* Moves samples [first, first + n), x [n, T, H], through a block; the caller owns *y, of x's shape
 * and dtype. */
typedef eqat_status (*eqi_streams_forward)(void *user, int64_t first, eqi_tensor *x,
                                           eqi_tensor **y);

/* Both streams, filled with what `embed` makes, `batch` samples a call and in order. offload_dir:
 * see eqi_cache_create; used during the call. EQAT_CANCELLED between two batches. */
eqat_status eqi_streams_create(eqi_ctx *ctx, eqi_streams **out, const eqi_streams_shape *shape,
                               const char *offload_dir, eqi_streams_embed embed, void *user);
void eqi_streams_free(eqi_streams *streams); /* NULL is fine */

/* Number of blocks that all samples of a stream have passed. */
int64_t eqi_streams_blocks(const eqi_streams *streams, eqi_stream stream);

/* The samples with these numbers as one tensor [n, T, H], the caller's. */
eqat_status eqi_streams_fetch(eqi_streams *streams, eqi_stream stream, const int64_t *samples,
                              int64_t n, eqi_tensor **out);
/* A hint that these samples are wanted next. */
void eqi_streams_ahead(eqi_streams *streams, eqi_stream stream, const int64_t *samples, int64_t n);

/* Moves a stream through one more block, batch by batch in the order of samples. After a failure or
 * EQAT_CANCELLED the samples that have passed stay behind the block; the next call goes on with the
 * others and must be given the same block. */
eqat_status eqi_streams_advance(eqi_streams *streams, eqi_stream stream,
                                eqi_streams_forward forward, void *user);

#endif
