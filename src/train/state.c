#include "train/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

#define CHUNK ((size_t)1 << 20)
#define CHECKSUM "checksum"

typedef struct item {
    char name[136];
    eqi_stored stored;
    int ndim;
    int64_t shape[EQI_MAX_DIMS];
    size_t bytes;
    eqi_tensor *tensor; /* or else */
    char *values;
    eqi_state_fits *fits; /* NULL: all do */
    int64_t most;         /* handed to it */
} item;

struct eqi_state {
    eqi_ctx *ctx;
    char *path, *temp;           /* temp: what is written */
    eqi_safetensors_writer *out; /* or else */
    eqi_source *source;
    uint64_t hash; /* of metadata, then of all items */
    item *items;
    size_t count, capacity;
};

uint64_t eqi_state_mix(uint64_t hash, const void *data, size_t n)
{
    const unsigned char *bytes = data;
    for (size_t at = 0; at < n; at += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + at, n - at < 8 ? n - at : 8);
        hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 29;
    }
    return hash;
}

static void mix_text(eqi_state *s, const char *text)
{
    s->hash = eqi_state_mix(s->hash, text, strlen(text) + 1);
}

/* ---- from beginning to end ---- */

static eqat_status start(eqi_ctx *ctx, eqi_state **out, const char *path)
{
    eqi_state *s = eqi_calloc(ctx, 1, sizeof *s, "a job's state");
    *out = s;
    if (!s) return EQAT_OUT_OF_MEMORY;
    s->ctx = ctx;
    s->path = eqi_strdup(ctx, path);
    return s->path ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

static eqat_status start_writing(eqi_state *s, const char *kind)
{
    eqi_temp_clean(s->path);
    for (int attempt = 0; !s->temp; attempt++) {
        s->temp = eqi_temp_name(s->ctx, s->path, attempt);
        if (!s->temp) return EQAT_OUT_OF_MEMORY;
        if (attempt == 1000 || !eqi_path_exists(s->temp)) break;
        eqi_free(s->ctx, s->temp);
        s->temp = NULL;
    }
    EQI_RETURN_IF(eqi_safetensors_create(s->ctx, &s->out, s->temp));
    mix_text(s, kind);
    return eqi_safetensors_metadata(s->out, "eqat_state", kind);
}

static eqat_status start_reading(eqi_state *s, const char *kind)
{
    EQI_RETURN_IF(eqi_source_open_safetensors_file(s->ctx, &s->source, s->path));
    const char *found = eqi_source_metadata(s->source, "eqat_state");
    if (!found || strcmp(found, kind) != 0)
        return eqi_fail(s->ctx, EQAT_FORMAT, "%s: found %.40s, expected the state of %s", s->path,
                        found ? found : "no state of a job", kind);
    mix_text(s, kind);
    return EQAT_OK;
}

static eqat_status started(eqi_state **out, eqat_status st)
{
    if (st == EQAT_OK) return st;
    eqi_state_drop(*out);
    *out = NULL;
    return st;
}

eqat_status eqi_state_create(eqi_ctx *ctx, eqi_state **out, const char *path, const char *kind)
{
    eqat_status st = start(ctx, out, path);
    return started(out, st == EQAT_OK ? start_writing(*out, kind) : st);
}

eqat_status eqi_state_open(eqi_ctx *ctx, eqi_state **out, const char *path, const char *kind)
{
    eqat_status st = start(ctx, out, path);
    return started(out, st == EQAT_OK ? start_reading(*out, kind) : st);
}

void eqi_state_drop(eqi_state *s)
{
    if (!s) return;
    eqi_safetensors_discard(s->out);
    eqi_source_close(s->source);
    eqi_free(s->ctx, s->items);
    eqi_free(s->ctx, s->temp);
    eqi_free(s->ctx, s->path);
    eqi_free(s->ctx, s);
}

/* ---- metadata ---- */

static eqat_status find_text(eqi_state *s, const char *key, const char **found)
{
    *found = eqi_source_metadata(s->source, key);
    if (*found) return EQAT_OK;
    return eqi_fail(s->ctx, EQAT_FORMAT, "%s: %s: not found", s->path, key);
}

eqat_status eqi_state_agree(eqi_state *s, const char *key, const char *value)
{
    const char *found;
    mix_text(s, key);
    mix_text(s, value);
    if (s->out) return eqi_safetensors_metadata(s->out, key, value);
    EQI_RETURN_IF(find_text(s, key, &found));
    if (!strcmp(found, value)) return EQAT_OK;
    return eqi_fail(s->ctx, EQAT_INVALID_ARGUMENT, "%s: %s: found %.60s, expected %.60s of the job",
                    s->path, key, found, value);
}

eqat_status eqi_state_agree_hash(eqi_state *s, const char *key, uint64_t hash)
{
    char text[24];
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    return eqi_state_agree(s, key, text);
}

eqat_status eqi_state_agree_options(eqi_state *s, const eqi_struct *table, const void *options)
{
    for (size_t i = 0; i < table->count; i++) {
        const eqat_field *f = &table->fields[i];
        char text[40], *comma;
        if (f->type == EQAT_FIELD_POINTER || f->type == EQAT_FIELD_STRING) continue;
        snprintf(text, sizeof text, "%.17g", eqi_options_number(f, options));
        if ((comma = strchr(text, ','))) *comma = '.'; /* of the host's locale */
        EQI_RETURN_IF(eqi_state_agree(s, f->name, text));
    }
    return EQAT_OK;
}

eqat_status eqi_state_number(eqi_state *s, const char *key, int64_t most, int64_t *number)
{
    char text[24];
    const char *found;
    if (s->source) {
        long long value;
        int end = 0;
        EQI_RETURN_IF(find_text(s, key, &found));
        if (sscanf(found, "%18lld%n", &value, &end) != 1 || found[end] || value < 0 || value > most)
            return eqi_fail(s->ctx, EQAT_FORMAT, "%s: %s: found %.40s, expected 0 to %lld", s->path,
                            key, found, (long long)most);
        *number = value;
    }
    snprintf(text, sizeof text, "%lld", (long long)*number);
    return eqi_state_agree(s, key, text);
}

/* ---- the list ---- */

static eqat_status add(eqi_state *s, const item *added, const char *name)
{
    item *items =
        eqi_grow(s->ctx, s->items, s->count, &s->capacity, sizeof *items, "a state's tensors");
    if (!items) return EQAT_OUT_OF_MEMORY;
    s->items = items;
    item *i = &s->items[s->count++];
    *i = *added;
    snprintf(i->name, sizeof i->name, "%s", name);
    return EQAT_OK;
}

eqat_status eqi_state_tensor(eqi_state *s, const char *name, eqi_tensor *t)
{
    static const eqi_stored as[EQI_DTYPE_COUNT] = {
        [EQI_F32] = EQI_STORED_F32, [EQI_BF16] = EQI_STORED_BF16, [EQI_F16] = EQI_STORED_F16,
        [EQI_F64] = EQI_STORED_F64, [EQI_I32] = EQI_STORED_I32,   [EQI_U8] = EQI_STORED_U8,
        [EQI_U32] = EQI_STORED_U32};
    item i = {.stored = as[t->v.dtype], .ndim = t->v.ndim, .tensor = t};
    memcpy(i.shape, t->v.shape, sizeof i.shape);
    i.bytes = (size_t)eqi_view_count(&t->v) * eqi_dtype_size(t->v.dtype);
    return add(s, &i, name);
}

eqat_status eqi_state_values(eqi_state *s, const char *name, eqi_stored stored, void *values,
                             int64_t n)
{
    return eqi_state_fitting(s, name, stored, values, n, NULL, 0);
}

eqat_status eqi_state_fitting(eqi_state *s, const char *name, eqi_stored stored, void *values,
                              int64_t n, eqi_state_fits *fits, int64_t most)
{
    item i = {
        .stored = stored, .ndim = 1, .shape = {n}, .values = values, .fits = fits, .most = most};
    i.bytes = (size_t)eqi_stored_bytes(stored, n);
    return add(s, &i, name);
}

static bool are_counts(const void *values, int64_t n, int64_t most)
{
    const int64_t *counts = values;
    for (int64_t i = 0; i < n; i++)
        if (counts[i] < 0 || counts[i] > most) return false;
    return true;
}

eqat_status eqi_state_counts(eqi_state *s, const char *name, int64_t *counts, int64_t n,
                             int64_t most)
{
    return eqi_state_fitting(s, name, EQI_STORED_I64, counts, n, are_counts, most);
}

/* A safetensors file has no gaps, so that wider values come first. */
static eqat_status sort(eqi_state *s)
{
    size_t n = 0;
    item *sorted = eqi_alloc(s->ctx, s->capacity * sizeof *sorted, "a state's tensors");
    if (!sorted) return EQAT_OUT_OF_MEMORY;
    for (uint64_t width = 8; width; width /= 2)
        for (size_t i = 0; i < s->count; i++)
            if (eqi_stored_bytes(s->items[i].stored, 1) == width) sorted[n++] = s->items[i];
    eqi_free(s->ctx, s->items);
    s->items = sorted;
    return EQAT_OK;
}

/* ---- bytes, a chunk at a time ---- */

typedef eqat_status (*chunk_fn)(eqi_state *s, const item *i, size_t at, size_t n, char *buffer);

static eqat_status each_chunk(eqi_state *s, chunk_fn call)
{
    char *buffer = eqi_alloc(s->ctx, CHUNK, "a piece of a job's state");
    if (!buffer) return EQAT_OUT_OF_MEMORY;
    eqat_status st = EQAT_OK;
    for (size_t k = 0; k < s->count && st == EQAT_OK; k++) {
        const item *i = &s->items[k];
        for (size_t at = 0; at < i->bytes && st == EQAT_OK; at += CHUNK)
            st = call(s, i, at, i->bytes - at < CHUNK ? i->bytes - at : CHUNK, buffer);
    }
    eqi_free(s->ctx, buffer);
    return st;
}

static eqat_status write_chunk(eqi_state *s, const item *i, size_t at, size_t n, char *buffer)
{
    if (i->tensor)
        EQI_RETURN_IF(eqi_tensor_download_part(i->tensor, at, buffer, n));
    else
        memcpy(buffer, i->values + at, n);
    s->hash = eqi_state_mix(s->hash, buffer, n);
    return eqi_safetensors_write(s->out, buffer, n);
}

static eqat_status read_chunk(eqi_state *s, const item *i, size_t at, size_t n, char *buffer)
{
    return eqi_source_read_raw(s->source, eqi_source_find(s->source, i->name), at, n, buffer);
}

static eqat_status check_chunk(eqi_state *s, const item *i, size_t at, size_t n, char *buffer)
{
    EQI_RETURN_IF(read_chunk(s, i, at, n, buffer));
    s->hash = eqi_state_mix(s->hash, buffer, n);
    return EQAT_OK;
}

static eqat_status fill_chunk(eqi_state *s, const item *i, size_t at, size_t n, char *buffer)
{
    EQI_RETURN_IF(read_chunk(s, i, at, n, buffer));
    if (i->tensor) return eqi_tensor_upload_part(i->tensor, at, buffer, n);
    memcpy(i->values + at, buffer, n);
    return EQAT_OK;
}

/* ---- the end ---- */

static const int64_t hash_bytes = sizeof(uint64_t);

static eqat_status write_all(eqi_state *s)
{
    for (size_t k = 0; k < s->count; k++) {
        const item *i = &s->items[k];
        EQI_RETURN_IF(eqi_safetensors_declare(s->out, i->name, i->stored, i->ndim, i->shape));
    }
    EQI_RETURN_IF(eqi_safetensors_declare(s->out, CHECKSUM, EQI_STORED_U8, 1, &hash_bytes));
    EQI_RETURN_IF(each_chunk(s, write_chunk));
    EQI_RETURN_IF(eqi_safetensors_write(s->out, &s->hash, sizeof s->hash));
    eqi_safetensors_writer *out = s->out;
    s->out = NULL;
    EQI_RETURN_IF(eqi_safetensors_close(out));
    eqat_status st = eqi_temp_commit(s->ctx, s->temp, s->path);
    if (st != EQAT_OK) unlink(s->temp); /* when it is not in its place */
    return st;
}

static eqat_status check_entry(eqi_state *s, const item *i)
{
    const eqi_source_entry *e = eqi_source_find(s->source, i->name);
    if (!e) return eqi_fail(s->ctx, EQAT_FORMAT, "%s: tensor %s: not found", s->path, i->name);
    if (e->stored == i->stored && e->ndim == i->ndim &&
        !memcmp(e->shape, i->shape, (size_t)i->ndim * sizeof *i->shape))
        return EQAT_OK;
    return eqi_fail(s->ctx, EQAT_FORMAT,
                    "%s: tensor %s: found %s of %llu bytes, expected %s of %zu in another shape",
                    s->path, i->name, eqi_stored_name(e->stored), (unsigned long long)e->bytes,
                    eqi_stored_name(i->stored), i->bytes);
}

/* A checksum is no proof: whoever changes a number can change the sum. */
static eqat_status check_fit(eqi_state *s, const item *i)
{
    if (!i->fits) return EQAT_OK;
    char *values = eqi_alloc(s->ctx, i->bytes, "a piece of a job's state");
    if (!values) return EQAT_OUT_OF_MEMORY;
    eqat_status st = read_chunk(s, i, 0, i->bytes, values);
    if (st == EQAT_OK && !i->fits(values, i->shape[0], i->most))
        st = eqi_fail(s->ctx, EQAT_FORMAT,
                      "%s: tensor %s: found a number out of range, expected those of such a job",
                      s->path, i->name);
    eqi_free(s->ctx, values);
    return st;
}

static eqat_status check_all(eqi_state *s)
{
    const item checksum = {
        .name = CHECKSUM, .stored = EQI_STORED_U8, .ndim = 1, .shape = {hash_bytes}};
    uint64_t expected;
    for (size_t k = 0; k < s->count; k++) EQI_RETURN_IF(check_entry(s, &s->items[k]));
    EQI_RETURN_IF(check_entry(s, &checksum));
    if (eqi_source_count(s->source) != s->count + 1)
        return eqi_fail(s->ctx, EQAT_FORMAT, "%s: found %zu tensors, expected %zu", s->path,
                        eqi_source_count(s->source), s->count + 1);
    EQI_RETURN_IF(each_chunk(s, check_chunk));
    EQI_RETURN_IF(read_chunk(s, &checksum, 0, sizeof expected, (char *)&expected));
    if (s->hash != expected)
        return eqi_fail(s->ctx, EQAT_FORMAT,
                        "%s: checksum: found %016" PRIx64 ", expected %016" PRIx64 ": damaged?",
                        s->path, s->hash, expected);
    for (size_t k = 0; k < s->count; k++) EQI_RETURN_IF(check_fit(s, &s->items[k]));
    return EQAT_OK;
}

eqat_status eqi_state_end(eqi_state *s)
{
    eqat_status st = sort(s);
    if (st == EQAT_OK && s->out)
        st = write_all(s);
    else if (st == EQAT_OK) {
        st = check_all(s);
        if (st == EQAT_OK) st = each_chunk(s, fill_chunk);
    }
    eqi_state_drop(s);
    return st;
}
