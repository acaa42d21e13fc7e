#include "format/shards.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"

#define INDEX "model.safetensors.index.json"

typedef struct item {
    char *name;
    eqi_source_entry entry;
    int64_t shard;
} item;

struct eqi_shards {
    eqi_ctx *ctx;
    char *dir;
    const char *kind;
    uint64_t most;
    item *items;
    size_t count, capacity;
    int64_t shards; /* 0: nothing written yet */
    int64_t shard;  /* in writing */
    size_t next;    /* the first item behind it */
    uint64_t left;  /* bytes that it still lacks */
    eqi_safetensors_writer *file;
};

eqat_status eqi_shards_create(eqi_ctx *ctx, eqi_shards **out, const char *dir, int64_t most,
                              const char *kind)
{
    *out = NULL;
    eqi_shards *w = eqi_calloc(ctx, 1, sizeof *w, "a writer of weights");
    if (!w) return EQAT_OUT_OF_MEMORY;
    w->ctx = ctx;
    w->kind = kind;
    w->most = most ? (uint64_t)most : UINT64_MAX;
    w->dir = eqi_strdup(ctx, dir);
    if (!w->dir) {
        eqi_shards_discard(w);
        return EQAT_OUT_OF_MEMORY;
    }
    *out = w;
    return EQAT_OK;
}

void eqi_shards_discard(eqi_shards *w)
{
    if (!w) return;
    eqi_safetensors_discard(w->file);
    for (size_t i = 0; i < w->count; i++) eqi_free(w->ctx, w->items[i].name);
    eqi_free(w->ctx, w->items);
    eqi_free(w->ctx, w->dir);
    eqi_free(w->ctx, w);
}

static eqat_status grow(eqi_shards *w)
{
    item *items =
        eqi_grow(w->ctx, w->items, w->count, &w->capacity, sizeof *items, "names of tensors");
    if (!items) return EQAT_OUT_OF_MEMORY;
    w->items = items;
    return EQAT_OK;
}

eqat_status eqi_shards_declare(eqi_shards *w, const char *name, eqi_stored stored, int ndim,
                               const int64_t *shape)
{
    EQI_RETURN_IF(grow(w));
    item *i = &w->items[w->count];
    *i = (item){.entry = {.stored = stored, .ndim = ndim, .elements = 1}};
    for (int d = 0; d < ndim; d++) {
        i->entry.shape[d] = shape[d];
        i->entry.elements *= shape[d];
    }
    i->entry.bytes = eqi_stored_bytes(stored, i->entry.elements);
    i->name = eqi_strdup(w->ctx, name);
    if (!i->name) return EQAT_OUT_OF_MEMORY;
    w->count++;
    return EQAT_OK;
}

static void assign(eqi_shards *w)
{
    uint64_t used = 0;
    w->shards = 1;
    for (size_t i = 0; i < w->count; i++) {
        uint64_t bytes = w->items[i].entry.bytes;
        if (used && (used > w->most || bytes > w->most - used)) {
            w->shards++;
            used = 0;
        }
        used += bytes;
        w->items[i].shard = w->shards - 1;
    }
}

static void file_name(const eqi_shards *w, int64_t shard, char *name, size_t size)
{
    if (w->shards == 1)
        snprintf(name, size, "model.safetensors");
    else
        snprintf(name, size, "model-%05lld-of-%05lld.safetensors", (long long)shard + 1,
                 (long long)w->shards);
}

static eqat_status open_shard(eqi_shards *w)
{
    char name[64];
    file_name(w, w->shard, name, sizeof name);
    char *path = eqi_path_join(w->ctx, w->dir, name);
    if (!path) return EQAT_OUT_OF_MEMORY;
    eqat_status st = eqi_safetensors_create(w->ctx, &w->file, path);
    eqi_free(w->ctx, path);
    if (st == EQAT_OK) st = eqi_safetensors_metadata(w->file, "format", w->kind);
    for (; st == EQAT_OK && w->next < w->count && w->items[w->next].shard == w->shard; w->next++) {
        const eqi_source_entry *e = &w->items[w->next].entry;
        st = eqi_safetensors_declare(w->file, w->items[w->next].name, e->stored, e->ndim, e->shape);
        w->left += e->bytes;
    }
    return st;
}

static eqat_status close_shard(eqi_shards *w)
{
    eqi_safetensors_writer *file = w->file;
    w->file = NULL;
    w->shard++;
    return eqi_safetensors_close(file);
}

/* The file that the next byte goes to. */
static eqat_status advance(eqi_shards *w)
{
    if (!w->shards) assign(w);
    if (w->file && w->left == 0 && w->shard + 1 < w->shards) EQI_RETURN_IF(close_shard(w));
    return w->file ? EQAT_OK : open_shard(w);
}

eqat_status eqi_shards_write(eqi_shards *w, const void *data, size_t n)
{
    const char *at = data;
    while (n) {
        EQI_RETURN_IF(advance(w));
        size_t piece = n < w->left ? n : (size_t)w->left;
        if (piece == 0) piece = n; /* too much: the last file refuses it */
        EQI_RETURN_IF(eqi_safetensors_write(w->file, at, piece));
        w->left -= piece;
        at += piece;
        n -= piece;
    }
    return EQAT_OK;
}

static json_t *make_index(const eqi_shards *w)
{
    uint64_t total = 0;
    json_t *map = json_object();
    bool failed = !map;
    for (size_t i = 0; i < w->count && !failed; i++) {
        char name[64];
        file_name(w, w->items[i].shard, name, sizeof name);
        failed = json_object_set_new(map, w->items[i].name, json_string(name)) != 0;
        total += w->items[i].entry.bytes;
    }
    json_t *index = failed ? NULL
                           : json_pack("{s:{s:I}, s:O}", "metadata", "total_size",
                                       (json_int_t)total, "weight_map", map);
    json_decref(map);
    return index;
}

static eqat_status write_index(eqi_shards *w)
{
    json_t *index = make_index(w);
    char *text = index ? json_dumps(index, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    json_decref(index);
    if (!text) return eqi_fail(w->ctx, EQAT_OUT_OF_MEMORY, "out of memory: " INDEX);
    char *path = eqi_path_join(w->ctx, w->dir, INDEX);
    eqat_status st = path ? eqi_write_file(w->ctx, path, text, strlen(text)) : EQAT_OUT_OF_MEMORY;
    eqi_free(w->ctx, path);
    free(text);
    return st;
}

eqat_status eqi_shards_close(eqi_shards *w)
{
    eqat_status st = advance(w); /* a model without bytes still has a file */
    if (st == EQAT_OK) st = close_shard(w);
    if (st == EQAT_OK && w->shards > 1) st = write_index(w);
    eqi_shards_discard(w);
    return st;
}
