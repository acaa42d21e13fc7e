/* Named tensors inside one or many files, read a few rows at a time by position. */
#ifndef EQI_FORMAT_SOURCE_H
#define EQI_FORMAT_SOURCE_H

#include "base/context.h"

#define EQI_SOURCE_MAX_DIMS 4

/* What the file stores. Block-quantized GGUF types appear under their GGUF names. A type that a
 * file may hold but that is not listed here is refused by name when the file is opened. */
typedef enum eqi_stored {
    EQI_STORED_F32,
    EQI_STORED_F16,
    EQI_STORED_BF16,
    EQI_STORED_F64,
    EQI_STORED_I8,
    EQI_STORED_U8,
    EQI_STORED_I32,
    EQI_STORED_I64,
    EQI_STORED_I16,
    EQI_STORED_U16,
    EQI_STORED_U32,
    EQI_STORED_U64,
    EQI_STORED_BOOL,
    EQI_STORED_F8_E4M3, /* carried as bytes: not readable as f32 */
    EQI_STORED_F8_E5M2,
    EQI_STORED_Q4_0,
    EQI_STORED_Q4_1,
    EQI_STORED_Q5_0,
    EQI_STORED_Q5_1,
    EQI_STORED_Q8_0,
    EQI_STORED_Q4_K,
    EQI_STORED_Q5_K,
    EQI_STORED_Q6_K,
    EQI_STORED_Q2_0,
    EQI_STORED_TQ2_0,
    EQI_STORED_COUNT
} eqi_stored;

const char *eqi_stored_name(eqi_stored stored); /* "F16", "Q4_K" */
bool eqi_stored_is_float(eqi_stored stored);    /* readable by eqi_source_read_f32 */
int64_t eqi_stored_block(eqi_stored stored);    /* elements per block: 1, 32, 64 or 256 */
/* Bytes of n consecutive elements; n is a multiple of the type's block and at most INT64_MAX / 8.
 */
uint64_t eqi_stored_bytes(eqi_stored stored, int64_t n);

typedef struct eqi_source_entry {
    const char *name; /* borrowed from the source */
    eqi_stored stored;
    int ndim;
    int64_t shape[EQI_SOURCE_MAX_DIMS]; /* row-major; a scalar has ndim 0 */
    int64_t elements;
    uint64_t offset; /* in its file */
    uint64_t bytes;
    int file;
} eqi_source_entry;

typedef struct eqi_source eqi_source;

/* A Hugging Face folder: model.safetensors, or the shards of model.safetensors.index.json. Headers
 * are read and checked here: duplicate names, gaps, overlapping or out-of-range offsets (a
 * truncated shard among them), shapes that do not match the bytes, a listed tensor or shard that is
 * not there are errors naming file and tensor. */
eqat_status eqi_source_open_safetensors(eqi_ctx *ctx, eqi_source **out, const char *dir);
/* One .safetensors file. */
eqat_status eqi_source_open_safetensors_file(eqi_ctx *ctx, eqi_source **out, const char *path);
void eqi_source_close(eqi_source *source); /* NULL is fine */

size_t eqi_source_count(const eqi_source *source);
const eqi_source_entry *eqi_source_at(const eqi_source *source, size_t i); /* in file order */
const eqi_source_entry *eqi_source_find(const eqi_source *source,
                                        const char *name); /* NULL: none */
const char *eqi_source_path(const eqi_source *source, int file);
/* What a tensor that a model needs may be stored as. */
typedef enum eqi_accepted {
    EQI_ACCEPT_FLOATS,   /* readable by eqi_source_read_f32, but F64 */
    EQI_ACCEPT_STEPS,    /* F16, BF16 or F32 */
    EQI_ACCEPT_WORDS,    /* I32 */
    EQI_ACCEPT_UNSIGNED, /* U32 */
    EQI_ACCEPT_INTEGERS, /* I32 or I64 */
} eqi_accepted;

/* The tensor is there, of this shape and a type among `types`, which goes to *stored (may be NULL);
 * else EQAT_FORMAT. `path` is what the source was opened as, for messages. */
eqat_status eqi_source_expect(const eqi_source *source, const char *path, const char *name,
                              eqi_accepted types, int ndim, const int64_t *shape,
                              eqi_stored *stored);
/* Whether anything has expected it so. */
bool eqi_source_was_expected(const eqi_source *source, size_t i);
/* The "__metadata__" string of a single safetensors file; NULL when missing or when there are
 * shards. Borrowed. */
const char *eqi_source_metadata(const eqi_source *source, const char *key);

/* Elements [first, first + n) of a float tensor as f32 (exact for f16/bf16; GGUF types dequantized;
 * f64 rounded to nearest). For block types first and n are multiples of the block size. Not-a-float
 * is EQAT_FORMAT. Allocates nothing; values are not checked for NaN. */
eqat_status eqi_source_read_f32(eqi_source *source, const eqi_source_entry *entry, int64_t first,
                                int64_t n, float *dst);
/* Of a type of 16-bit floats or of blocks: n elements from bytes that lie apart from dst, or in its
 * end, so that these are read before dst reaches them. */
void eqi_stored_widen(eqi_stored stored, const unsigned char *src, int64_t n, float *dst);
/* The stored bytes as they are: [first, first+n) bytes of the tensor, little endian. */
eqat_status eqi_source_read_raw(eqi_source *source, const eqi_source_entry *entry, uint64_t first,
                                size_t n, void *dst);

/* Writing one safetensors file: declare every tensor, then write their bytes in the declared order,
 * in any number of pieces. In the file they lie in that order without gaps; wider types go first
 * where a tensor would otherwise not start at a multiple of its element size. close fails when
 * bytes are missing or too many, and then removes the file, as it does after any earlier failure.
 */
typedef struct eqi_safetensors_writer eqi_safetensors_writer;
eqat_status eqi_safetensors_create(eqi_ctx *ctx, eqi_safetensors_writer **out, const char *path);
eqat_status eqi_safetensors_metadata(eqi_safetensors_writer *w, const char *key, const char *value);
eqat_status eqi_safetensors_declare(eqi_safetensors_writer *w, const char *name, eqi_stored stored,
                                    int ndim, const int64_t *shape);
eqat_status eqi_safetensors_write(eqi_safetensors_writer *w, const void *data, size_t n);
eqat_status eqi_safetensors_close(eqi_safetensors_writer *w); /* frees in every case */
void eqi_safetensors_discard(eqi_safetensors_writer *w);      /* removes the file; NULL is fine */

#endif
