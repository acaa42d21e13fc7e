#include <math.h>

#include "base/file.h"
#include "base/half.h"
#include "each_test.h"
#include "format/gguf.h"
#include "gguf_bytes.h"

static gguf_bytes g;

static eqat_status open_bytes(const void *p, size_t n, eqi_gguf **out)
{
    const char *path = scratch("model.gguf");
    write_file(path, p, n);
    return eqi_gguf_open(ctx, out, path);
}

/* Opens, reads every tensor, closes. */
static eqat_status try_bytes(const void *p, size_t n)
{
    eqi_gguf *file;
    eqi_source *s = NULL;
    EQI_RETURN_IF(open_bytes(p, n, &file));
    eqat_status st = eqi_gguf_source(file, &s);
    for (size_t i = 0; st == EQAT_OK && i < eqi_source_count(s); i++) {
        const eqi_source_entry *e = eqi_source_at(s, i);
        if (!eqi_stored_is_float(e->stored) || e->elements > 1 << 16) continue;
        float *values = malloc((size_t)e->elements * 4 + 4);
        st = eqi_source_read_f32(s, e, 0, e->elements, values);
        free(values);
    }
    eqi_gguf_close(file);
    eqi_source_close(s);
    return st;
}

static void put_metadata(void)
{
    key(&g, "u8", G_U8), put(&g.file, "\xfe", 1);
    key(&g, "i8", G_I8), put(&g.file, "\xfe", 1);
    key(&g, "u16", G_U16), put(&g.file, "\xfe\xff", 2);
    key(&g, "i16", G_I16), put(&g.file, "\xfe\xff", 2);
    key_u32(&g, "u32", 0xfffffffe);
    key(&g, "i32", G_I32), put_u32(&g.file, 0xfffffffe);
    key(&g, "u64", G_U64), put_u64(&g.file, INT64_MAX);
    key(&g, "u64.large", G_U64), put_u64(&g.file, UINT64_MAX);
    key(&g, "i64", G_I64), put_u64(&g.file, (uint64_t)INT64_MIN);
    key_f32(&g, "f32", 0.1f);
    const double tenth = 0.1;
    key(&g, "f64", G_F64), put(&g.file, &tenth, 8);
    key(&g, "yes", G_BOOL), put(&g.file, "\1", 1);
    key(&g, "no", G_BOOL), put(&g.file, "\0", 1);
    key(&g, "string", G_STRING), put_u64(&g.file, 3), put(&g.file, "a\0b", 3);
    key_string(&g, "empty", "");
    key_array(&g, "strings", G_STRING, 3), put_string(&g.file, "x"), put_string(&g.file, ""),
        put_string(&g.file, "\xc3\xa9");
    key_array(&g, "ints", G_I16, 2), put(&g.file, "\1\0\xff\xff", 4);
    const float floats[] = {1.5f, -2};
    key_array(&g, "floats", G_F32, 2), put(&g.file, floats, 8);
    key_array(&g, "none", G_STRING, 0);
    key_array(&g, "nested", G_ARRAY, 2);
    put_u32(&g.file, G_STRING), put_u64(&g.file, 1), put_string(&g.file, "deep");
    put_u32(&g.file, G_ARRAY), put_u64(&g.file, 1), put_u32(&g.file, G_U32), put_u64(&g.file, 1),
        put_u32(&g.file, 9);
    /* Longer than the reader's buffer. */
    key(&g, "long", G_STRING), put_u64(&g.file, 200000);
    for (int i = 0; i < 200000; i++) put(&g.file, i % 2 ? "b" : "a", 1);
    key_u32(&g, "after", 5);
}

START_TEST(metadata)
{
    begin(&g, 2 + (uint32_t)_i);
    put_metadata();
    end_header(&g, 32);
    eqi_gguf *f;
    OK(ctx, open_bytes(g.file.p, g.file.n, &f));
    int64_t n = 77;
    double x = 77;
    bool b = false;
    size_t length;
#define INT(key, want)                                                                 \
    ck_assert(eqi_gguf_int(f, key, &n) && n == (want) && eqi_gguf_float(f, key, &x) && \
              x == (double)(want))
    INT("u8", 0xfe);
    INT("i8", -2);
    INT("u16", 0xfffe);
    INT("i16", -2);
    INT("u32", 0xfffffffe);
    INT("i32", -2);
    INT("u64", INT64_MAX);
    INT("i64", INT64_MIN);
    INT("after", 5);
    n = 77, x = 77;
    static const char *const not_ints[] = {"u64.large", "f32",  "f64",     "yes",    "string",
                                           "strings",   "ints", "missing", "nested", ""};
    for (size_t i = 0; i < EQI_COUNT(not_ints); i++)
        ck_assert(!eqi_gguf_int(f, not_ints[i], &n) && n == 77);
    static const char *const not_floats[] = {"u64.large", "yes", "string", "floats", "missing"};
    for (size_t i = 0; i < EQI_COUNT(not_floats); i++)
        ck_assert(!eqi_gguf_float(f, not_floats[i], &x) && x == 77);
    ck_assert(eqi_gguf_float(f, "f32", &x) && x == 0.1f);
    ck_assert(eqi_gguf_float(f, "f64", &x) && x == 0.1);
    ck_assert(eqi_gguf_bool(f, "yes", &b) && b);
    ck_assert(eqi_gguf_bool(f, "no", &b) && !b);
    ck_assert(!eqi_gguf_bool(f, "u8", &b) && !eqi_gguf_bool(f, "missing", &b));
    ck_assert(eqi_gguf_has(f, "nested") && !eqi_gguf_has(f, "neste"));
    ck_assert_mem_eq(eqi_gguf_string(f, "string", &length), "a\0b", 4);
    ck_assert_uint_eq(length, 3);
    ck_assert_str_eq(eqi_gguf_string(f, "empty", NULL), "");
    ck_assert_ptr_null(eqi_gguf_string(f, "u8", NULL));
    const char *text = eqi_gguf_string(f, "long", &length);
    ck_assert_uint_eq(length, 200000);
    size_t same = 0;
    for (size_t i = 0; i < length; i++) same += text[i] == (i % 2 ? 'b' : 'a');
    ck_assert_uint_eq(same, length);
    ck_assert_int_eq(text[length], 0);
    ck_assert_int_eq(eqi_gguf_array_count(f, "strings"), 3);
    ck_assert_str_eq(eqi_gguf_array_string(f, "strings", 0, NULL), "x");
    ck_assert_str_eq(eqi_gguf_array_string(f, "strings", 1, &length), "");
    ck_assert_uint_eq(length, 0);
    ck_assert_str_eq(eqi_gguf_array_string(f, "strings", 2, &length), "\xc3\xa9");
    ck_assert_uint_eq(length, 2);
    ck_assert_ptr_null(eqi_gguf_array_string(f, "strings", 3, NULL));
    ck_assert_ptr_null(eqi_gguf_array_string(f, "strings", -1, NULL));
    ck_assert_ptr_null(eqi_gguf_array_string(f, "ints", 0, NULL));
    ck_assert(eqi_gguf_array_int(f, "ints", 0, &n) && n == 1);
    ck_assert(eqi_gguf_array_int(f, "ints", 1, &n) && n == -1);
    ck_assert(!eqi_gguf_array_int(f, "ints", 2, &n) && !eqi_gguf_array_int(f, "strings", 0, &n) &&
              !eqi_gguf_array_int(f, "u8", 0, &n));
    ck_assert(eqi_gguf_array_float(f, "floats", 1, &x) && x == -2);
    ck_assert_int_eq(eqi_gguf_array_count(f, "none"), 0);
    ck_assert_int_eq(eqi_gguf_array_count(f, "u8"), -1);
    ck_assert_int_eq(eqi_gguf_array_count(f, "missing"), -1);
    ck_assert(!eqi_gguf_array_int(f, "nested", 0, &n) && !eqi_gguf_array_float(f, "nested", 0, &x));
    eqi_gguf_close(f);
}
END_TEST

/* blocks.gguf has two blocks of every type, blocks.f32 what the gguf package makes of them. */
START_TEST(every_block_type)
{
    eqi_gguf *f;
    eqi_source *s;
    OK(ctx, eqi_gguf_open(ctx, &f, FORMAT_FOLDER "/blocks.gguf"));
    OK(ctx, eqi_gguf_source(f, &s));
    eqi_gguf_close(f);
    char *want;
    size_t size, at = 0;
    OK(ctx, eqi_file_slurp(ctx, FORMAT_FOLDER "/blocks.f32", 1 << 20, &want, &size));
    uint32_t seen = 0;
    float got[600];
    for (size_t i = 0; i < eqi_source_count(s); i++) {
        const eqi_source_entry *e = eqi_source_at(s, i);
        seen |= 1u << e->stored;
        OK(ctx, eqi_source_read_f32(s, e, 0, e->elements, got));
        ck_assert_uint_le(at + (size_t)e->elements * 4, size);
        ck_assert_msg(!memcmp(got, want + at, (size_t)e->elements * 4), "%s differs", e->name);
        const int64_t block = eqi_stored_block(e->stored);
        if (block > 1) {
            OK(ctx, eqi_source_read_f32(s, e, block, block, got));
            ck_assert_mem_eq(got, want + at + (size_t)block * 4, (size_t)block * 4);
            says(ctx, eqi_source_read_f32(s, e, 1, block, got), EQAT_INVALID_ARGUMENT, e->name);
            says(ctx, eqi_source_read_f32(s, e, 0, block + 1, got), EQAT_INVALID_ARGUMENT, e->name);
        }
        at += (size_t)e->elements * 4;
    }
    ck_assert_uint_eq(at, size);
    for (int t = 0; t < EQI_STORED_COUNT; t++)
        ck_assert((seen >> t & 1) ==
                  (t == EQI_STORED_F32 || t == EQI_STORED_F16 || t == EQI_STORED_BF16 ||
                   (t >= EQI_STORED_Q4_0 && t != EQI_STORED_Q2_0)));
    eqi_free(ctx, want);
    eqi_source_close(s);
}
END_TEST

static void make_small(uint32_t alignment)
{
    begin(&g, 3);
    if (alignment != 32) key_u32(&g, "general.alignment", alignment);
    key_array(&g, "names", G_STRING, 2), put_string(&g.file, "ab"), put_string(&g.file, "c");
    key_u32(&g, "number", 4);
    const uint64_t ne[4] = {32, 3, 1, 2}, one[1] = {5};
    tensor_at(&g, "quantized", G_TYPE_Q8_0, 4, ne, 0);
    tensor_at(&g, "plain", G_TYPE_F32, 1, one, 256);
    tensor_at(&g, "scalar", G_TYPE_F16, 0, NULL, 320);
    end_header(&g, alignment);
    put_zeros(&g.file, 322);
}

START_TEST(shapes_and_alignment)
{
    const uint32_t alignments[] = {1, 8, 32, 64};
    make_small(alignments[_i]);
    memset(g.file.p + g.file.n - 2, 0x3c, 2);
    eqi_gguf *f;
    eqi_source *s;
    OK(ctx, open_bytes(g.file.p, g.file.n, &f));
    OK(ctx, eqi_gguf_source(f, &s));
    eqi_gguf_close(f);
    const eqi_source_entry *e = eqi_source_find(s, "quantized");
    ck_assert(e->ndim == 4 && e->shape[0] == 2 && e->shape[1] == 1 && e->shape[2] == 3 &&
              e->shape[3] == 32);
    ck_assert(e->elements == 192 && e->bytes == 204);
    ck_assert_uint_eq(e->offset, g.file.n - 322);
    float x;
    OK(ctx, eqi_source_read_f32(s, eqi_source_find(s, "scalar"), 0, 1, &x));
    ck_assert(x == eqi_f16_to_f32(0x3c3c));
    eqi_source_close(s);
}
END_TEST

START_TEST(damaged_anywhere)
{
    make_small(32);
    OK(ctx, try_bytes(g.file.p, g.file.n));
    for (size_t n = 0; n < g.file.n; n++)
        says(ctx, try_bytes(g.file.p, n), EQAT_FORMAT, "model.gguf");
    static const unsigned char values[] = {0, 1, 9, 0x7f, 0x80, 0xff};
    for (size_t i = 0; i < g.file.n - 322; i++) {
        const unsigned char was = g.file.p[i];
        for (size_t k = 0; k < sizeof values; k++) {
            g.file.p[i] = values[k];
            ctx->error[0] = 0;
            if (try_bytes(g.file.p, g.file.n) != EQAT_OK)
                ck_assert_ptr_nonnull(strstr(ctx->error, "model.gguf"));
        }
        g.file.p[i] = was;
    }
}
END_TEST

static void fails(eqat_status status, const char *message)
{
    says(ctx, try_bytes(g.file.p, g.file.n), status, message);
    ck_assert_ptr_nonnull(strstr(ctx->error, "model.gguf"));
}

START_TEST(hostile_prefix)
{
    begin(&g, 3);
    end_header(&g, 32);
    OK(ctx, try_bytes(g.file.p, g.file.n));
    g.file.p[0] = 'g';
    fails(EQAT_FORMAT, "expected GGUF");
    static const struct {
        uint32_t version;
        const char *message;
    } versions[] = {
        {1, "version 1"}, {4, "version 4"}, {0, "version 0"}, {0x03000000, "big-endian"}};
    for (size_t i = 0; i < EQI_COUNT(versions); i++) {
        begin(&g, versions[i].version);
        end_header(&g, 32);
        fails(EQAT_UNSUPPORTED, versions[i].message);
    }
    for (int i = 0; i < 2; i++) {
        const uint64_t counts[] = {1, 5, UINT64_MAX, (uint64_t)1 << 60};
        for (size_t k = 0; k < EQI_COUNT(counts); k++) {
            begin(&g, 3);
            end_header(&g, 32);
            memcpy(g.file.p + 8 + 8 * i, &counts[k], 8);
            fails(EQAT_FORMAT, i ? "number of metadata values" : "number of tensors");
        }
    }
}
END_TEST

START_TEST(hostile_metadata)
{
#define TRY(status, message, ...) \
    do {                          \
        begin(&g, 3);             \
        __VA_ARGS__;              \
        end_header(&g, 32);       \
        put_zeros(&g.file, 64);   \
        fails(status, message);   \
    } while (0)
    TRY(EQAT_FORMAT, "twice", key_u32(&g, "same", 1), key_u32(&g, "other", 1),
        key_u32(&g, "same", 1));
    TRY(EQAT_FORMAT, "value type 13", key(&g, "x", 13), put_u64(&g.file, 0));
    TRY(EQAT_FORMAT, "value type 99", key_array(&g, "x", 99, 1));
    TRY(EQAT_FORMAT, "empty name", key_u32(&g, "", 1));
    TRY(EQAT_FORMAT, "NUL byte", put_u64(&g.file, 3), put(&g.file, "a\0b", 3),
        put_u32(&g.file, G_U32), put_u32(&g.file, 1), g.values++);
    TRY(EQAT_FORMAT, "count of 1000", key(&g, "x", G_STRING), put_u64(&g.file, 1000));
    TRY(EQAT_FORMAT, "count of 18446744073709551615", key(&g, "x", G_STRING),
        put_u64(&g.file, UINT64_MAX));
    TRY(EQAT_FORMAT, "x: found a count", key_array(&g, "x", G_U64, UINT64_MAX / 8 + 2));
    TRY(EQAT_FORMAT, "x: found a count", key_array(&g, "x", G_STRING, UINT64_MAX));
    TRY(EQAT_FORMAT, "x: found a count", key_array(&g, "x", G_ARRAY, UINT64_MAX));
    TRY(EQAT_FORMAT, "x: found a count", key_array(&g, "x", G_STRING, 1), put_u64(&g.file, 500));
    TRY(EQAT_FORMAT, "x: found a count", key_array(&g, "x", G_ARRAY, 1), put_u32(&g.file, G_F64),
        put_u64(&g.file, 500));
    TRY(EQAT_FORMAT, "nested more than", key_array(&g, "x", G_ARRAY, 1);
        for (int i = 0; i < 1000; i++) put_u32(&g.file, G_ARRAY), put_u64(&g.file, 1));
    TRY(EQAT_FORMAT, "general.alignment", key_u32(&g, "general.alignment", 0));
    TRY(EQAT_FORMAT, "general.alignment", key_u32(&g, "general.alignment", 24));
    TRY(EQAT_FORMAT, "general.alignment", key_u32(&g, "general.alignment", 0x80000000));
    TRY(EQAT_FORMAT, "general.alignment", key_string(&g, "general.alignment", "32"));
    begin(&g, 3);
    put_u64(&g.file, 70000);
    for (int i = 0; i < 70000; i++) put(&g.file, "k", 1);
    put_u32(&g.file, G_U32), put_u32(&g.file, 1);
    g.values++;
    end_header(&g, 32);
    fails(EQAT_FORMAT, "name of 70000 bytes");
}
END_TEST

START_TEST(hostile_tensors)
{
    const uint64_t four[] = {4}, sixteen[] = {16}, thirty[] = {30}, negative[] = {UINT64_MAX},
                   huge[] = {INT64_MAX, INT64_MAX}, zero_huge[] = {INT64_MAX, 0},
                   five[] = {1, 1, 1, 1, 1}, blocks[] = {32, (uint64_t)1 << 55};
#define ONE(status, message, type, ndim, ne, offset) \
    TRY(status, message, tensor_at(&g, "t", type, ndim, ne, offset))
    ONE(EQAT_FORMAT, "5 dimensions", G_TYPE_F32, 5, five, 0);
    ONE(EQAT_FORMAT, "dimension 18446744073709551615", G_TYPE_F32, 1, negative, 0);
    ONE(EQAT_FORMAT, "overflows", G_TYPE_F32, 2, huge, 0);
    ONE(EQAT_FORMAT, "overflows", G_TYPE_Q8_0, 2, blocks, 0);
    ONE(EQAT_FORMAT, "rows of 30, expected a multiple of 32 for Q4_0", G_TYPE_Q4_0, 1, thirty, 0);
    ONE(EQAT_FORMAT, "offset 4, expected a multiple of 32", G_TYPE_F32, 1, four, 4);
    ONE(EQAT_FORMAT, "truncated", G_TYPE_F32, 1, sixteen, 32);
    ONE(EQAT_FORMAT, "truncated", G_TYPE_F32, 1, four, (uint64_t)1 << 63);
    ONE(EQAT_FORMAT, "truncated", G_TYPE_F32, 1, four, UINT64_MAX - 31);
    ONE(EQAT_UNSUPPORTED, "type Q2_K", 10, 1, four, 0);
    ONE(EQAT_UNSUPPORTED, "type IQ4_XS", 23, 1, four, 0);
    ONE(EQAT_UNSUPPORTED, "type number 4 ", 4, 1, four, 0);
    ONE(EQAT_UNSUPPORTED, "type number 4294967295", UINT32_MAX, 1, four, 0);
    TRY(EQAT_FORMAT, "twice", tensor_at(&g, "t", 0, 1, four, 0),
        tensor_at(&g, "t", 0, 1, four, 32));
    TRY(EQAT_FORMAT, "overlap", tensor_at(&g, "t", 0, 1, sixteen, 0),
        tensor_at(&g, "u", 0, 1, four, 32));
    TRY(EQAT_FORMAT, "overlap", tensor_at(&g, "t", 0, 1, four, 0),
        tensor_at(&g, "u", 0, 1, four, 0));
    begin(&g, 3);
    tensor_at(&g, "t", 0, 2, zero_huge, 0);
    end_header(&g, 32);
    OK(ctx, try_bytes(g.file.p, g.file.n));
}
END_TEST

/* Two blocks of all codes; the same values worked out from the text of the format: code i of a
 * block is at bits 2i of the 16 bytes as one number. */
START_TEST(two_bits)
{
    static const uint16_t scales[] = {0x3555, 0xb801};
    unsigned char block[36];
    float got[128];
    for (int i = 0; i < 36; i++) block[i] = (unsigned char)(i * 91 + 27);
    for (int b = 0; b < 2; b++) memcpy(block + 18 * b, &scales[b], 2);
    begin(&g, 3);
    tensor(&g, "q", G_TYPE_Q2_0, 2, 64, 36);
    tensor(&g, "next", G_TYPE_F32, 0, 8, 32);
    end_header(&g, 32);
    put(&g.file, block, 36);
    put_zeros(&g.file, 28 + 32);
    eqi_gguf *f;
    eqi_source *s;
    OK(ctx, open_bytes(g.file.p, g.file.n, &f));
    OK(ctx, eqi_gguf_source(f, &s));
    eqi_gguf_close(f);
    OK(ctx, eqi_source_read_f32(s, eqi_source_find(s, "q"), 0, 128, got));
    eqi_source_close(s);
    for (int b = 0; b < 2; b++) {
        uint64_t words[2];
        memcpy(words, block + 18 * b + 2, 16);
        for (int i = 0; i < 64; i++) {
            const int code = (int)(words[i / 32] >> 2 * (i % 32) & 3);
            ck_assert(got[64 * b + i] == eqi_f16_to_f32(scales[b]) * (float)(code - 1));
        }
    }
}
END_TEST

START_TEST(other_two_bits)
{
    /* With a tensor behind, and at the end of the file. */
    for (int last = 0; last < 2; last++) {
        begin(&g, 3);
        tensor(&g, "q", G_TYPE_Q2_0, 16, 128, 16 * 34);
        if (!last) tensor(&g, "next", G_TYPE_F32, 0, 8, 32);
        end_header(&g, 32);
        put_zeros(&g.file, last ? 544 : 544 + 32);
        fails(EQAT_UNSUPPORTED,
              "'q': found 544 bytes for 2048 weights of type Q2_0, expected 576, 18 for every 64 "
              "(older files of this type have 34 for every 128)");
    }
    const uint64_t many[] = {128};
    ONE(EQAT_UNSUPPORTED, "type PQ2_0", 142, 1, many, 0);
    ONE(EQAT_UNSUPPORTED, "type PTQ1_0", 143, 1, many, 0);
}
END_TEST

START_TEST(allocation_failures)
{
    begin(&g, 3);
    put_metadata();
    tensor(&g, "t", G_TYPE_F32, 0, 4, 16);
    end_header(&g, 32);
    put_zeros(&g.file, 16);
    eqat_status st = EQAT_OUT_OF_MEMORY;
    size_t live = memory.live;
    long n = 0;
    for (; st != EQAT_OK; n++) {
        ck_assert_int_lt(n, 1000);
        refuse_after(n);
        st = try_bytes(g.file.p, g.file.n);
        refuse_after(-1);
        ck_assert_msg(st == EQAT_OK || st == EQAT_OUT_OF_MEMORY, "%s", ctx->error);
        ck_assert_uint_eq(memory.live, live);
    }
    ck_assert_int_gt(n, 10);
}
END_TEST

START_TEST(other_files)
{
    eqi_gguf *f;
    says(ctx, eqi_gguf_open(ctx, &f, scratch("missing")), EQAT_NOT_FOUND, "missing");
    says(ctx, eqi_gguf_open(ctx, &f, dir), EQAT_IO, "regular file");
    ck_assert_ptr_null(f);
    eqi_gguf_close(NULL);
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("gguf");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, metadata, 0, 2);
    tcase_add_test(c, every_block_type);
    tcase_add_loop_test(c, shapes_and_alignment, 0, 4);
    tcase_add_test(c, damaged_anywhere);
    tcase_add_test(c, hostile_prefix);
    tcase_add_test(c, hostile_metadata);
    tcase_add_test(c, hostile_tensors);
    tcase_add_test(c, two_bits);
    tcase_add_test(c, other_two_bits);
    tcase_add_test(c, allocation_failures);
    tcase_add_test(c, other_files);
    const int failed = run_case("gguf", c, CK_FORK_GETENV);
    free(g.file.p);
    return failed;
}
