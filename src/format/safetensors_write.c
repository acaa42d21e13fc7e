#include <string.h>
#include <unistd.h>

#include "format/source_impl.h"

typedef struct item {
    json_t *object; /* of the header */
    uint64_t bytes, width, at;
} item;

struct eqi_safetensors_writer {
    eqi_ctx *ctx;
    eqi_out *out;
    json_t *header;
    char *path;
    item *items; /* as declared */
    size_t count, capacity;
    size_t next;   /* the item in writing */
    uint64_t done; /* bytes of it */
    uint64_t data; /* where the tensors begin in the file */
    uint64_t declared, written;
    bool started;
    eqat_status failed;
};

eqat_status eqi_safetensors_create(eqi_ctx *ctx, eqi_safetensors_writer **out, const char *path)
{
    *out = NULL;
    eqi_safetensors_writer *w = eqi_calloc(ctx, 1, sizeof *w, "a safetensors writer");
    if (!w) return EQAT_OUT_OF_MEMORY;
    w->ctx = ctx;
    w->path = eqi_strdup(ctx, path);
    w->header = json_object();
    eqat_status st = !w->path ? EQAT_OUT_OF_MEMORY
        : !w->header ? eqi_fail(ctx, EQAT_OUT_OF_MEMORY, "out of memory: the header of %s", path)
                     : eqi_out_open(ctx, &w->out, path);
    if (st != EQAT_OK) {
        eqi_safetensors_discard(w);
        return st;
    }
    *out = w;
    return EQAT_OK;
}

/* Keeps the first failure, so that a caller who checks only close still learns of it. */
static eqat_status keep(eqi_safetensors_writer *w, eqat_status st)
{
    if (w->failed == EQAT_OK) w->failed = st;
    return st;
}

static eqat_status fail_memory(eqi_safetensors_writer *w)
{
    return eqi_fail(w->ctx, EQAT_OUT_OF_MEMORY, "out of memory: the header of %s", w->path);
}

/* jansson answers NULL both for text that is not UTF-8 and for exhausted memory. */
static eqat_status fail_text(eqi_safetensors_writer *w, const char *text)
{
    json_t *probe = json_string_nocheck(text);
    if (!probe) return fail_memory(w);
    json_decref(probe);
    return eqi_fail(w->ctx, EQAT_INVALID_ARGUMENT, "%s: '%.200s': expected UTF-8", w->path, text);
}

static eqat_status set_text(eqi_safetensors_writer *w, json_t *object, const char *key,
                            json_t *value)
{
    json_t *name = json_string(key);
    if (!name || !value) {
        json_decref(value);
        json_decref(name);
        return name ? fail_memory(w) : fail_text(w, key);
    }
    json_decref(name);
    return json_object_set_new_nocheck(object, key, value) == 0 ? EQAT_OK : fail_memory(w);
}

eqat_status eqi_safetensors_metadata(eqi_safetensors_writer *w, const char *key, const char *value)
{
    if (w->started)
        return keep(w,
                    eqi_fail(w->ctx, EQAT_INVALID_ARGUMENT,
                             "%s: __metadata__ '%.200s': set after the first write", w->path, key));
    json_t *object = json_object_get(w->header, "__metadata__");
    if (!object) {
        object = json_object();
        if (!object || json_object_set_new(w->header, "__metadata__", object) != 0)
            return keep(w, fail_memory(w));
    }
    json_t *string = json_string(value);
    return keep(w, string ? set_text(w, object, key, string) : fail_text(w, value));
}

static json_t *integers(const int64_t *values, int n)
{
    json_t *array = json_array();
    for (int i = 0; array && i < n; i++)
        if (json_array_append_new(array, json_integer(values[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    return array;
}

static eqat_status grow(eqi_safetensors_writer *w)
{
    item *items =
        eqi_grow(w->ctx, w->items, w->count, &w->capacity, sizeof *items, "places of tensors");
    if (!items) return EQAT_OUT_OF_MEMORY;
    w->items = items;
    return EQAT_OK;
}

static eqat_status declare(eqi_safetensors_writer *w, const char *name, eqi_stored stored, int ndim,
                           const int64_t *shape)
{
    eqi_ctx *ctx = w->ctx;
    if (w->started)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "%s: tensor '%.200s': declared after the first write", w->path, name);
    if (!eqi_safetensors_dtype(stored))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "%s: tensor '%.200s': a safetensors file cannot hold %s", w->path, name,
                        eqi_stored_name(stored));
    if (ndim < 0 || ndim > EQI_SOURCE_MAX_DIMS || !strcmp(name, "__metadata__") ||
        json_object_get(w->header, name))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "%s: tensor '%.200s': found a second or reserved name or %d dimensions, "
                        "expected at most %d",
                        w->path, name, ndim, EQI_SOURCE_MAX_DIMS);
    eqi_source_entry e = {.stored = stored, .ndim = ndim};
    for (int i = 0; i < ndim; i++) e.shape[i] = shape[i];
    EQI_RETURN_IF(eqi_source_measure(ctx, w->path, name, &e));
    if (e.bytes > (uint64_t)INT64_MAX - w->declared)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "%s: tensor '%.200s': the total of all tensors overflows", w->path, name);
    EQI_RETURN_IF(grow(w));
    json_t *object = json_object();
    if (!object ||
        json_object_set_new(object, "dtype", json_string(eqi_safetensors_dtype(stored))) != 0 ||
        json_object_set_new(object, "shape", integers(shape, ndim)) != 0) {
        json_decref(object);
        return fail_memory(w);
    }
    EQI_RETURN_IF(set_text(w, w->header, name, object));
    w->items[w->count++] = (item){object, e.bytes, eqi_stored_bytes(stored, 1), 0};
    w->declared += e.bytes;
    return EQAT_OK;
}

eqat_status eqi_safetensors_declare(eqi_safetensors_writer *w, const char *name, eqi_stored stored,
                                    int ndim, const int64_t *shape)
{
    return keep(w, declare(w, name, stored, ndim, shape));
}

/* Readers that look at the file in place need elements at multiples of their size: where the
 * declared order has them elsewhere, wider types go first. */
static void place(eqi_safetensors_writer *w)
{
    uint64_t at = 0;
    bool aligned = true;
    for (item *i = w->items; i < w->items + w->count; at += i++->bytes) {
        i->at = at;
        aligned &= at % i->width == 0;
    }
    at = 0;
    for (uint64_t width = 8; width && !aligned; width /= 2)
        for (item *i = w->items; i < w->items + w->count; i++) {
            if (i->width != width) continue;
            i->at = at;
            at += i->bytes;
        }
}

static eqat_status tell_places(eqi_safetensors_writer *w)
{
    place(w);
    for (const item *i = w->items; i < w->items + w->count; i++) {
        const int64_t range[2] = {(int64_t)i->at, (int64_t)(i->at + i->bytes)};
        if (json_object_set_new(i->object, "data_offsets", integers(range, 2)) != 0)
            return fail_memory(w);
    }
    return EQAT_OK;
}

static eqat_status start(eqi_safetensors_writer *w)
{
    w->started = true;
    EQI_RETURN_IF(tell_places(w));
    char *text = json_dumps(w->header, JSON_COMPACT);
    if (!text) return fail_memory(w);
    const size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    eqat_status st;
    if (padded > EQI_SAFETENSORS_HEADER_MAX) {
        st = eqi_fail(w->ctx, EQAT_INVALID_ARGUMENT,
                      "%s: found a header of %zu bytes, expected at most %u", w->path, padded,
                      EQI_SAFETENSORS_HEADER_MAX);
    } else {
        unsigned char prefix[8];
        for (int i = 0; i < 8; i++) prefix[i] = (unsigned char)((uint64_t)padded >> 8 * i);
        st = eqi_out_write(w->out, prefix, sizeof prefix);
        if (st == EQAT_OK) st = eqi_out_write(w->out, text, length);
        if (st == EQAT_OK) st = eqi_out_write(w->out, "        ", padded - length);
        w->data = sizeof prefix + padded;
    }
    free(text);
    return st;
}

eqat_status eqi_safetensors_write(eqi_safetensors_writer *w, const void *data, size_t n)
{
    if (w->failed != EQAT_OK) return w->failed;
    if (!w->started) EQI_RETURN_IF(keep(w, start(w)));
    if (n > w->declared - w->written)
        return keep(w,
                    eqi_fail(w->ctx, EQAT_INVALID_ARGUMENT,
                             "%s: found more than the declared %llu bytes of data", w->path,
                             (unsigned long long)w->declared));
    const char *from = data;
    while (n) {
        const item *i = &w->items[w->next];
        if (w->done == 0) EQI_RETURN_IF(keep(w, eqi_out_seek(w->out, w->data + i->at)));
        const size_t piece = n < i->bytes - w->done ? n : (size_t)(i->bytes - w->done);
        EQI_RETURN_IF(keep(w, eqi_out_write(w->out, from, piece)));
        from += piece;
        n -= piece;
        w->written += piece;
        w->done += piece;
        if (w->done < i->bytes) continue;
        w->next++;
        w->done = 0;
    }
    return EQAT_OK;
}

static void writer_free(eqi_safetensors_writer *w)
{
    json_decref(w->header);
    eqi_free(w->ctx, w->items);
    eqi_free(w->ctx, w->path);
    eqi_free(w->ctx, w);
}

void eqi_safetensors_discard(eqi_safetensors_writer *w)
{
    if (!w) return;
    eqi_out_discard(w->out);
    writer_free(w);
}

eqat_status eqi_safetensors_close(eqi_safetensors_writer *w)
{
    eqat_status st = w->failed;
    if (st == EQAT_OK && !w->started) st = start(w);
    if (st == EQAT_OK && w->written != w->declared)
        st = eqi_fail(w->ctx, EQAT_INVALID_ARGUMENT,
                      "%s: found %llu bytes of data, expected the declared %llu", w->path,
                      (unsigned long long)w->written, (unsigned long long)w->declared);
    if (st != EQAT_OK) {
        eqi_safetensors_discard(w);
        return st;
    }
    eqi_out *out = w->out;
    w->out = NULL;
    st = eqi_out_close(out);
    if (st != EQAT_OK) unlink(w->path);
    writer_free(w);
    return st;
}
