/* Writing one GGUF file of version 3, front to back: metadata and tensors are declared, then the
 * bytes of the tensors follow in the declared order. The file is built beside its place and renamed
 * there by close. */
#ifndef EQI_FORMAT_GGUF_WRITE_H
#define EQI_FORMAT_GGUF_WRITE_H

#include "format/gguf.h"

typedef struct eqi_gguf_writer eqi_gguf_writer;

/* EQAT_EXISTS when something is at path. path NULL: no file, to find out what would be refused;
 * then nothing is written and it ends with discard. */
eqat_status eqi_gguf_create(eqi_ctx *ctx, eqi_gguf_writer **out, const char *path);

/* The first failure of the calls below is kept: later ones do nothing, and write and close tell it.
 * All before the first write; each key once. */
void eqi_gguf_put_u32(eqi_gguf_writer *w, const char *key, uint32_t value);
void eqi_gguf_put_f32(eqi_gguf_writer *w, const char *key, float value);
void eqi_gguf_put_bool(eqi_gguf_writer *w, const char *key, bool value);
void eqi_gguf_put_string(eqi_gguf_writer *w, const char *key, const char *value);
void eqi_gguf_put_i32_array(eqi_gguf_writer *w, const char *key, const int32_t *values, size_t n);
void eqi_gguf_put_f32_array(eqi_gguf_writer *w, const char *key, const float *values, size_t n);
/* n strings, each of which follows by an add. */
void eqi_gguf_put_string_array(eqi_gguf_writer *w, const char *key, size_t n);
void eqi_gguf_add_string(eqi_gguf_writer *w, const char *value, size_t length);
/* The values of another file whose keys begin with `prefix`, as they are; arrays of arrays are left
 * out. */
void eqi_gguf_put_copies(eqi_gguf_writer *w, const eqi_gguf *from, const char *prefix);
/* shape: row-major, as in eqi_source_entry. A name of 64 bytes or more is EQAT_UNSUPPORTED: readers
 * refuse it. */
void eqi_gguf_declare(eqi_gguf_writer *w, const char *name, eqi_stored stored, int ndim,
                      const int64_t *shape);

/* In pieces of any size; what tensors are padded with comes by itself. */
eqat_status eqi_gguf_write(eqi_gguf_writer *w, const void *data, size_t n);
/* Frees in every case; bytes missing are EQAT_INVALID_ARGUMENT. Nothing is left of the file after a
 * failure. */
eqat_status eqi_gguf_finish(eqi_gguf_writer *w);
void eqi_gguf_discard(eqi_gguf_writer *w); /* removes the file; NULL is fine */

#endif
