#include "format/gguf_write.h"

#include <string.h>

#include "base/file.h"
#include "format/gguf_impl.h"
#include "format/source_impl.h"

enum { ALIGNMENT = 32, NAME_ROOM = 64, VERSION = 3 };

/* A growing piece of the header. */
typedef struct part {
    unsigned char *data;
    size_t used, capacity;
} part;

struct eqi_gguf_writer {
    eqi_ctx *ctx;
    eqi_out *out;
    char *path;
    part values, infos, sizes; /* sizes: uint64_t of each tensor */
    uint64_t n_values, n_tensors;
    uint64_t declared; /* where the next tensor would begin */
    uint64_t current;  /* the tensor being written, and its bytes so far */
    uint64_t written;
    bool started;
    eqat_status failed;
};

eqat_status eqi_gguf_create(eqi_ctx *ctx, eqi_gguf_writer **out, const char *path)
{
    *out = NULL;
    eqi_gguf_writer *w = eqi_calloc(ctx, 1, sizeof *w, "a GGUF writer");
    if (!w) return EQAT_OUT_OF_MEMORY;
    w->ctx = ctx;
    w->path = eqi_strdup(ctx, path ? path : "gguf");
    eqat_status st = w->path ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK && path) st = eqi_out_open_beside(ctx, &w->out, path);
    if (st != EQAT_OK) {
        eqi_gguf_discard(w);
        return st;
    }
    *out = w;
    return EQAT_OK;
}

static void append(eqi_gguf_writer *w, part *p, const void *data, size_t n)
{
    if (w->failed != EQAT_OK) return;
    if (n > p->capacity - p->used) {
        size_t capacity = 2 * p->capacity + n + 1024;
        unsigned char *grown = eqi_realloc(w->ctx, p->data, capacity, "the header of a GGUF file");
        if (!grown) {
            w->failed = EQAT_OUT_OF_MEMORY;
            return;
        }
        p->data = grown;
        p->capacity = capacity;
    }
    if (n) memcpy(p->data + p->used, data, n);
    p->used += n;
}

static void append_u32(eqi_gguf_writer *w, part *p, uint32_t n) { append(w, p, &n, sizeof n); }
static void append_u64(eqi_gguf_writer *w, part *p, uint64_t n) { append(w, p, &n, sizeof n); }

static void append_text(eqi_gguf_writer *w, part *p, const char *text, size_t n)
{
    append_u64(w, p, n);
    append(w, p, text, n);
}

static void put_key(eqi_gguf_writer *w, const char *key, uint32_t kind)
{
    append_text(w, &w->values, key, strlen(key));
    append_u32(w, &w->values, kind);
    w->n_values++;
}

static void put_array(eqi_gguf_writer *w, const char *key, uint32_t kind, size_t n)
{
    put_key(w, key, EQI_GGUF_ARRAY);
    append_u32(w, &w->values, kind);
    append_u64(w, &w->values, n);
}

void eqi_gguf_put_u32(eqi_gguf_writer *w, const char *key, uint32_t value)
{
    put_key(w, key, EQI_GGUF_U32);
    append_u32(w, &w->values, value);
}

void eqi_gguf_put_f32(eqi_gguf_writer *w, const char *key, float value)
{
    put_key(w, key, EQI_GGUF_F32);
    append(w, &w->values, &value, sizeof value);
}

void eqi_gguf_put_bool(eqi_gguf_writer *w, const char *key, bool value)
{
    unsigned char byte = value;
    put_key(w, key, EQI_GGUF_BOOL);
    append(w, &w->values, &byte, 1);
}

void eqi_gguf_put_string(eqi_gguf_writer *w, const char *key, const char *value)
{
    put_key(w, key, EQI_GGUF_STRING);
    append_text(w, &w->values, value, strlen(value));
}

void eqi_gguf_put_i32_array(eqi_gguf_writer *w, const char *key, const int32_t *values, size_t n)
{
    put_array(w, key, EQI_GGUF_I32, n);
    append(w, &w->values, values, n * sizeof *values);
}

void eqi_gguf_put_f32_array(eqi_gguf_writer *w, const char *key, const float *values, size_t n)
{
    put_array(w, key, EQI_GGUF_F32, n);
    append(w, &w->values, values, n * sizeof *values);
}

void eqi_gguf_put_string_array(eqi_gguf_writer *w, const char *key, size_t n)
{
    put_array(w, key, EQI_GGUF_STRING, n);
}

void eqi_gguf_add_string(eqi_gguf_writer *w, const char *value, size_t length)
{
    append_text(w, &w->values, value, length);
}

static void copy_array(eqi_gguf_writer *w, const eqi_gguf *from, const eqi_gguf_value *v)
{
    const size_t size = eqi_gguf_kind_size(v->element);
    put_array(w, v->key, v->element, (size_t)v->count);
    if (size) append(w, &w->values, v->data, (size_t)v->count * size);
    for (uint64_t i = 0; !size && i < v->count; i++) {
        size_t n;
        const char *text = eqi_gguf_array_string(from, v->key, (int64_t)i, &n);
        eqi_gguf_add_string(w, text, n);
    }
}

void eqi_gguf_put_copies(eqi_gguf_writer *w, const eqi_gguf *from, const char *prefix)
{
    eqi_gguf_value v;
    for (size_t i = 0; eqi_gguf_value_at(from, i, &v); i++) {
        const size_t size = eqi_gguf_kind_size(v.kind);
        if (strncmp(v.key, prefix, strlen(prefix)) != 0) continue;
        if (v.kind == EQI_GGUF_ARRAY) {
            if (v.element != EQI_GGUF_ARRAY) copy_array(w, from, &v);
            continue;
        }
        put_key(w, v.key, v.kind);
        if (size)
            append(w, &w->values, v.data, size);
        else
            append_text(w, &w->values, v.data, (size_t)v.count);
    }
}

static eqat_status declare(eqi_gguf_writer *w, const char *name, eqi_stored stored, int ndim,
                           const int64_t *shape)
{
    const int64_t type = eqi_gguf_type_id(stored);
    if (type < 0)
        return eqi_fail(w->ctx, EQAT_INVALID_ARGUMENT,
                        "%s: tensor '%.200s': a GGUF file cannot hold %s", w->path, name,
                        eqi_stored_name(stored));
    if (strlen(name) >= NAME_ROOM)
        return eqi_fail(w->ctx, EQAT_UNSUPPORTED,
                        "%s: tensor '%.200s': found a name of %zu bytes, expected fewer than %d",
                        w->path, name, strlen(name), NAME_ROOM);
    eqi_source_entry e = {.stored = stored, .ndim = ndim};
    memcpy(e.shape, shape, (size_t)ndim * sizeof *shape);
    EQI_RETURN_IF(eqi_source_measure(w->ctx, w->path, name, &e));
    append_text(w, &w->infos, name, strlen(name));
    append_u32(w, &w->infos, (uint32_t)ndim);
    for (int i = ndim; i-- > 0;) append_u64(w, &w->infos, (uint64_t)shape[i]);
    append_u32(w, &w->infos, (uint32_t)type);
    append_u64(w, &w->infos, w->declared);
    append_u64(w, &w->sizes, e.bytes);
    w->declared += (e.bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    w->n_tensors++;
    return w->failed;
}

void eqi_gguf_declare(eqi_gguf_writer *w, const char *name, eqi_stored stored, int ndim,
                      const int64_t *shape)
{
    if (w->failed == EQAT_OK) w->failed = declare(w, name, stored, ndim, shape);
}

static eqat_status pad(eqi_gguf_writer *w, uint64_t end)
{
    static const unsigned char zeros[ALIGNMENT];
    return eqi_out_write(w->out, zeros, (size_t)((ALIGNMENT - end % ALIGNMENT) % ALIGNMENT));
}

static uint64_t size_of(const eqi_gguf_writer *w, uint64_t tensor)
{
    uint64_t size;
    memcpy(&size, w->sizes.data + tensor * sizeof size, sizeof size);
    return size;
}

/* Moves on to the next tensor that takes bytes. */
static eqat_status advance(eqi_gguf_writer *w)
{
    while (w->current < w->n_tensors && w->written == size_of(w, w->current)) {
        EQI_RETURN_IF(pad(w, w->written));
        w->written = 0;
        w->current++;
    }
    return EQAT_OK;
}

static eqat_status start(eqi_gguf_writer *w)
{
    part head = {NULL, 0, 0};
    w->started = true;
    append(w, &head, "GGUF", 4);
    append_u32(w, &head, VERSION);
    append_u64(w, &head, w->n_tensors);
    append_u64(w, &head, w->n_values);
    eqat_status st = w->failed;
    if (st == EQAT_OK) st = eqi_out_write(w->out, head.data, head.used);
    if (st == EQAT_OK && w->n_values) st = eqi_out_write(w->out, w->values.data, w->values.used);
    if (st == EQAT_OK && w->n_tensors) st = eqi_out_write(w->out, w->infos.data, w->infos.used);
    if (st == EQAT_OK) st = pad(w, head.used + w->values.used + w->infos.used);
    eqi_free(w->ctx, head.data);
    return st == EQAT_OK ? advance(w) : st;
}

static eqat_status write_all(eqi_gguf_writer *w, const unsigned char *data, size_t n)
{
    if (!w->started) EQI_RETURN_IF(start(w));
    while (n) {
        if (w->current == w->n_tensors)
            return eqi_fail(w->ctx, EQAT_INVALID_ARGUMENT,
                            "%s: found more bytes of data than were declared", w->path);
        const uint64_t left = size_of(w, w->current) - w->written;
        const size_t piece = n < left ? n : (size_t)left;
        EQI_RETURN_IF(eqi_out_write(w->out, data, piece));
        w->written += piece;
        data += piece;
        n -= piece;
        EQI_RETURN_IF(advance(w));
    }
    return EQAT_OK;
}

eqat_status eqi_gguf_write(eqi_gguf_writer *w, const void *data, size_t n)
{
    if (w->failed == EQAT_OK) w->failed = write_all(w, data, n);
    return w->failed;
}

static void writer_free(eqi_gguf_writer *w)
{
    eqi_free(w->ctx, w->values.data);
    eqi_free(w->ctx, w->infos.data);
    eqi_free(w->ctx, w->sizes.data);
    eqi_free(w->ctx, w->path);
    eqi_free(w->ctx, w);
}

void eqi_gguf_discard(eqi_gguf_writer *w)
{
    if (!w) return;
    eqi_out_discard(w->out);
    writer_free(w);
}

eqat_status eqi_gguf_finish(eqi_gguf_writer *w)
{
    eqat_status st = eqi_gguf_write(w, "", 0);
    if (st == EQAT_OK && w->current != w->n_tensors)
        st = eqi_fail(w->ctx, EQAT_INVALID_ARGUMENT,
                      "%s: found the bytes of %llu tensors, expected those of %llu", w->path,
                      (unsigned long long)w->current, (unsigned long long)w->n_tensors);
    if (st == EQAT_OK) {
        st = eqi_out_close(w->out);
        w->out = NULL;
    }
    eqi_gguf_discard(w);
    return st;
}
