/* GGUF files made by hand, byte by byte, so that every field can be wrong. */
#ifndef TESTS_SUPPORT_GGUF_BYTES_H
#define TESTS_SUPPORT_GGUF_BYTES_H

#include "bytes.h"

enum {
    G_U8,
    G_I8,
    G_U16,
    G_I16,
    G_U32,
    G_I32,
    G_F32,
    G_BOOL,
    G_STRING,
    G_ARRAY,
    G_U64,
    G_I64,
    G_F64
};
enum {
    G_TYPE_F32 = 0,
    G_TYPE_F16 = 1,
    G_TYPE_Q4_0 = 2,
    G_TYPE_Q8_0 = 8,
    G_TYPE_BF16 = 30,
    G_TYPE_Q2_0 = 42
};

/* Counts are filled in by end_header, from what was put. */
typedef struct gguf_bytes {
    bytes file;
    uint64_t values, tensors, data;
} gguf_bytes;

static inline void begin(gguf_bytes *g, uint32_t version)
{
    g->file.n = 0;
    g->values = g->tensors = g->data = 0;
    put(&g->file, "GGUF", 4);
    put_u32(&g->file, version);
    put_zeros(&g->file, 16);
}

static inline void key(gguf_bytes *g, const char *name, uint32_t kind)
{
    put_string(&g->file, name);
    put_u32(&g->file, kind);
    g->values++;
}

static inline void key_u32(gguf_bytes *g, const char *name, uint32_t value)
{
    key(g, name, G_U32);
    put_u32(&g->file, value);
}

static inline void key_f32(gguf_bytes *g, const char *name, float value)
{
    key(g, name, G_F32);
    put(&g->file, &value, 4);
}

static inline void key_string(gguf_bytes *g, const char *name, const char *value)
{
    key(g, name, G_STRING);
    put_string(&g->file, value);
}

static inline void key_array(gguf_bytes *g, const char *name, uint32_t kind, uint64_t count)
{
    key(g, name, G_ARRAY);
    put_u32(&g->file, kind);
    put_u64(&g->file, count);
}

static inline void tensor_at(gguf_bytes *g, const char *name, uint32_t type, uint32_t ndim,
                             const uint64_t *ne, uint64_t offset)
{
    put_string(&g->file, name);
    put_u32(&g->file, ndim);
    for (uint32_t i = 0; i < ndim; i++) put_u64(&g->file, ne[i]);
    put_u32(&g->file, type);
    put_u64(&g->file, offset);
    g->tensors++;
}

/* rows x columns (rows 0: a vector), `size` bytes, after the tensors so far, at multiples of 32. */
static inline void tensor(gguf_bytes *g, const char *name, uint32_t type, uint64_t rows,
                          uint64_t columns, uint64_t size)
{
    const uint64_t ne[2] = {columns, rows};
    tensor_at(g, name, type, rows ? 2 : 1, ne, g->data);
    g->data += (size + 31) / 32 * 32;
}

static inline void end_header(gguf_bytes *g, size_t alignment)
{
    memcpy(g->file.p + 8, &g->tensors, 8);
    memcpy(g->file.p + 16, &g->values, 8);
    put_zeros(&g->file, (alignment - g->file.n % alignment) % alignment);
}

#endif
