/* What the files of src/format that read GGUF share. */
#ifndef EQI_FORMAT_GGUF_IMPL_H
#define EQI_FORMAT_GGUF_IMPL_H

#include "format/gguf.h"

/* Kinds of metadata values, as numbered in the file. */
enum {
    EQI_GGUF_U8,
    EQI_GGUF_I8,
    EQI_GGUF_U16,
    EQI_GGUF_I16,
    EQI_GGUF_U32,
    EQI_GGUF_I32,
    EQI_GGUF_F32,
    EQI_GGUF_BOOL,
    EQI_GGUF_STRING,
    EQI_GGUF_ARRAY,
    EQI_GGUF_U64,
    EQI_GGUF_I64,
    EQI_GGUF_F64,
    EQI_GGUF_KINDS
};

/* The tensors under their GGUF names; borrowed. */
const eqi_source *eqi_gguf_tensors(const eqi_gguf *g);
const char *eqi_gguf_path(const eqi_gguf *g);
eqi_ctx *eqi_gguf_context(const eqi_gguf *g);
/* A metadata value as it is in memory: numbers and booleans as in the file. Strings of arrays are
 * read by eqi_gguf_array_string, arrays of arrays not at all. */
typedef struct eqi_gguf_value {
    const char *key;
    uint32_t kind, element; /* element: of an array */
    uint64_t count;         /* elements of an array; bytes of a string */
    const void *data;
} eqi_gguf_value;
/* Value i in the order of keys; false: there are fewer. */
bool eqi_gguf_value_at(const eqi_gguf *g, size_t i, eqi_gguf_value *out);
/* Bytes of a number or boolean; 0: another kind. */
size_t eqi_gguf_kind_size(uint32_t kind);
/* The type of tensor `name` by its number in the file; EQAT_UNSUPPORTED by name or number. */
eqat_status eqi_gguf_find_type(eqi_ctx *ctx, const char *path, const char *name, uint32_t id,
                               eqi_stored *out);
/* The number of a type in a file; -1: GGUF has no such type. */
int64_t eqi_gguf_type_id(eqi_stored stored);
/* A source without tensors that reads from g's file and holds g: to be filled and finished by the
 * caller. */
eqat_status eqi_gguf_source_create(eqi_gguf *g, eqi_source **out);

#endif
