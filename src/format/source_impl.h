/* How a format fills a source; seen by the files of src/format alone. */
#ifndef EQI_FORMAT_SOURCE_IMPL_H
#define EQI_FORMAT_SOURCE_IMPL_H

#include <jansson.h>

#include "base/file.h"
#include "format/source.h"

typedef struct eqi_source_item {
    eqi_source_entry entry; /* first: what callers hold is a pointer to it */
    /* 0: rows as stored. Otherwise the file holds the two halves of each of so many heads
     * interleaved, and reads put them back one after the other. */
    int64_t interleaved_heads;
    /* The file holds 1 more than every value of this F32 tensor; reads take it away. */
    bool one_more;
    bool expected; /* by eqi_source_expect */
} eqi_source_item;

struct eqi_source {
    eqi_ctx *ctx;
    eqi_source_item *items;
    size_t count, capacity;
    const eqi_source_entry **by_name;
    eqi_file **files;
    int nfiles;
    void (*release)(void *owner); /* NULL: the source closes its files itself */
    void *owner;
    json_t *metadata;
};

eqat_status eqi_source_create(eqi_ctx *ctx, eqi_source **out);
/* On success the file is closed with the source, unless release is set. */
eqat_status eqi_source_add_file(eqi_source *source, eqi_file *file);
/* entry: name is copied; elements, bytes are filled in here from shape and stored, with every
 * overflow and the block size of the innermost dimension checked. offset must be set and is checked
 * against the file's size. */
eqat_status eqi_source_add(eqi_source *source, const char *name, const eqi_source_entry *entry);
/* Sorts into file order, then refuses duplicate names and overlapping ranges. */
eqat_status eqi_source_finish(eqi_source *source);

/* Fills in entry->elements and entry->bytes; path and name are for the message. */
eqat_status eqi_source_measure(eqi_ctx *ctx, const char *path, const char *name,
                               eqi_source_entry *entry);

/* The bound that the format's own reader sets. */
#define EQI_SAFETENSORS_HEADER_MAX 100000000u
/* "F32"; NULL: safetensors has no such type. */
const char *eqi_safetensors_dtype(eqi_stored stored);

#endif
