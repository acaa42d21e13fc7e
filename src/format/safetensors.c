#include <stdlib.h>
#include <string.h>

#include "format/json_load.h"
#include "format/source_impl.h"

#define INDEX_MAX 100000000u
#define SINGLE "model.safetensors"
#define INDEX "model.safetensors.index.json"

static const struct {
    const char *name;
    eqi_stored stored;
} dtypes[] = {
    {"F32", EQI_STORED_F32},   {"F16", EQI_STORED_F16},         {"BF16", EQI_STORED_BF16},
    {"F64", EQI_STORED_F64},   {"I8", EQI_STORED_I8},           {"U8", EQI_STORED_U8},
    {"I16", EQI_STORED_I16},   {"U16", EQI_STORED_U16},         {"I32", EQI_STORED_I32},
    {"U32", EQI_STORED_U32},   {"I64", EQI_STORED_I64},         {"U64", EQI_STORED_U64},
    {"BOOL", EQI_STORED_BOOL}, {"F8_E4M3", EQI_STORED_F8_E4M3}, {"F8_E5M2", EQI_STORED_F8_E5M2},
};

const char *eqi_safetensors_dtype(eqi_stored stored)
{
    for (size_t i = 0; i < EQI_COUNT(dtypes); i++)
        if (dtypes[i].stored == stored) return dtypes[i].name;
    return NULL;
}

static eqat_status parse_json(eqi_ctx *ctx, const char *path, const char *text, size_t size,
                              json_t **out)
{
    json_error_t error;
    *out = eqi_json_load(text, size, JSON_REJECT_DUPLICATES, &error);
    /* jansson says nothing at all where its first buffer cannot be had. */
    if (!*out && (!error.text[0] || json_error_code(&error) == json_error_out_of_memory))
        return eqi_fail(ctx, EQAT_OUT_OF_MEMORY, "out of memory: the JSON of %s", path);
    if (!*out)
        return eqi_fail(ctx, EQAT_FORMAT, "%s: damaged JSON: %s at byte %d", path, error.text,
                        error.position);
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        return eqi_fail(ctx, EQAT_FORMAT, "%s: found JSON of another kind, expected an object",
                        path);
    }
    return EQAT_OK;
}

static eqat_status read_header(eqi_ctx *ctx, eqi_file *file, json_t **out, uint64_t *data)
{
    unsigned char prefix[8];
    if (file->size < sizeof prefix)
        return eqi_fail(ctx, EQAT_FORMAT, "%s: found %llu bytes, expected a safetensors header",
                        file->path, (unsigned long long)file->size);
    EQI_RETURN_IF(eqi_file_read(file, prefix, 0, sizeof prefix));
    uint64_t length = 0;
    for (int i = 8; i-- > 0;) length = length << 8 | prefix[i];
    const uint64_t room = file->size - sizeof prefix;
    if (length > EQI_SAFETENSORS_HEADER_MAX || length > room)
        return eqi_fail(
            ctx, EQAT_FORMAT,
            "%s: found a header of %llu bytes, expected at most %llu: damaged or truncated",
            file->path, (unsigned long long)length,
            (unsigned long long)(room < EQI_SAFETENSORS_HEADER_MAX ? room
                                                                   : EQI_SAFETENSORS_HEADER_MAX));
    char *text = eqi_alloc(ctx, (size_t)length, file->path);
    if (!text) return EQAT_OUT_OF_MEMORY;
    eqat_status st = eqi_file_read(file, text, sizeof prefix, (size_t)length);
    if (st == EQAT_OK) st = parse_json(ctx, file->path, text, (size_t)length, out);
    eqi_free(ctx, text);
    *data = sizeof prefix + length;
    return st;
}

static eqat_status read_metadata(eqi_source *s, const char *path, json_t *object)
{
    if (!json_is_object(object))
        return eqi_fail(
            s->ctx, EQAT_FORMAT,
            "%s: __metadata__: found JSON of another kind, expected an object of strings", path);
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) if (!json_is_string(value)) return eqi_fail(
        s->ctx, EQAT_FORMAT, "%s: __metadata__ '%.200s': found another kind, expected a string",
        path, key);
    s->metadata = json_incref(object);
    return EQAT_OK;
}

static eqat_status read_entry(eqi_source *s, const char *path, const char *name, json_t *value,
                              uint64_t data, uint64_t data_size, eqi_source_entry *e)
{
    const json_t *dtype = json_object_get(value, "dtype"), *shape = json_object_get(value, "shape");
    const json_t *range = json_object_get(value, "data_offsets");
    if (!json_is_string(dtype) || !json_is_array(shape) || !json_is_array(range) ||
        json_array_size(range) != 2)
        return eqi_fail(s->ctx, EQAT_FORMAT,
                        "%s: tensor '%.200s': expected dtype, shape and two data_offsets", path,
                        name);
    size_t type = 0;
    while (type < EQI_COUNT(dtypes) && strcmp(dtypes[type].name, json_string_value(dtype))) type++;
    if (type == EQI_COUNT(dtypes))
        return eqi_fail(s->ctx, EQAT_UNSUPPORTED,
                        "%s: tensor '%.200s': type %.40s is not supported", path, name,
                        json_string_value(dtype));
    e->stored = dtypes[type].stored;
    if (json_array_size(shape) > EQI_SOURCE_MAX_DIMS)
        return eqi_fail(s->ctx, EQAT_UNSUPPORTED,
                        "%s: tensor '%.200s': found %zu dimensions, expected at most %d", path,
                        name, json_array_size(shape), EQI_SOURCE_MAX_DIMS);
    e->ndim = (int)json_array_size(shape);
    for (int i = 0; i < e->ndim; i++) {
        const json_t *n = json_array_get(shape, (size_t)i);
        if (!json_is_integer(n))
            return eqi_fail(s->ctx, EQAT_FORMAT,
                            "%s: tensor '%.200s': dimension %d is not an integer", path, name, i);
        e->shape[i] = json_integer_value(n);
    }
    const json_t *b = json_array_get(range, 0), *t = json_array_get(range, 1);
    const json_int_t begin = json_integer_value(b), end = json_integer_value(t);
    if (!json_is_integer(b) || !json_is_integer(t) || begin < 0 || end < begin)
        return eqi_fail(s->ctx, EQAT_FORMAT, "%s: tensor '%.200s': data_offsets are not a range",
                        path, name);
    if ((uint64_t)end > data_size)
        return eqi_fail(s->ctx, EQAT_FORMAT,
                        "%s: tensor '%.200s': found %llu bytes of data in the file, expected at "
                        "least %lld: truncated?",
                        path, name, (unsigned long long)data_size, (long long)end);
    e->offset = data + (uint64_t)begin;
    EQI_RETURN_IF(eqi_source_measure(s->ctx, path, name, e));
    if (e->bytes != (uint64_t)(end - begin))
        return eqi_fail(s->ctx, EQAT_FORMAT,
                        "%s: tensor '%.200s': found data_offsets of %lld bytes, expected %llu for "
                        "its shape in %s",
                        path, name, (long long)(end - begin), (unsigned long long)e->bytes,
                        eqi_stored_name(e->stored));
    return EQAT_OK;
}

/* The format allows no byte of data that belongs to no tensor: a gap is a damaged header. */
static eqat_status check_coverage(const eqi_source *s, const char *path, uint64_t data,
                                  uint64_t size, uint64_t covered)
{
    if (data + covered == size) return EQAT_OK;
    return eqi_fail(s->ctx, EQAT_FORMAT,
                    "%s: found %llu bytes of data, expected %llu from the shapes of its tensors",
                    path, (unsigned long long)(size - data), (unsigned long long)covered);
}

static eqat_status add_shard(eqi_source *s, const char *path)
{
    eqi_file *file;
    EQI_RETURN_IF(eqi_file_open_inside(s->ctx, &file, path));
    json_t *header = NULL;
    uint64_t data = 0, covered = 0;
    eqat_status st = eqi_source_add_file(s, file);
    if (st != EQAT_OK) {
        eqi_file_close(file);
        return st;
    }
    EQI_GOTO(done, read_header(s->ctx, file, &header, &data));
    const char *name;
    json_t *value;
    json_object_foreach(header, name, value)
    {
        if (!strcmp(name, "__metadata__")) {
            EQI_GOTO(done, read_metadata(s, path, value));
            continue;
        }
        eqi_source_entry e = {.file = s->nfiles - 1};
        EQI_GOTO(done, read_entry(s, path, name, value, data, file->size - data, &e));
        EQI_GOTO(done, eqi_source_add(s, name, &e));
        if (e.bytes > UINT64_MAX - covered) {
            st = eqi_fail(s->ctx, EQAT_FORMAT,
                          "%s: tensor '%.200s': the total of all tensors overflows", path, name);
            goto done;
        }
        covered += e.bytes;
    }
    st = check_coverage(s, path, data, file->size, covered);
done:
    json_decref(header);
    return st;
}

eqat_status eqi_source_open_safetensors_file(eqi_ctx *ctx, eqi_source **out, const char *path)
{
    *out = NULL;
    eqi_source *s;
    EQI_RETURN_IF(eqi_source_create(ctx, &s));
    eqat_status st = add_shard(s, path);
    if (st == EQAT_OK) st = eqi_source_finish(s);
    if (st != EQAT_OK) {
        eqi_source_close(s);
        return st;
    }
    *out = s;
    return EQAT_OK;
}

/* A name inside the folder, and nothing that could lead out of it. */
static bool is_plain_name(const char *name)
{
    const size_t n = strlen(name);
    return n > 0 && n < 256 && name[0] != '.' && !strpbrk(name, "/\\");
}

static int compare_strings(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct file names of the map, sorted; borrowed from it. */
static eqat_status list_shards(eqi_ctx *ctx, const char *path, json_t *map, const char ***out,
                               size_t *count)
{
    const char **names =
        eqi_alloc(ctx, json_object_size(map) * sizeof *names, "the list of shards");
    if (!names) return EQAT_OUT_OF_MEMORY;
    size_t n = 0;
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (!name || !is_plain_name(name)) {
            eqi_free(ctx, names);
            return eqi_fail(ctx, EQAT_FORMAT,
                            "%s: tensor '%.200s': found the file '%.200s', expected the name of a "
                            "file in the same folder",
                            path, tensor, name ? name : "(not a string)");
        }
        names[n++] = name;
    }
    if (n) qsort(names, n, sizeof *names, compare_strings);
    size_t distinct = 0;
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(names[i], names[distinct - 1])) names[distinct++] = names[i];
    *out = names;
    *count = distinct;
    return EQAT_OK;
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static eqat_status check_map(const eqi_source *s, const char *path, json_t *map)
{
    const char *tensor;
    json_t *value;
    json_object_foreach(map, tensor, value)
    {
        const eqi_source_entry *e = eqi_source_find(s, tensor);
        const char *wanted = json_string_value(value);
        if (!e)
            return eqi_fail(s->ctx, EQAT_FORMAT, "%s: tensor '%.200s': not found in %s", path,
                            tensor, wanted);
        const char *found = base_name(eqi_source_path(s, e->file));
        if (strcmp(found, wanted))
            return eqi_fail(s->ctx, EQAT_FORMAT, "%s: tensor '%.200s': found in %s, expected in %s",
                            path, tensor, found, wanted);
    }
    return EQAT_OK;
}

static eqat_status open_index(eqi_ctx *ctx, eqi_source **out, const char *dir, const char *path)
{
    eqi_source *s = NULL;
    char *text = NULL;
    const char **names = NULL;
    json_t *index = NULL;
    size_t size, count = 0;
    eqat_status st;
    EQI_GOTO(done, eqi_file_slurp_inside(ctx, path, INDEX_MAX, &text, &size));
    EQI_GOTO(done, parse_json(ctx, path, text, size, &index));
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0) {
        st = eqi_fail(ctx, EQAT_FORMAT,
                      "%s: weight_map: expected an object that names at least one tensor", path);
        goto done;
    }
    EQI_GOTO(done, list_shards(ctx, path, map, &names, &count));
    EQI_GOTO(done, eqi_source_create(ctx, &s));
    for (size_t i = 0; i < count; i++) {
        char *shard = eqi_path_join(ctx, dir, names[i]);
        st = shard ? add_shard(s, shard) : EQAT_OUT_OF_MEMORY;
        eqi_free(ctx, shard);
        if (st != EQAT_OK) goto done;
        json_decref(s->metadata);
        s->metadata = NULL;
    }
    EQI_GOTO(done, eqi_source_finish(s));
    EQI_GOTO(done, check_map(s, path, map));
done:
    json_decref(index);
    eqi_free(ctx, names);
    eqi_free(ctx, text);
    if (st != EQAT_OK)
        eqi_source_close(s);
    else
        *out = s;
    return st;
}

/* The tensors of PyTorch are a program to be run. */
static eqat_status refuse_folder(eqi_ctx *ctx, const char *dir)
{
    static const char *const others[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    const char *found = "neither";
    for (size_t i = 0; i < EQI_COUNT(others); i++) {
        char *path = eqi_path_join(ctx, dir, others[i]);
        if (!path) return EQAT_OUT_OF_MEMORY;
        if (eqi_path_exists(path)) found = others[i];
        eqi_free(ctx, path);
    }
    return eqi_fail(ctx, EQAT_NOT_FOUND, "%s: found %s, expected " SINGLE " or " INDEX " in it",
                    dir, found);
}

eqat_status eqi_source_open_safetensors(eqi_ctx *ctx, eqi_source **out, const char *dir)
{
    *out = NULL;
    if (!eqi_path_is_dir(dir)) return eqi_fail(ctx, EQAT_NOT_FOUND, "%s: expected a folder", dir);
    char *single = eqi_path_join(ctx, dir, SINGLE), *index = eqi_path_join(ctx, dir, INDEX);
    eqat_status st;
    if (single && index && eqi_path_exists(single) && eqi_path_exists(index))
        eqi_log(ctx, EQI_LOG_WARN,
                "%s: found " SINGLE " and " INDEX ", expected one of them: the first is read", dir);
    if (!single || !index)
        st = EQAT_OUT_OF_MEMORY;
    else if (eqi_path_exists(single))
        st = eqi_source_open_safetensors_file(ctx, out, single);
    else if (eqi_path_exists(index))
        st = open_index(ctx, out, dir, index);
    else
        st = refuse_folder(ctx, dir);
    eqi_free(ctx, single);
    eqi_free(ctx, index);
    return st;
}
