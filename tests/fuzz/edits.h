/* A JSON object and named tensors, as a model's folder or a job's state has them, and edits of
 * both. Mutations of the bytes of such files end at the first check; mutations of a list of edits
 * reach what comes behind. */
#ifndef TESTS_FUZZ_EDITS_H
#define TESTS_FUZZ_EDITS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum { EDIT_DIMS = 5 };

typedef struct named_tensor {
    char *name;
    const char *dtype;
    size_t width; /* bytes of an element */
    int ndim;
    int64_t shape[EDIT_DIMS];
    uint8_t *data;
    size_t bytes;
} named_tensor;

typedef struct parts {
    json_t *json;
    bool metadata; /* the object is that of the tensors' file, and its values are strings */
    named_tensor *tensors;
    size_t count;
} parts;

/* Of valid files. json_path NULL: the metadata. */
void parts_read(parts *p, const char *json_path, const char *tensors_path);
void parts_copy(parts *to, const parts *from);
/* A tensor of zeros at the end, in place of one of this name. */
named_tensor *parts_add(parts *p, const char *name, const char *dtype, int64_t rows,
                        int64_t columns);
named_tensor *parts_find(parts *p, const char *name); /* NULL: none */
/* Six bytes an edit: what, where (two), a value (two), a kind of it. Every script is one. */
void parts_edit(parts *p, const uint8_t *script, size_t n);
/* Offsets and length of the header are always right. */
void parts_write(const parts *p, const char *json_path, const char *tensors_path);
void parts_free(parts *p);

#endif
