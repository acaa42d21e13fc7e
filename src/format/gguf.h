/* GGUF files: metadata and dequantizing reads. */
#ifndef EQI_FORMAT_GGUF_H
#define EQI_FORMAT_GGUF_H

#include "base/context.h"
#include "format/source.h"

typedef struct eqi_gguf eqi_gguf;

/* Reads the header of a file of version 2 or 3; every count, length, type and offset is checked
 * against the file's size first. A tensor of a type outside eqi_stored, or a big-endian file, is
 * EQAT_UNSUPPORTED. Arrays of arrays are stepped over: such a key exists, its elements cannot be
 * read. */
eqat_status eqi_gguf_open(eqi_ctx *ctx, eqi_gguf **out, const char *path);
void eqi_gguf_close(eqi_gguf *gguf); /* NULL is fine */

bool eqi_gguf_has(const eqi_gguf *g, const char *key);
/* Scalars; false, with *out unchanged, when the key is missing or of another kind. Integers of any
 * width convert to int64_t unless they are too large, and to double; f32 and f64 convert to double
 * only. */
bool eqi_gguf_int(const eqi_gguf *g, const char *key, int64_t *out);
bool eqi_gguf_float(const eqi_gguf *g, const char *key, double *out);
bool eqi_gguf_bool(const eqi_gguf *g, const char *key, bool *out);
/* UTF-8 bytes, not NUL terminated by contract but one NUL follows; NULL when missing. Borrowed from
 * g. */
const char *eqi_gguf_string(const eqi_gguf *g, const char *key, size_t *length);
/* Arrays: number of elements, -1 when missing or not an array. */
int64_t eqi_gguf_array_count(const eqi_gguf *g, const char *key);
/* NULL: not an array of strings, or out of range. */
const char *eqi_gguf_array_string(const eqi_gguf *g, const char *key, int64_t i, size_t *length);
/* As for scalars; false also when i is out of range. */
bool eqi_gguf_array_int(const eqi_gguf *g, const char *key, int64_t i, int64_t *out);
bool eqi_gguf_array_float(const eqi_gguf *g, const char *key, int64_t i, double *out);

/* The tensors of the file under their GGUF names ("blk.0.attn_q.weight"), shapes in row-major order
 * ([out, in]: GGUF's ne reversed). The source keeps a reference of its own on the file. */
eqat_status eqi_gguf_source(eqi_gguf *g, eqi_source **out);

#endif
