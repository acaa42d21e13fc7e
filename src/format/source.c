#include "format/source_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "format/gguf_blocks.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensor data is little endian in every supported format; this reader does not swap bytes"
#endif

static const struct {
    const char *name;
    unsigned block, bytes; /* elements and bytes of one block */
    bool is_float;
} stored_table[EQI_STORED_COUNT] = {
    [EQI_STORED_F32] = {"F32", 1, 4, true},
    [EQI_STORED_F16] = {"F16", 1, 2, true},
    [EQI_STORED_BF16] = {"BF16", 1, 2, true},
    [EQI_STORED_F64] = {"F64", 1, 8, true},
    [EQI_STORED_I8] = {"I8", 1, 1, false},
    [EQI_STORED_U8] = {"U8", 1, 1, false},
    [EQI_STORED_I32] = {"I32", 1, 4, false},
    [EQI_STORED_I64] = {"I64", 1, 8, false},
    [EQI_STORED_I16] = {"I16", 1, 2, false},
    [EQI_STORED_U16] = {"U16", 1, 2, false},
    [EQI_STORED_U32] = {"U32", 1, 4, false},
    [EQI_STORED_U64] = {"U64", 1, 8, false},
    [EQI_STORED_BOOL] = {"BOOL", 1, 1, false},
    [EQI_STORED_F8_E4M3] = {"F8_E4M3", 1, 1, false},
    [EQI_STORED_F8_E5M2] = {"F8_E5M2", 1, 1, false},
    [EQI_STORED_Q4_0] = {"Q4_0", 32, 18, true},
    [EQI_STORED_Q4_1] = {"Q4_1", 32, 20, true},
    [EQI_STORED_Q5_0] = {"Q5_0", 32, 22, true},
    [EQI_STORED_Q5_1] = {"Q5_1", 32, 24, true},
    [EQI_STORED_Q8_0] = {"Q8_0", 32, 34, true},
    [EQI_STORED_Q4_K] = {"Q4_K", 256, 144, true},
    [EQI_STORED_Q5_K] = {"Q5_K", 256, 176, true},
    [EQI_STORED_Q6_K] = {"Q6_K", 256, EQI_GGUF_BLOCK_MAX, true},
    [EQI_STORED_Q2_0] = {"Q2_0", 64, 18, true},
    [EQI_STORED_TQ2_0] = {"TQ2_0", 256, 66, true},
};

const char *eqi_stored_name(eqi_stored stored)
{
    return (unsigned)stored < EQI_STORED_COUNT ? stored_table[stored].name : "unknown";
}

bool eqi_stored_is_float(eqi_stored stored)
{
    return (unsigned)stored < EQI_STORED_COUNT && stored_table[stored].is_float;
}

int64_t eqi_stored_block(eqi_stored stored) { return stored_table[stored].block; }

uint64_t eqi_stored_bytes(eqi_stored stored, int64_t n)
{
    return (uint64_t)n / stored_table[stored].block * stored_table[stored].bytes;
}

eqat_status eqi_source_create(eqi_ctx *ctx, eqi_source **out)
{
    *out = eqi_calloc(ctx, 1, sizeof **out, "a tensor source");
    if (!*out) return EQAT_OUT_OF_MEMORY;
    (*out)->ctx = ctx;
    return EQAT_OK;
}

void eqi_source_close(eqi_source *s)
{
    if (!s) return;
    eqi_ctx *ctx = s->ctx;
    for (size_t i = 0; i < s->count; i++) eqi_free(ctx, (char *)s->items[i].entry.name);
    eqi_free(ctx, s->items);
    eqi_free(ctx, s->by_name);
    if (s->release)
        s->release(s->owner);
    else
        for (int i = 0; i < s->nfiles; i++) eqi_file_close(s->files[i]);
    eqi_free(ctx, s->files);
    json_decref(s->metadata);
    eqi_free(ctx, s);
}

eqat_status eqi_source_add_file(eqi_source *s, eqi_file *file)
{
    eqi_file **files =
        eqi_realloc(s->ctx, s->files, ((size_t)s->nfiles + 1) * sizeof *files, "the list of files");
    if (!files) return EQAT_OUT_OF_MEMORY;
    s->files = files;
    s->files[s->nfiles++] = file;
    return EQAT_OK;
}

eqat_status eqi_source_measure(eqi_ctx *ctx, const char *path, const char *name,
                               eqi_source_entry *e)
{
    /* Byte counts stay below 2^63 whatever the type. */
    const int64_t limit = INT64_MAX / 8;
    int64_t n = 1;
    for (int i = 0; i < e->ndim; i++) {
        if (e->shape[i] < 0)
            return eqi_fail(ctx, EQAT_FORMAT,
                            "%s: tensor '%.200s': found dimension %lld, expected 0 or more", path,
                            name, (long long)e->shape[i]);
        if (e->shape[i] > 0 && n > limit / e->shape[i])
            return eqi_fail(ctx, EQAT_FORMAT,
                            "%s: tensor '%.200s': the product of its dimensions overflows at %lld",
                            path, name, (long long)e->shape[i]);
        n *= e->shape[i];
    }
    int64_t row = e->ndim ? e->shape[e->ndim - 1] : 1, block = eqi_stored_block(e->stored);
    if (row % block)
        return eqi_fail(
            ctx, EQAT_FORMAT,
            "%s: tensor '%.200s': found rows of %lld, expected a multiple of %lld for %s", path,
            name, (long long)row, (long long)block, eqi_stored_name(e->stored));
    e->elements = n;
    e->bytes = eqi_stored_bytes(e->stored, n);
    return EQAT_OK;
}

eqat_status eqi_source_add(eqi_source *s, const char *name, const eqi_source_entry *entry)
{
    const eqi_file *file = s->files[entry->file];
    eqi_source_item *items =
        eqi_grow(s->ctx, s->items, s->count, &s->capacity, sizeof *items, "the list of tensors");
    if (!items) return EQAT_OUT_OF_MEMORY;
    s->items = items;
    eqi_source_item item = {.entry = *entry};
    eqi_source_entry *e = &item.entry;
    EQI_RETURN_IF(eqi_source_measure(s->ctx, file->path, name, e));
    if (e->offset > file->size || e->bytes > file->size - e->offset)
        return eqi_fail(s->ctx, EQAT_FORMAT,
                        "%s: tensor '%.200s': found a file of %llu bytes, expected %llu at offset "
                        "%llu: truncated?",
                        file->path, name, (unsigned long long)file->size,
                        (unsigned long long)e->bytes, (unsigned long long)e->offset);
    e->name = eqi_strdup(s->ctx, name);
    if (!e->name) return EQAT_OUT_OF_MEMORY;
    s->items[s->count++] = item;
    return EQAT_OK;
}

static int compare_place(const void *a, const void *b)
{
    const eqi_source_entry *x = a, *y = b;
    if (x->file != y->file) return x->file < y->file ? -1 : 1;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int compare_name(const void *a, const void *b)
{
    const eqi_source_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

eqat_status eqi_source_finish(eqi_source *s)
{
    if (s->count) qsort(s->items, s->count, sizeof *s->items, compare_place);
    s->by_name = eqi_alloc(s->ctx, s->count * sizeof *s->by_name, "the index of tensors");
    if (!s->by_name) return EQAT_OUT_OF_MEMORY;
    for (size_t i = 0; i < s->count; i++) s->by_name[i] = &s->items[i].entry;
    if (s->count) qsort(s->by_name, s->count, sizeof *s->by_name, compare_name);
    for (size_t i = 1; i < s->count; i++) {
        const eqi_source_entry *a = s->by_name[i - 1], *b = s->by_name[i];
        if (strcmp(a->name, b->name)) continue;
        if (a->file == b->file)
            return eqi_fail(s->ctx, EQAT_FORMAT, "%s: tensor '%.200s': found twice, expected once",
                            eqi_source_path(s, a->file), a->name);
        return eqi_fail(s->ctx, EQAT_FORMAT, "%s: tensor '%.200s': found also in %s, expected once",
                        eqi_source_path(s, a->file), a->name, eqi_source_path(s, b->file));
    }
    for (size_t i = 1; i < s->count; i++) {
        const eqi_source_entry *a = &s->items[i - 1].entry, *b = &s->items[i].entry;
        if (a->file == b->file && b->offset < a->offset + a->bytes)
            return eqi_fail(s->ctx, EQAT_FORMAT,
                            "%s: tensor '%.200s': its bytes overlap those of '%.200s'",
                            eqi_source_path(s, a->file), b->name, a->name);
    }
    return EQAT_OK;
}

size_t eqi_source_count(const eqi_source *s) { return s->count; }

const eqi_source_entry *eqi_source_at(const eqi_source *s, size_t i)
{
    return i < s->count ? &s->items[i].entry : NULL;
}

const eqi_source_entry *eqi_source_find(const eqi_source *s, const char *name)
{
    for (size_t low = 0, high = s->count; low < high;) {
        size_t middle = low + (high - low) / 2;
        const eqi_source_entry *e = s->by_name[middle];
        int c = strcmp(name, e->name);
        if (c == 0) return e;
        if (c < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *eqi_source_path(const eqi_source *s, int file)
{
    return file >= 0 && file < s->nfiles ? s->files[file]->path : NULL;
}

const char *eqi_source_metadata(const eqi_source *s, const char *key)
{
    return json_string_value(json_object_get(s->metadata, key));
}

/* As read_bytes; a read may begin and end inside a value. */
static eqat_status read_one_less(eqi_file *file, const eqi_source_entry *e, uint64_t first,
                                 size_t n, unsigned char *dst)
{
    float values[64];
    while (n) {
        const uint64_t start = first - first % sizeof *values, left = e->bytes - start;
        const size_t size = left < sizeof values ? (size_t)left : sizeof values;
        const size_t skip = (size_t)(first - start), piece = n < size - skip ? n : size - skip;
        EQI_RETURN_IF(eqi_file_read(file, values, e->offset + start, size));
        for (size_t i = 0; i < size / sizeof *values; i++) values[i] -= 1;
        memcpy(dst, (const char *)values + skip, piece);
        first += piece;
        dst += piece;
        n -= piece;
    }
    return EQAT_OK;
}

/* Bytes [first, first + n) of the tensor, which the caller has checked to exist. */
static eqat_status read_bytes(eqi_source *s, const eqi_source_entry *e, uint64_t first, size_t n,
                              unsigned char *dst)
{
    const eqi_source_item *item = (const eqi_source_item *)e;
    eqi_file *file = s->files[e->file];
    if (item->one_more) return read_one_less(file, e, first, n, dst);
    if (!item->interleaved_heads) return eqi_file_read(file, dst, e->offset + first, n);
    const uint64_t rows = (uint64_t)e->shape[0], size = rows ? e->bytes / rows : 0;
    const uint64_t per_head = rows / (uint64_t)item->interleaved_heads, half = per_head / 2;
    while (n) {
        uint64_t row = first / size, within = first % size;
        uint64_t head = row / per_head, r = row % per_head;
        uint64_t stored = head * per_head + 2 * (r % half) + r / half;
        size_t piece = n < size - within ? n : (size_t)(size - within);
        EQI_RETURN_IF(eqi_file_read(file, dst, e->offset + stored * size + within, piece));
        first += piece;
        dst += piece;
        n -= piece;
    }
    return EQAT_OK;
}

eqat_status eqi_source_read_raw(eqi_source *s, const eqi_source_entry *e, uint64_t first, size_t n,
                                void *dst)
{
    if (first > e->bytes || n > e->bytes - first)
        return eqi_fail(
            s->ctx, EQAT_INVALID_ARGUMENT,
            "%s: tensor '%.200s': found a read of %zu bytes at %llu, expected it inside %llu bytes",
            eqi_source_path(s, e->file), e->name, n, (unsigned long long)first,
            (unsigned long long)e->bytes);
    return read_bytes(s, e, first, n, dst);
}

void eqi_stored_widen(eqi_stored stored, const unsigned char *src, int64_t count, float *dst)
{
    /* Through small buffers, because src and dst share memory: see eqi_source_read_f32. */
    enum { CHUNK = 512 };
    const size_t n = (size_t)count;
    uint16_t half[CHUNK];
    unsigned char block[EQI_GGUF_BLOCK_MAX];
    const size_t step = stored_table[stored].block, bytes = stored_table[stored].bytes;
    if (step == 1) {
        for (size_t i = 0; i < n; i += CHUNK) {
            const size_t k = n - i < CHUNK ? n - i : CHUNK;
            memcpy(half, src + 2 * i, 2 * k);
            if (stored == EQI_STORED_F16)
                for (size_t j = 0; j < k; j++) dst[i + j] = eqi_f16_to_f32(half[j]);
            else
                for (size_t j = 0; j < k; j++) dst[i + j] = eqi_bf16_to_f32(half[j]);
        }
    } else {
        for (size_t i = 0; i < n; i += step, src += bytes) {
            memcpy(block, src, bytes);
            eqi_gguf_decode_block(stored, block, dst + i);
        }
    }
}

static eqat_status read_f64(eqi_source *s, const eqi_source_entry *e, int64_t first, int64_t n,
                            float *dst)
{
    double wide[256];
    for (int64_t i = 0; i < n;) {
        const int64_t k = n - i < (int64_t)EQI_COUNT(wide) ? n - i : (int64_t)EQI_COUNT(wide);
        EQI_RETURN_IF(
            read_bytes(s, e, (uint64_t)(first + i) * 8, (size_t)k * 8, (unsigned char *)wide));
        for (int64_t j = 0; j < k; j++) dst[i + j] = (float)wide[j];
        i += k;
    }
    return EQAT_OK;
}

eqat_status eqi_source_read_f32(eqi_source *s, const eqi_source_entry *e, int64_t first, int64_t n,
                                float *dst)
{
    const char *path = eqi_source_path(s, e->file);
    if (!eqi_stored_is_float(e->stored))
        return eqi_fail(s->ctx, EQAT_FORMAT,
                        "%s: tensor '%.200s': found type %s, expected floating point", path,
                        e->name, eqi_stored_name(e->stored));
    const int64_t block = eqi_stored_block(e->stored);
    if (first < 0 || n < 0 || first > e->elements || n > e->elements - first || first % block ||
        n % block)
        return eqi_fail(s->ctx, EQAT_INVALID_ARGUMENT,
                        "%s: tensor '%.200s': found a read of %lld elements at %lld, expected it "
                        "inside %lld in blocks of %lld",
                        path, e->name, (long long)n, (long long)first, (long long)e->elements,
                        (long long)block);
    if (e->stored == EQI_STORED_F64) return read_f64(s, e, first, n, dst);
    /* No type but F64 is wider than f32, so the stored bytes fit into the end of dst and are
     * widened from there to its front: what is written never reaches what is still to be read. */
    const size_t bytes = (size_t)eqi_stored_bytes(e->stored, n), total = (size_t)n * sizeof *dst;
    unsigned char *tail = (unsigned char *)dst + (total - bytes);
    EQI_RETURN_IF(read_bytes(s, e, eqi_stored_bytes(e->stored, first), bytes, tail));
    if (e->stored != EQI_STORED_F32) eqi_stored_widen(e->stored, tail, n, dst);
    return EQAT_OK;
}
