#include "data/tokens.h"

#include <stdlib.h>
#include <string.h>

#define RAW_BYTES (1u << 16)

static const size_t type_bytes[] = {
    [EQI_TOKEN_U16] = 2, [EQI_TOKEN_U32] = 4, [EQI_TOKEN_I32] = 4, [EQI_TOKEN_I64] = 8};

bool eqi_path_ends(const char *path, const char *ending)
{
    size_t n = strlen(path), m = strlen(ending);
    return n > m && !strcmp(path + n - m, ending);
}

eqat_status eqi_tokens_create(eqi_ctx *ctx, eqi_tokens **out, const char *name, int64_t vocab)
{
    *out = NULL;
    eqi_tokens *t = eqi_calloc(ctx, 1, sizeof *t, "a token stream");
    if (!t) return EQAT_OUT_OF_MEMORY;
    t->ctx = eqi_ctx_ref(ctx);
    t->vocab = vocab;
    t->name = eqi_strdup(ctx, name);
    if (!t->name) {
        eqi_tokens_free(t);
        return EQAT_OUT_OF_MEMORY;
    }
    *out = t;
    return EQAT_OK;
}

void eqi_tokens_free(eqi_tokens *t)
{
    if (!t) return;
    eqi_ctx *ctx = t->ctx;
    eqi_file_close(t->file);
    eqi_free(ctx, t->raw);
    eqi_free(ctx, t->ids);
    eqi_free(ctx, t->name);
    eqi_free(ctx, t);
    eqi_ctx_unref(ctx);
}

static eqat_status check_id(const eqi_tokens *t, int64_t position, int64_t id)
{
    int64_t end = t->vocab > 0 ? t->vocab : (int64_t)INT32_MAX + 1;
    if (id >= 0 && id < end) return EQAT_OK;
    return eqi_fail(t->ctx, EQAT_FORMAT, "%s: token %lld: found id %lld, expected 0 to %lld",
                    t->name, (long long)position, (long long)id, (long long)end - 1);
}

eqat_status eqi_tokens_append(eqi_tokens *t, const int32_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) EQI_RETURN_IF(check_id(t, t->count + (int64_t)i, ids[i]));
    if (t->count + (int64_t)count > t->capacity) {
        int64_t capacity = t->count + (int64_t)count;
        if (capacity < 2 * t->capacity) capacity = 2 * t->capacity;
        int32_t *grown = eqi_realloc(t->ctx, t->ids, (size_t)capacity * sizeof *grown, "token ids");
        if (!grown) return EQAT_OUT_OF_MEMORY;
        t->ids = grown;
        t->capacity = capacity;
    }
    if (count) memcpy(t->ids + t->count, ids, count * sizeof *ids);
    t->count += (int64_t)count;
    return EQAT_OK;
}

static int64_t little_endian(const unsigned char *p, eqi_token_type type)
{
    uint64_t u = 0;
    for (size_t i = type_bytes[type]; i-- > 0;) u = u << 8 | p[i];
    return type == EQI_TOKEN_I32 ? (int64_t)(int32_t)(uint32_t)u : (int64_t)u;
}

/* out NULL: only the check. */
static eqat_status read_file(eqi_tokens *t, int64_t first, int64_t count, int32_t *out)
{
    size_t size = type_bytes[t->type];
    int64_t piece = (int64_t)(RAW_BYTES / size);
    for (int64_t i = 0; i < count; i += piece) {
        int64_t n = count - i < piece ? count - i : piece;
        EQI_RETURN_IF(eqi_file_read(t->file, t->raw, t->offset + (uint64_t)(first + i) * size,
                                    (size_t)n * size));
        for (int64_t j = 0; j < n; j++) {
            int64_t id = little_endian(t->raw + (size_t)j * size, t->type);
            EQI_RETURN_IF(check_id(t, first + i + j, id));
            if (out) out[i + j] = (int32_t)id;
        }
    }
    return EQAT_OK;
}

eqat_status eqi_tokens_read(eqi_tokens *t, int64_t first, int64_t count, int32_t *out)
{
    if (t->file) return read_file(t, first, count, out);
    memcpy(out, t->ids + first, (size_t)count * sizeof *out);
    return EQAT_OK;
}

/* What follows 'key': in the dictionary of a .npy header; NULL: no such key. */
static const char *npy_value(const char *header, const char *key)
{
    size_t n = strlen(key);
    for (const char *p = header; (p = strchr(p, '\'')); p++) {
        if (strncmp(p + 1, key, n) != 0 || p[n + 1] != '\'') continue;
        p += n + 2;
        while (*p == ' ') p++;
        if (*p++ != ':') return NULL;
        while (*p == ' ') p++;
        return p;
    }
    return NULL;
}

static eqat_status parse_npy(eqi_tokens *t, const char *header)
{
    static const struct {
        const char *descr;
        eqi_token_type type;
    } types[] = {{"'<u2'", EQI_TOKEN_U16},
                 {"'<u4'", EQI_TOKEN_U32},
                 {"'<i4'", EQI_TOKEN_I32},
                 {"'<i8'", EQI_TOKEN_I64}};
    const char *descr = npy_value(header, "descr"), *order = npy_value(header, "fortran_order"),
               *shape = npy_value(header, "shape");
    if (!descr || !order || !shape)
        return eqi_fail(t->ctx, EQAT_FORMAT,
                        "%s: found a header without %s, expected descr, fortran_order and shape",
                        t->name,
                        !descr       ? "descr"
                            : !order ? "fortran_order"
                                     : "shape");
    size_t type = 0;
    while (type < EQI_COUNT(types) && strncmp(descr, types[type].descr, 5) != 0) type++;
    if (type == EQI_COUNT(types))
        return eqi_fail(t->ctx, EQAT_FORMAT,
                        "%s: found dtype %.*s, expected '<u2', '<u4', '<i4' or '<i8'", t->name,
                        (int)strcspn(descr, ",}"), descr);
    char *end = NULL;
    long long count = *shape == '(' ? strtoll(shape + 1, &end, 10) : -1;
    if (count < 0 || end == shape + 1 || strncmp(end, ",)", 2) != 0)
        return eqi_fail(t->ctx, EQAT_FORMAT, "%s: found shape %.*s, expected one dimension",
                        t->name, (int)strcspn(shape, ")}'") + (strchr(shape, ')') != NULL), shape);
    t->type = types[type].type;
    t->count = count;
    uint64_t found = (t->file->size - t->offset) / type_bytes[t->type];
    if (found != (uint64_t)count || (t->file->size - t->offset) % type_bytes[t->type])
        return eqi_fail(t->ctx, EQAT_FORMAT,
                        "%s: found %llu bytes behind the header, expected %lld tokens of %zu bytes",
                        t->name, (unsigned long long)(t->file->size - t->offset), count,
                        type_bytes[t->type]);
    return EQAT_OK;
}

/* Magic, version, header length (2 bytes in version 1, 4 later), a Python dictionary, the data
 * (numpy's NEP 1). */
static eqat_status open_npy(eqi_tokens *t)
{
    unsigned char start[12] = {0};
    size_t have = t->file->size < sizeof start ? (size_t)t->file->size : sizeof start;
    EQI_RETURN_IF(eqi_file_read(t->file, start, 0, have));
    if (have < sizeof start || memcmp(start, "\x93NUMPY", 6) != 0 || start[6] < 1 || start[6] > 3)
        return eqi_fail(t->ctx, EQAT_FORMAT,
                        "%s: found no NumPy header, expected \\x93NUMPY and version 1 to 3",
                        t->name);
    size_t prefix = start[6] == 1 ? 10 : 12;
    uint32_t length = start[8] | (uint32_t)start[9] << 8;
    if (start[6] > 1) length |= (uint32_t)start[10] << 16 | (uint32_t)start[11] << 24;
    t->offset = prefix + length;
    if (length >= RAW_BYTES || t->offset > t->file->size)
        return eqi_fail(t->ctx, EQAT_FORMAT,
                        "%s: found a header of %lu bytes, expected less than %u and than the file",
                        t->name, (unsigned long)length, RAW_BYTES);
    EQI_RETURN_IF(eqi_file_read(t->file, t->raw, prefix, length));
    t->raw[length] = 0;
    return parse_npy(t, (char *)t->raw);
}

eqat_status eqi_tokens_open(eqi_ctx *ctx, eqi_tokens **out, const char *path, int64_t vocab)
{
    *out = NULL;
    eqi_tokens *t;
    EQI_RETURN_IF(eqi_tokens_create(ctx, &t, path, vocab));
    eqat_status st = EQAT_OK;
    t->raw = eqi_alloc(ctx, RAW_BYTES, "a piece of a token file");
    if (!t->raw) st = EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK) st = eqi_file_open(ctx, &t->file, path);
    if (st == EQAT_OK && eqi_path_ends(path, ".npy")) {
        st = open_npy(t);
    } else if (st == EQAT_OK) {
        t->type = eqi_path_ends(path, ".u16") ? EQI_TOKEN_U16 : EQI_TOKEN_U32;
        size_t size = type_bytes[t->type];
        t->count = (int64_t)(t->file->size / size);
        if (t->file->size % size)
            st = eqi_fail(ctx, EQAT_FORMAT, "%s: found %llu bytes, expected a multiple of %zu",
                          path, (unsigned long long)t->file->size, size);
    }
    if (st == EQAT_OK) st = read_file(t, 0, t->count, NULL);
    if (st != EQAT_OK) {
        eqi_tokens_free(t);
        return st;
    }
    *out = t;
    return EQAT_OK;
}
