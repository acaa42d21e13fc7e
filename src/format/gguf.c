#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "format/gguf_impl.h"
#include "format/source_impl.h"

#define HEADER_MAX (UINT64_C(1) << 28) /* the largest vocabularies take a tenth of it */
#define ALIGNMENT_MAX (UINT64_C(1) << 24)
#define KEY_MAX 65535u
#define DEPTH_MAX 4
/* The fewest bytes that a metadata value and an entry of the tensor list take in the file. */
#define VALUE_LEAST 13u
#define TENSOR_LEAST 24u

static const unsigned kind_size[EQI_GGUF_KINDS] = {
    [EQI_GGUF_U8] = 1,  [EQI_GGUF_I8] = 1,  [EQI_GGUF_U16] = 2, [EQI_GGUF_I16] = 2,
    [EQI_GGUF_U32] = 4, [EQI_GGUF_I32] = 4, [EQI_GGUF_F32] = 4, [EQI_GGUF_BOOL] = 1,
    [EQI_GGUF_U64] = 8, [EQI_GGUF_I64] = 8, [EQI_GGUF_F64] = 8,
};

/* Everything a value or key holds lies in gguf.blob, at these offsets:
 * numbers and booleans as in the file; a string and one NUL; an array of strings as count + 1
 * 64-bit offsets of the strings, each followed by one NUL. */
typedef struct value {
    const char *key; /* set once the blob has stopped moving */
    size_t key_at, data;
    uint64_t count; /* elements of an array; bytes of a string */
    uint32_t kind, element;
} value;

struct eqi_gguf {
    eqi_ctx *ctx;
    int refs;
    eqi_source *tensors; /* owns the file */
    eqi_file *file;
    value *values; /* sorted by key */
    size_t nvalues;
    char *blob;
    size_t blob_used, blob_capacity;
};

typedef struct tensor_info {
    size_t name_at;
    eqi_source_entry entry; /* offset counts from the data section, whose start is known last */
} tensor_info;

typedef struct reader {
    eqi_gguf *g;
    uint64_t at, end; /* position in the file, and where the header ends at the latest */
    tensor_info *tensors;
    uint64_t ntensors;
    uint64_t start; /* of the buffered part */
    size_t held;
    unsigned char buffer[1 << 16];
} reader;

static const value *find(const eqi_gguf *g, const char *key)
{
    for (size_t low = 0, high = g->nvalues; low < high;) {
        const size_t middle = low + (high - low) / 2;
        const int c = strcmp(key, g->values[middle].key);
        if (c == 0) return &g->values[middle];
        if (c < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static bool number_as_int(uint32_t kind, const char *p, int64_t *out)
{
    uint64_t bits = 0;
    if (kind >= EQI_GGUF_KINDS || kind == EQI_GGUF_F32 || kind == EQI_GGUF_F64 ||
        kind == EQI_GGUF_BOOL || kind_size[kind] == 0)
        return false;
    const unsigned size = kind_size[kind];
    memcpy(&bits, p, size);
    const bool is_signed =
        kind == EQI_GGUF_I8 || kind == EQI_GGUF_I16 || kind == EQI_GGUF_I32 || kind == EQI_GGUF_I64;
    if (!is_signed && bits > INT64_MAX) return false;
    if (is_signed && size < 8 && bits >> (8 * size - 1)) bits |= UINT64_MAX << 8 * size;
    memcpy(out, &bits, sizeof *out);
    return true;
}

static bool number_as_float(uint32_t kind, const char *p, double *out)
{
    if (kind == EQI_GGUF_F32) {
        float f;
        memcpy(&f, p, sizeof f);
        *out = f;
        return true;
    }
    if (kind == EQI_GGUF_F64) {
        memcpy(out, p, sizeof *out);
        return true;
    }
    int64_t n;
    if (!number_as_int(kind, p, &n)) return false;
    *out = (double)n;
    return true;
}

static eqat_status read_bytes(reader *r, void *dst, uint64_t n, const char *what)
{
    eqi_file *f = r->g->file;
    if (n > r->end - r->at)
        return eqi_fail(
            r->g->ctx, EQAT_FORMAT,
            "%s: %s: found %llu bytes left in the header, expected %llu: damaged or truncated",
            f->path, what, (unsigned long long)(r->end - r->at), (unsigned long long)n);
    unsigned char *p = dst;
    while (n) {
        if (r->at < r->start || r->at - r->start >= r->held) {
            const uint64_t left = r->end - r->at;
            const size_t take = left < sizeof r->buffer ? (size_t)left : sizeof r->buffer;
            r->held = 0;
            EQI_RETURN_IF(eqi_file_read(f, r->buffer, r->at, take));
            r->start = r->at;
            r->held = take;
        }
        const size_t skip = (size_t)(r->at - r->start), have = r->held - skip;
        const size_t piece = n < have ? (size_t)n : have;
        if (p) {
            memcpy(p, r->buffer + skip, piece);
            p += piece;
        }
        r->at += piece;
        n -= piece;
    }
    return EQAT_OK;
}

static eqat_status read_u32(reader *r, uint32_t *out, const char *what)
{
    unsigned char b[4];
    EQI_RETURN_IF(read_bytes(r, b, sizeof b, what));
    *out = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return EQAT_OK;
}

static eqat_status read_u64(reader *r, uint64_t *out, const char *what)
{
    uint32_t low = 0, high = 0;
    EQI_RETURN_IF(read_u32(r, &low, what));
    EQI_RETURN_IF(read_u32(r, &high, what));
    *out = (uint64_t)high << 32 | low;
    return EQAT_OK;
}

/* A count of things that take at least `least` bytes each: what cannot be in the file is refused
 * before it is allocated for. */
static eqat_status read_count(reader *r, uint64_t *out, uint64_t least, const char *what)
{
    EQI_RETURN_IF(read_u64(r, out, what));
    if (*out > (r->end - r->at) / least)
        return eqi_fail(
            r->g->ctx, EQAT_FORMAT,
            "%s: %s: found a count of %llu, expected at most %llu in the rest of the header",
            r->g->file->path, what, (unsigned long long)*out,
            (unsigned long long)((r->end - r->at) / least));
    return EQAT_OK;
}

/* Room for n more bytes in the blob; they begin at *at. The header's bound keeps n far from
 * overflow. */
static eqat_status reserve(eqi_gguf *g, uint64_t n, size_t *at)
{
    if (n > SIZE_MAX / 4 - g->blob_used)
        return eqi_fail(g->ctx, EQAT_OUT_OF_MEMORY, "%s: out of memory: metadata", g->file->path);
    const size_t need = g->blob_used + (size_t)n;
    if (need > g->blob_capacity) {
        const size_t capacity = need < 4096 ? 4096 : need + need / 2;
        char *blob = eqi_realloc(g->ctx, g->blob, capacity, "GGUF metadata");
        if (!blob) return EQAT_OUT_OF_MEMORY;
        g->blob = blob;
        g->blob_capacity = capacity;
    }
    *at = g->blob_used;
    g->blob_used = need;
    return EQAT_OK;
}

/* A string of at most `limit` bytes into the blob, with its NUL. */
static eqat_status read_string(reader *r, uint64_t limit, size_t *at, uint64_t *length,
                               const char *what)
{
    EQI_RETURN_IF(read_count(r, length, 1, what));
    if (*length > limit)
        return eqi_fail(
            r->g->ctx, EQAT_FORMAT, "%s: %s: found a name of %llu bytes, expected at most %llu",
            r->g->file->path, what, (unsigned long long)*length, (unsigned long long)limit);
    EQI_RETURN_IF(reserve(r->g, *length + 1, at));
    EQI_RETURN_IF(read_bytes(r, r->g->blob + *at, *length, what));
    r->g->blob[*at + *length] = 0;
    return EQAT_OK;
}

/* A key or a tensor's name: used as a C string, so it must be one. */
static eqat_status read_name(reader *r, uint64_t limit, size_t *at, const char *what)
{
    uint64_t length;
    EQI_RETURN_IF(read_string(r, limit, at, &length, what));
    const char *name = r->g->blob + *at;
    if (length == 0 || strlen(name) != length)
        return eqi_fail(r->g->ctx, EQAT_FORMAT, "%s: %s: found %s name, expected text",
                        r->g->file->path, what, length ? "a NUL byte in a" : "an empty");
    return EQAT_OK;
}

static eqat_status check_kind(reader *r, uint32_t kind, const char *key)
{
    if (kind < EQI_GGUF_KINDS) return EQAT_OK;
    return eqi_fail(r->g->ctx, EQAT_FORMAT, "%s: %s: found value type %u, expected 0 to %d",
                    r->g->file->path, key, kind, EQI_GGUF_KINDS - 1);
}

/* Nested arrays occur in no key that a model needs: they are stepped over. */
static eqat_status skip_array(reader *r, const char *key, int depth)
{
    uint32_t kind;
    uint64_t count;
    if (depth > DEPTH_MAX)
        return eqi_fail(r->g->ctx, EQAT_FORMAT, "%s: %s: found arrays nested more than %d deep",
                        r->g->file->path, key, DEPTH_MAX);
    EQI_RETURN_IF(read_u32(r, &kind, key));
    EQI_RETURN_IF(check_kind(r, kind, key));
    EQI_RETURN_IF(read_count(r, &count,
                             kind == EQI_GGUF_ARRAY        ? 12
                                 : kind == EQI_GGUF_STRING ? 8
                                                           : kind_size[kind],
                             key));
    if (kind != EQI_GGUF_ARRAY && kind != EQI_GGUF_STRING)
        return read_bytes(r, NULL, count * kind_size[kind], key);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t length;
        if (kind == EQI_GGUF_ARRAY) {
            EQI_RETURN_IF(skip_array(r, key, depth + 1));
        } else {
            EQI_RETURN_IF(read_count(r, &length, 1, key));
            EQI_RETURN_IF(read_bytes(r, NULL, length, key));
        }
    }
    return EQAT_OK;
}

static eqat_status read_array(reader *r, value *v, const char *key)
{
    eqi_gguf *g = r->g;
    EQI_RETURN_IF(read_u32(r, &v->element, key));
    EQI_RETURN_IF(check_kind(r, v->element, key));
    if (v->element == EQI_GGUF_ARRAY) {
        EQI_RETURN_IF(read_count(r, &v->count, 12, key));
        for (uint64_t i = 0; i < v->count; i++) EQI_RETURN_IF(skip_array(r, key, 2));
        return EQAT_OK;
    }
    if (v->element != EQI_GGUF_STRING) {
        EQI_RETURN_IF(read_count(r, &v->count, kind_size[v->element], key));
        EQI_RETURN_IF(reserve(g, v->count * kind_size[v->element], &v->data));
        return read_bytes(r, g->blob + v->data, v->count * kind_size[v->element], key);
    }
    EQI_RETURN_IF(read_count(r, &v->count, 8, key));
    EQI_RETURN_IF(reserve(g, (v->count + 1) * sizeof(uint64_t), &v->data));
    for (uint64_t i = 0;; i++) {
        const uint64_t at = g->blob_used;
        memcpy(g->blob + v->data + i * sizeof at, &at, sizeof at);
        if (i == v->count) return EQAT_OK;
        size_t where;
        uint64_t length;
        EQI_RETURN_IF(read_string(r, UINT64_MAX, &where, &length, key));
    }
}

static eqat_status read_value(reader *r, value *v)
{
    eqi_gguf *g = r->g;
    EQI_RETURN_IF(read_name(r, KEY_MAX, &v->key_at, "a metadata key"));
    /* The blob may move while the value is read; messages need a key that stays. */
    char key[208];
    const char *full = g->blob + v->key_at;
    const size_t n = strlen(full) < sizeof key - 1 ? strlen(full) : sizeof key - 1;
    memcpy(key, full, n);
    key[n] = 0;
    EQI_RETURN_IF(read_u32(r, &v->kind, key));
    EQI_RETURN_IF(check_kind(r, v->kind, key));
    if (v->kind == EQI_GGUF_ARRAY) return read_array(r, v, key);
    if (v->kind == EQI_GGUF_STRING) return read_string(r, UINT64_MAX, &v->data, &v->count, key);
    EQI_RETURN_IF(reserve(g, kind_size[v->kind], &v->data));
    return read_bytes(r, g->blob + v->data, kind_size[v->kind], key);
}

static int compare_keys(const void *a, const void *b)
{
    const value *x = a, *y = b;
    return strcmp(x->key, y->key);
}

static eqat_status sort_values(eqi_gguf *g)
{
    for (size_t i = 0; i < g->nvalues; i++) g->values[i].key = g->blob + g->values[i].key_at;
    if (g->nvalues) qsort(g->values, g->nvalues, sizeof *g->values, compare_keys);
    for (size_t i = 1; i < g->nvalues; i++)
        if (!strcmp(g->values[i - 1].key, g->values[i].key))
            return eqi_fail(g->ctx, EQAT_FORMAT, "%s: %.200s: found twice, expected once",
                            g->file->path, g->values[i].key);
    return EQAT_OK;
}

static eqat_status read_tensor(reader *r, tensor_info *t)
{
    eqi_gguf *g = r->g;
    eqi_source_entry *e = &t->entry;
    EQI_RETURN_IF(read_name(r, KEY_MAX, &t->name_at, "a tensor's name"));
    const char *path = g->file->path, *name = g->blob + t->name_at;
    uint32_t ndim, type;
    EQI_RETURN_IF(read_u32(r, &ndim, "a tensor's dimensions"));
    if (ndim > EQI_SOURCE_MAX_DIMS)
        return eqi_fail(g->ctx, EQAT_FORMAT,
                        "%s: tensor '%.200s': found %u dimensions, expected at most %d", path, name,
                        ndim, EQI_SOURCE_MAX_DIMS);
    e->ndim = (int)ndim;
    for (uint32_t i = ndim; i-- > 0;) {
        uint64_t n;
        EQI_RETURN_IF(read_u64(r, &n, "a tensor's dimensions"));
        if (n > INT64_MAX)
            return eqi_fail(g->ctx, EQAT_FORMAT,
                            "%s: tensor '%.200s': found dimension %llu, expected at most %lld",
                            path, name, (unsigned long long)n, (long long)INT64_MAX);
        e->shape[i] = (int64_t)n;
    }
    EQI_RETURN_IF(read_u32(r, &type, "a tensor's type"));
    EQI_RETURN_IF(eqi_gguf_find_type(g->ctx, path, name, type, &e->stored));
    return read_u64(r, &e->offset, "a tensor's offset");
}

static eqat_status read_alignment(eqi_gguf *g, uint64_t *out)
{
    int64_t n = 32;
    if (eqi_gguf_has(g, "general.alignment") &&
        (!eqi_gguf_int(g, "general.alignment", &n) || n < 1 || (uint64_t)n > ALIGNMENT_MAX ||
         (n & (n - 1))))
        return eqi_fail(g->ctx, EQAT_FORMAT,
                        "%s: general.alignment: expected a power of two up to %llu", g->file->path,
                        (unsigned long long)ALIGNMENT_MAX);
    *out = (uint64_t)n;
    return EQAT_OK;
}

static int by_size(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Older files of one converter have blocks of 128 weights, of 34 bytes, under the type number of
 * Q2_0; only the room between tensors tells. `starts`: all of them, in order, and the end. */
static eqat_status check_q2_0(eqi_gguf *g, const tensor_info *t, const uint64_t *starts, uint64_t n,
                              uint64_t alignment)
{
    eqi_source_entry e = t->entry;
    const char *name = g->blob + t->name_at;
    if (e.stored != EQI_STORED_Q2_0) return EQAT_OK;
    EQI_RETURN_IF(eqi_source_measure(g->ctx, g->file->path, name, &e));
    uint64_t low = 0, high = n - 1; /* the first start behind this one */
    while (low < high) {
        const uint64_t middle = low + (high - low) / 2;
        if (starts[middle] > e.offset)
            high = middle;
        else
            low = middle + 1;
    }
    if (starts[low] <= e.offset || e.bytes == 0) return EQAT_OK; /* not in the file: told later */
    const uint64_t room = starts[low] - e.offset;
    if (room >= e.bytes && room - e.bytes < alignment) return EQAT_OK;
    return eqi_fail(g->ctx, EQAT_UNSUPPORTED,
                    "%s: tensor '%.200s': found %llu bytes for %lld weights of type Q2_0, expected "
                    "%llu, 18 for every 64 (older files of this type have 34 for every 128)",
                    g->file->path, name, (unsigned long long)room, (long long)e.elements,
                    (unsigned long long)e.bytes);
}

static eqat_status check_spans(reader *r, uint64_t data, uint64_t alignment)
{
    eqi_gguf *g = r->g;
    uint64_t *starts =
        eqi_alloc(g->ctx, (size_t)(r->ntensors + 1) * sizeof *starts, "the places of tensors");
    if (!starts) return EQAT_OUT_OF_MEMORY;
    for (uint64_t i = 0; i < r->ntensors; i++) starts[i] = r->tensors[i].entry.offset;
    starts[r->ntensors] = g->file->size > data ? g->file->size - data : 0;
    qsort(starts, (size_t)r->ntensors + 1, sizeof *starts, by_size);
    eqat_status st = EQAT_OK;
    for (uint64_t i = 0; st == EQAT_OK && i < r->ntensors; i++)
        st = check_q2_0(g, &r->tensors[i], starts, r->ntensors + 1, alignment);
    eqi_free(g->ctx, starts);
    return st;
}

static eqat_status place_tensors(reader *r)
{
    eqi_gguf *g = r->g;
    uint64_t alignment = 0;
    EQI_RETURN_IF(read_alignment(g, &alignment));
    const uint64_t data = (r->at + alignment - 1) / alignment * alignment;
    EQI_RETURN_IF(check_spans(r, data, alignment));
    for (uint64_t i = 0; i < r->ntensors; i++) {
        eqi_source_entry *e = &r->tensors[i].entry;
        const char *name = g->blob + r->tensors[i].name_at;
        if (e->offset % alignment)
            return eqi_fail(g->ctx, EQAT_FORMAT,
                            "%s: tensor '%.200s': found offset %llu, expected a multiple of %llu",
                            g->file->path, name, (unsigned long long)e->offset,
                            (unsigned long long)alignment);
        if (e->offset > g->file->size)
            return eqi_fail(
                g->ctx, EQAT_FORMAT,
                "%s: tensor '%.200s': found offset %llu, expected it inside %llu bytes: truncated?",
                g->file->path, name, (unsigned long long)e->offset,
                (unsigned long long)g->file->size);
        e->offset += data;
        EQI_RETURN_IF(eqi_source_add(g->tensors, name, e));
    }
    return eqi_source_finish(g->tensors);
}

static eqat_status read_header(reader *r)
{
    eqi_gguf *g = r->g;
    const char *path = g->file->path;
    unsigned char magic[4];
    uint32_t version;
    uint64_t values;
    EQI_RETURN_IF(read_bytes(r, magic, sizeof magic, "the first bytes"));
    if (memcmp(magic, "GGUF", 4))
        return eqi_fail(g->ctx, EQAT_FORMAT, "%s: found other first bytes, expected GGUF", path);
    EQI_RETURN_IF(read_u32(r, &version, "the version"));
    if (version == UINT32_C(0x02000000) || version == UINT32_C(0x03000000))
        return eqi_fail(g->ctx, EQAT_UNSUPPORTED,
                        "%s: found a big-endian file, expected little-endian", path);
    if (version < 2 || version > 3)
        return eqi_fail(g->ctx, EQAT_UNSUPPORTED, "%s: found GGUF version %u, expected 2 or 3",
                        path, version);
    EQI_RETURN_IF(read_count(r, &r->ntensors, TENSOR_LEAST, "the number of tensors"));
    EQI_RETURN_IF(read_count(r, &values, VALUE_LEAST, "the number of metadata values"));
    g->values = eqi_calloc(g->ctx, (size_t)values, sizeof *g->values, "GGUF metadata");
    if (!g->values) return EQAT_OUT_OF_MEMORY;
    for (; g->nvalues < values; g->nvalues++) EQI_RETURN_IF(read_value(r, &g->values[g->nvalues]));
    r->tensors = eqi_calloc(g->ctx, (size_t)r->ntensors, sizeof *r->tensors, "the list of tensors");
    if (!r->tensors) return EQAT_OUT_OF_MEMORY;
    for (uint64_t i = 0; i < r->ntensors; i++) EQI_RETURN_IF(read_tensor(r, &r->tensors[i]));
    EQI_RETURN_IF(sort_values(g));
    return place_tensors(r);
}

static eqat_status open_into(eqi_gguf *g, const char *path)
{
    EQI_RETURN_IF(eqi_source_create(g->ctx, &g->tensors));
    EQI_RETURN_IF(eqi_file_open(g->ctx, &g->file, path));
    eqat_status st = eqi_source_add_file(g->tensors, g->file);
    if (st != EQAT_OK) {
        eqi_file_close(g->file);
        return st;
    }
    reader *r = eqi_calloc(g->ctx, 1, sizeof *r, "a read buffer");
    if (!r) return EQAT_OUT_OF_MEMORY;
    r->g = g;
    r->end = g->file->size < HEADER_MAX ? g->file->size : HEADER_MAX;
    st = read_header(r);
    eqi_free(g->ctx, r->tensors);
    eqi_free(g->ctx, r);
    return st;
}

eqat_status eqi_gguf_open(eqi_ctx *ctx, eqi_gguf **out, const char *path)
{
    *out = NULL;
    eqi_gguf *g = eqi_calloc(ctx, 1, sizeof *g, "a GGUF file");
    if (!g) return EQAT_OUT_OF_MEMORY;
    g->ctx = ctx;
    g->refs = 1;
    eqat_status st = open_into(g, path);
    if (st != EQAT_OK) {
        eqi_gguf_close(g);
        return st;
    }
    *out = g;
    return EQAT_OK;
}

void eqi_gguf_close(eqi_gguf *g)
{
    if (!g || --g->refs) return;
    eqi_source_close(g->tensors);
    eqi_free(g->ctx, g->values);
    eqi_free(g->ctx, g->blob);
    eqi_free(g->ctx, g);
}

static void release(void *owner) { eqi_gguf_close(owner); }

eqat_status eqi_gguf_source_create(eqi_gguf *g, eqi_source **out)
{
    *out = NULL;
    eqi_source *s;
    EQI_RETURN_IF(eqi_source_create(g->ctx, &s));
    g->refs++;
    s->owner = g;
    s->release = release;
    eqat_status st = eqi_source_add_file(s, g->file);
    if (st != EQAT_OK) {
        eqi_source_close(s);
        return st;
    }
    *out = s;
    return EQAT_OK;
}

eqat_status eqi_gguf_source(eqi_gguf *g, eqi_source **out)
{
    eqi_source *s;
    *out = NULL;
    EQI_RETURN_IF(eqi_gguf_source_create(g, &s));
    eqat_status st = EQAT_OK;
    for (size_t i = 0; st == EQAT_OK && i < g->tensors->count; i++) {
        const eqi_source_entry *e = &g->tensors->items[i].entry;
        st = eqi_source_add(s, e->name, e);
    }
    if (st == EQAT_OK) st = eqi_source_finish(s);
    if (st != EQAT_OK) {
        eqi_source_close(s);
        return st;
    }
    *out = s;
    return EQAT_OK;
}

const eqi_source *eqi_gguf_tensors(const eqi_gguf *g) { return g->tensors; }
const char *eqi_gguf_path(const eqi_gguf *g) { return g->file->path; }
eqi_ctx *eqi_gguf_context(const eqi_gguf *g) { return g->ctx; }

bool eqi_gguf_has(const eqi_gguf *g, const char *key) { return find(g, key) != NULL; }

bool eqi_gguf_int(const eqi_gguf *g, const char *key, int64_t *out)
{
    const value *v = find(g, key);
    return v && number_as_int(v->kind, g->blob + v->data, out);
}

bool eqi_gguf_float(const eqi_gguf *g, const char *key, double *out)
{
    const value *v = find(g, key);
    return v && number_as_float(v->kind, g->blob + v->data, out);
}

bool eqi_gguf_bool(const eqi_gguf *g, const char *key, bool *out)
{
    const value *v = find(g, key);
    if (!v || v->kind != EQI_GGUF_BOOL) return false;
    *out = g->blob[v->data] != 0;
    return true;
}

const char *eqi_gguf_string(const eqi_gguf *g, const char *key, size_t *length)
{
    const value *v = find(g, key);
    if (!v || v->kind != EQI_GGUF_STRING) return NULL;
    if (length) *length = (size_t)v->count;
    return g->blob + v->data;
}

int64_t eqi_gguf_array_count(const eqi_gguf *g, const char *key)
{
    const value *v = find(g, key);
    return v && v->kind == EQI_GGUF_ARRAY ? (int64_t)v->count : -1;
}

/* The array's value when i is one of its elements. */
static const value *find_element(const eqi_gguf *g, const char *key, int64_t i)
{
    const value *v = find(g, key);
    return v && v->kind == EQI_GGUF_ARRAY && i >= 0 && (uint64_t)i < v->count ? v : NULL;
}

const char *eqi_gguf_array_string(const eqi_gguf *g, const char *key, int64_t i, size_t *length)
{
    const value *v = find_element(g, key, i);
    if (!v || v->element != EQI_GGUF_STRING) return NULL;
    uint64_t at[2];
    memcpy(at, g->blob + v->data + (size_t)i * sizeof at[0], sizeof at);
    if (length) *length = (size_t)(at[1] - at[0] - 1);
    return g->blob + at[0];
}

bool eqi_gguf_array_int(const eqi_gguf *g, const char *key, int64_t i, int64_t *out)
{
    const value *v = find_element(g, key, i);
    return v &&
        number_as_int(v->element, g->blob + v->data + (size_t)i * kind_size[v->element], out);
}

bool eqi_gguf_array_float(const eqi_gguf *g, const char *key, int64_t i, double *out)
{
    const value *v = find_element(g, key, i);
    return v &&
        number_as_float(v->element, g->blob + v->data + (size_t)i * kind_size[v->element], out);
}

size_t eqi_gguf_kind_size(uint32_t kind) { return kind < EQI_GGUF_KINDS ? kind_size[kind] : 0; }

bool eqi_gguf_value_at(const eqi_gguf *g, size_t i, eqi_gguf_value *out)
{
    if (i >= g->nvalues) return false;
    const value *v = &g->values[i];
    *out = (eqi_gguf_value){v->key, v->kind, v->element, v->count, g->blob + v->data};
    return true;
}
