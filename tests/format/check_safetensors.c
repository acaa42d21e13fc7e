#include <jansson.h>
#include <math.h>
#include <unistd.h>

#include "base/file.h"
#include "base/half.h"
#include "bytes.h"
#include "each_test.h"
#include "format/source.h"
#include "json.h"

static const float f32_data[6] = {1.5f, -2.25f, 0, 1e-30f, 3e38f, -0.0f};
static const uint16_t f16_data[4] = {0x3c00, 0x8001, 0x7bff, 0xc500};
static const uint16_t bf16_data[2] = {0x3f80, 0xc2c8};
static const int32_t i32_data[3] = {7, -1, INT32_MIN};
static const double f64_data[2] = {0.1, -1e300};

static eqat_status write_sample(const char *path)
{
    eqi_safetensors_writer *w;
    EQI_RETURN_IF(eqi_safetensors_create(ctx, &w, path));
    const int64_t two_three[] = {2, 3}, four[] = {4}, three[] = {3}, two[] = {2}, none[] = {0, 5};
    eqi_safetensors_metadata(w, "format", "pt");
    eqi_safetensors_metadata(w, "quote", "a \"b\" \\ \n \xc3\xa9");
    eqi_safetensors_declare(w, "wide", EQI_STORED_F64, 1, two);
    eqi_safetensors_declare(w, "matrix", EQI_STORED_F32, 2, two_three);
    eqi_safetensors_declare(w, "codes", EQI_STORED_I32, 1, three);
    eqi_safetensors_declare(w, "scalar", EQI_STORED_F32, 0, NULL);
    eqi_safetensors_declare(w, "half", EQI_STORED_F16, 1, four);
    eqi_safetensors_declare(w, "empty", EQI_STORED_F16, 2, none);
    eqi_safetensors_declare(w, "brain \xc3\xa9", EQI_STORED_BF16, 1, two);
    eqi_safetensors_declare(w, "bytes", EQI_STORED_U8, 1, three);
    eqi_safetensors_write(w, f64_data, sizeof f64_data);
    eqi_safetensors_write(w, f32_data, 5);
    eqi_safetensors_write(w, (const char *)f32_data + 5, sizeof f32_data - 5);
    eqi_safetensors_write(w, i32_data, sizeof i32_data);
    eqi_safetensors_write(w, &f32_data[1], 4);
    eqi_safetensors_write(w, f16_data, sizeof f16_data);
    eqi_safetensors_write(w, bf16_data, sizeof bf16_data);
    eqi_safetensors_write(w, "xyz", 3);
    return eqi_safetensors_close(w);
}

static eqat_status read_sample(const char *path)
{
    eqi_source *s;
    EQI_RETURN_IF(eqi_source_open_safetensors_file(ctx, &s, path));
    eqi_source_close(s);
    return EQAT_OK;
}

START_TEST(round_trip)
{
    const char *path = scratch("model.safetensors");
    OK(ctx, write_sample(path));
    eqi_source *s;
    OK(ctx, eqi_source_open_safetensors(ctx, &s, dir));
    ck_assert_uint_eq(eqi_source_count(s), 8);
    ck_assert_str_eq(eqi_source_metadata(s, "format"), "pt");
    ck_assert_str_eq(eqi_source_metadata(s, "quote"), "a \"b\" \\ \n \xc3\xa9");
    ck_assert_ptr_null(eqi_source_metadata(s, "nothing"));
    ck_assert_str_eq(eqi_source_path(s, 0), path);
    ck_assert_ptr_null(eqi_source_path(s, 1));
    ck_assert_ptr_null(eqi_source_find(s, "nothing"));
    ck_assert_ptr_null(eqi_source_at(s, 8));
    ck_assert_str_eq(eqi_source_at(s, 0)->name, "wide");
    ck_assert_str_eq(eqi_source_at(s, 7)->name, "bytes");

    float got[8];
    const eqi_source_entry *e = eqi_source_find(s, "matrix");
    ck_assert(e->stored == EQI_STORED_F32 && e->ndim == 2 && e->shape[0] == 2 && e->shape[1] == 3);
    ck_assert(e->elements == 6 && e->bytes == 24 && e->file == 0 && e->offset % 8 == 0);
    OK(ctx, eqi_source_read_f32(s, e, 0, 6, got));
    ck_assert_mem_eq(got, f32_data, sizeof f32_data);
    OK(ctx, eqi_source_read_f32(s, e, 2, 3, got));
    ck_assert_mem_eq(got, f32_data + 2, 12);
    OK(ctx, eqi_source_read_f32(s, e, 6, 0, got));
    says(ctx, eqi_source_read_f32(s, e, 4, 3, got), EQAT_INVALID_ARGUMENT, "matrix");
    says(ctx, eqi_source_read_f32(s, e, -1, 1, got), EQAT_INVALID_ARGUMENT, "matrix");
    says(ctx, eqi_source_read_f32(s, e, INT64_MAX, INT64_MAX, got), EQAT_INVALID_ARGUMENT,
         "matrix");
    says(ctx, eqi_source_read_raw(s, e, UINT64_MAX, 2, got), EQAT_INVALID_ARGUMENT, "matrix");

    e = eqi_source_find(s, "half");
    OK(ctx, eqi_source_read_f32(s, e, 0, 4, got));
    for (int i = 0; i < 4; i++) ck_assert_uint_eq(eqi_f32_to_f16(got[i]), f16_data[i]);
    OK(ctx, eqi_source_read_f32(s, e, 1, 1, got));
    ck_assert_uint_eq(eqi_f32_to_f16(got[0]), f16_data[1]);
    OK(ctx, eqi_source_read_f32(s, eqi_source_find(s, "brain \xc3\xa9"), 0, 2, got));
    ck_assert(got[0] == 1 && got[1] == -100);
    OK(ctx, eqi_source_read_f32(s, eqi_source_find(s, "wide"), 0, 2, got));
    ck_assert(got[0] == 0.1f && got[1] == -HUGE_VALF);
    e = eqi_source_find(s, "scalar");
    ck_assert(e->ndim == 0 && e->elements == 1);
    OK(ctx, eqi_source_read_f32(s, e, 0, 1, got));
    ck_assert(got[0] == f32_data[1]);
    ck_assert_int_eq(eqi_source_find(s, "empty")->elements, 0);
    e = eqi_source_find(s, "codes");
    says(ctx, eqi_source_read_f32(s, e, 0, 1, got), EQAT_FORMAT, "found type I32");
    int32_t raw[3];
    OK(ctx, eqi_source_read_raw(s, e, 0, sizeof raw, raw));
    ck_assert_mem_eq(raw, i32_data, sizeof raw);
    char text[2];
    OK(ctx, eqi_source_read_raw(s, eqi_source_find(s, "bytes"), 1, 2, text));
    ck_assert_mem_eq(text, "yz", 2);
    eqi_source_close(s);
}
END_TEST

START_TEST(long_reads)
{
    enum { N = 5000 };
    static uint16_t half[N];
    static float got[N + 2];
    for (int i = 0; i < N; i++) half[i] = (uint16_t)(i * 7 % 0x7c00);
    const char *path = scratch("long.safetensors");
    const int64_t shape[] = {N};
    eqi_safetensors_writer *w;
    OK(ctx, eqi_safetensors_create(ctx, &w, path));
    OK(ctx, eqi_safetensors_declare(w, "x", EQI_STORED_F16, 1, shape));
    OK(ctx, eqi_safetensors_write(w, half, sizeof half));
    OK(ctx, eqi_safetensors_close(w));
    eqi_source *s;
    OK(ctx, eqi_source_open_safetensors_file(ctx, &s, path));
    for (int64_t n = N - 3; n <= N; n++) {
        got[n] = got[n + 1] = 42;
        OK(ctx, eqi_source_read_f32(s, eqi_source_at(s, 0), N - n, n, got));
        for (int64_t i = 0; i < n; i++) ck_assert(got[i] == eqi_f16_to_f32(half[N - n + i]));
        ck_assert(got[n] == 42);
    }
    eqi_source_close(s);
}
END_TEST

/* Readers that look at the file in place need that. */
START_TEST(every_tensor_starts_at_a_multiple_of_its_elements)
{
    const int64_t odd[] = {3}, two[] = {2}, none[] = {0};
    static const struct {
        const char *name;
        eqi_stored stored;
    } tensors[] = {{"bytes", EQI_STORED_U8},
                   {"words", EQI_STORED_I32},
                   {"halves", EQI_STORED_F16},
                   {"none", EQI_STORED_F32},
                   {"wide", EQI_STORED_I64}};
    const int64_t *shapes[] = {odd, odd, odd, none, two};
    const unsigned char data[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    const char *path = scratch("odd.safetensors");
    eqi_safetensors_writer *w;
    OK(ctx, eqi_safetensors_create(ctx, &w, path));
    for (int i = 0; i < 5; i++)
        OK(ctx, eqi_safetensors_declare(w, tensors[i].name, tensors[i].stored, 1, shapes[i]));
    OK(ctx, eqi_safetensors_write(w, data, 10));
    OK(ctx, eqi_safetensors_write(w, data + 10, 27));
    OK(ctx, eqi_safetensors_close(w));
    eqi_source *s;
    OK(ctx, eqi_source_open_safetensors_file(ctx, &s, path));
    uint64_t at = 0;
    for (int i = 0; i < 5; i++) {
        const eqi_source_entry *e = eqi_source_find(s, tensors[i].name);
        unsigned char found[16];
        ck_assert_uint_eq(e->offset % eqi_stored_bytes(e->stored, 1), 0);
        OK(ctx, eqi_source_read_raw(s, e, 0, (size_t)e->bytes, found));
        ck_assert_mem_eq(found, data + at, (size_t)e->bytes);
        at += e->bytes;
    }
    ck_assert_uint_eq(at, 37);
    eqi_source_close(s);
}
END_TEST

START_TEST(writer_misuse)
{
    const int64_t three[] = {3}, negative[] = {-1}, huge[] = {INT64_MAX / 4, 8};
    eqi_safetensors_writer *w;
    const char *path = scratch("bad.safetensors");
#define BEGIN() OK(ctx, eqi_safetensors_create(ctx, &w, path))
#define GONE() ck_assert(!eqi_path_exists(path))
    BEGIN();
    OK(ctx, eqi_safetensors_declare(w, "x", EQI_STORED_U8, 1, three));
    says(ctx, eqi_safetensors_close(w), EQAT_INVALID_ARGUMENT,
         "found 0 bytes of data, expected the declared 3");
    GONE();
    BEGIN();
    OK(ctx, eqi_safetensors_declare(w, "x", EQI_STORED_U8, 1, three));
    says(ctx, eqi_safetensors_write(w, "abcd", 4), EQAT_INVALID_ARGUMENT,
         "more than the declared 3");
    ck_assert_int_eq(eqi_safetensors_close(w), EQAT_INVALID_ARGUMENT);
    GONE();
    BEGIN();
    OK(ctx, eqi_safetensors_declare(w, "x", EQI_STORED_U8, 1, three));
    says(ctx, eqi_safetensors_declare(w, "x", EQI_STORED_U8, 1, three), EQAT_INVALID_ARGUMENT,
         "'x'");
    says(ctx, eqi_safetensors_declare(w, "__metadata__", EQI_STORED_U8, 1, three),
         EQAT_INVALID_ARGUMENT, "reserved");
    says(ctx, eqi_safetensors_declare(w, "y", EQI_STORED_Q4_0, 1, three), EQAT_INVALID_ARGUMENT,
         "cannot hold Q4_0");
    says(ctx, eqi_safetensors_declare(w, "y", EQI_STORED_U8, 1, negative), EQAT_FORMAT,
         "dimension -1");
    says(ctx, eqi_safetensors_declare(w, "y", EQI_STORED_U8, 2, huge), EQAT_FORMAT, "overflows");
    says(ctx, eqi_safetensors_declare(w, "\xff", EQI_STORED_U8, 1, three), EQAT_INVALID_ARGUMENT,
         "UTF-8");
    says(ctx, eqi_safetensors_metadata(w, "key", "\xff"), EQAT_INVALID_ARGUMENT, "UTF-8");
    says(ctx, eqi_safetensors_metadata(w, "\xff", "x"), EQAT_INVALID_ARGUMENT, "UTF-8");
    ck_assert_int_eq(eqi_safetensors_write(w, "abc", 3), EQAT_INVALID_ARGUMENT);
    ck_assert_int_eq(eqi_safetensors_close(w), EQAT_INVALID_ARGUMENT);
    GONE();
    BEGIN();
    OK(ctx, eqi_safetensors_declare(w, "x", EQI_STORED_U8, 1, three));
    OK(ctx, eqi_safetensors_write(w, "a", 1));
    says(ctx, eqi_safetensors_declare(w, "y", EQI_STORED_U8, 1, three), EQAT_INVALID_ARGUMENT,
         "after the first write");
    says(ctx, eqi_safetensors_metadata(w, "y", "z"), EQAT_INVALID_ARGUMENT,
         "after the first write");
    eqi_safetensors_discard(w);
    GONE();
    eqi_safetensors_discard(NULL);
    write_file(path, "", 0);
    says(ctx, eqi_safetensors_create(ctx, &w, path), EQAT_EXISTS, "bad.safetensors");
    says(ctx, eqi_safetensors_create(ctx, &w, scratch("no/such/folder")), EQAT_NOT_FOUND,
         "no/such/folder");
}
END_TEST

static const struct {
    const char *header;
    size_t data;
    eqat_status status;
    const char *message;
} hostile[] = {
    {"{}", 0, EQAT_OK, ""},
    {"{}      ", 0, EQAT_OK, ""},
    {"{}", 1, EQAT_FORMAT, "found 1 bytes of data, expected 0"},
    {"", 0, EQAT_FORMAT, "JSON"},
    {"[]", 0, EQAT_FORMAT, "expected an object"},
    {"{\"a\"", 0, EQAT_FORMAT, "damaged JSON"},
    {"{\"a\":1}", 0, EQAT_FORMAT, "'a'"},
    {"{\"a\":{}}", 0, EQAT_FORMAT, "'a'"},
    {"{\"__metadata__\":[]}", 0, EQAT_FORMAT, "__metadata__"},
    {"{\"__metadata__\":{\"a\":1}}", 0, EQAT_FORMAT, "__metadata__ 'a'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, EQAT_OK, ""},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, EQAT_FORMAT,
     "truncated"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 9, EQAT_FORMAT,
     "found 9 bytes of data, expected 8"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 8, EQAT_FORMAT,
     "data_offsets of 4 bytes, expected 8"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, EQAT_FORMAT,
     "not a range"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, EQAT_FORMAT,
     "not a range"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8.0]}}", 8, EQAT_FORMAT,
     "not a range"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, EQAT_FORMAT,
     "two data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9223372036854775807]}}", 8,
     EQAT_FORMAT, "truncated"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,99223372036854775807]}}", 8,
     EQAT_FORMAT, "JSON"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, EQAT_FORMAT,
     "dimension -2"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, EQAT_FORMAT,
     "dimension 0 is not an integer"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,8]}}", 8,
     EQAT_FORMAT, "overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387906],\"data_offsets\":[0,8]}}", 8,
     EQAT_FORMAT, "overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,9223372036854775807],\"data_offsets\":[0,0]}}", 0,
     EQAT_OK, ""},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,2],\"data_offsets\":[0,8]}}", 8,
     EQAT_UNSUPPORTED, "5 dimensions"},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, EQAT_UNSUPPORTED,
     "type F4"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\","
     "\"shape\":[1],\"data_offsets\":["
     "4,8]}}",
     8, EQAT_FORMAT, "duplicate"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\","
     "\"shape\":[1],\"data_offsets\":["
     "0,4]}}",
     8, EQAT_FORMAT, "overlap"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\","
     "\"shape\":[2],\"data_offsets\":[3,"
     "5]}}",
     6, EQAT_FORMAT, "overlap"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"F32\","
     "\"shape\":[1],\"data_offsets\":["
     "8,12]}}",
     12, EQAT_FORMAT, "found 12 bytes of data, expected 8"},
};

START_TEST(hostile_headers)
{
    bytes b = {0};
    put_u64(&b, strlen(hostile[_i].header));
    put(&b, hostile[_i].header, strlen(hostile[_i].header));
    put_zeros(&b, hostile[_i].data);
    const char *path = scratch("hostile.safetensors");
    write_file(path, b.p, b.n);
    free(b.p);
    if (hostile[_i].status == EQAT_OK) {
        OK(ctx, read_sample(path));
    } else {
        says(ctx, read_sample(path), hostile[_i].status, hostile[_i].message);
        ck_assert_ptr_nonnull(strstr(ctx->error, "hostile.safetensors"));
    }
}
END_TEST

START_TEST(hostile_lengths)
{
    const char *path = scratch("short.safetensors");
    bytes b = {0};
    put_u64(&b, 2);
    put(&b, "{}", 2);
    for (size_t n = 0; n < b.n; n++) {
        write_file(path, b.p, n);
        says(ctx, read_sample(path), EQAT_FORMAT, "short.safetensors");
    }
    const uint64_t lengths[] = {3, 1u << 30, UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63};
    for (size_t i = 0; i < EQI_COUNT(lengths); i++) {
        memcpy(b.p, &lengths[i], 8);
        write_file(path, b.p, b.n);
        says(ctx, read_sample(path), EQAT_FORMAT, "header of");
    }
    b.n = 0;
    put_u64(&b, 100000);
    for (int i = 0; i < 100000; i++) put(&b, "[", 1);
    write_file(path, b.p, b.n);
    says(ctx, read_sample(path), EQAT_FORMAT, "JSON");
    free(b.p);
    says(ctx, read_sample(scratch("missing")), EQAT_NOT_FOUND, "missing");
    says(ctx, read_sample(dir), EQAT_IO, "regular file");
}
END_TEST

/* Every truncation and every changed byte of a good file is an error or a readable file, and
 * nothing else. */
START_TEST(damaged_anywhere)
{
    const char *path = scratch("sample.safetensors");
    OK(ctx, write_sample(path));
    char *text;
    size_t size;
    OK(ctx, eqi_file_slurp(ctx, path, 1 << 20, &text, &size));
    const char *damaged = scratch("damaged.safetensors");
    for (size_t n = 0; n < size; n++) {
        write_file(damaged, text, n);
        says(ctx, read_sample(damaged), EQAT_FORMAT, "damaged.safetensors");
    }
    for (size_t i = 0; i < size; i++) {
        const char was = text[i];
        for (int k = 0; k < 3; k++) {
            text[i] = k == 0 ? (char)(was + 1) : k == 1 ? '9' : (char)0xff;
            write_file(damaged, text, size);
            ctx->error[0] = 0;
            if (read_sample(damaged) != EQAT_OK)
                ck_assert_ptr_nonnull(strstr(ctx->error, "damaged.safetensors"));
        }
        text[i] = was;
    }
    eqi_free(ctx, text);
}
END_TEST

static void write_shard(const char *name, const char *tensor, float value)
{
    const int64_t one[] = {1};
    eqi_safetensors_writer *w;
    OK(ctx, eqi_safetensors_create(ctx, &w, scratch(name)));
    OK(ctx, eqi_safetensors_metadata(w, "format", "pt"));
    OK(ctx, eqi_safetensors_declare(w, tensor, EQI_STORED_F32, 1, one));
    OK(ctx, eqi_safetensors_write(w, &value, 4));
    OK(ctx, eqi_safetensors_close(w));
}

static eqat_status open_with_index(const char *index)
{
    write_file(scratch("model.safetensors.index.json"), index, strlen(index));
    eqi_source *s;
    EQI_RETURN_IF(eqi_source_open_safetensors(ctx, &s, dir));
    float a, b;
    ck_assert_uint_eq(eqi_source_count(s), 2);
    ck_assert_ptr_null(eqi_source_metadata(s, "format"));
    OK(ctx, eqi_source_read_f32(s, eqi_source_find(s, "a"), 0, 1, &a));
    OK(ctx, eqi_source_read_f32(s, eqi_source_find(s, "b"), 0, 1, &b));
    ck_assert(a == 1 && b == 2);
    eqi_source_close(s);
    return EQAT_OK;
}

static const char good_index[] =
    "{\"metadata\":{},\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}}";

START_TEST(shards)
{
    says(ctx, open_with_index(good_index), EQAT_NOT_FOUND, "one.safetensors");
    write_shard("one.safetensors", "a", 1);
    says(ctx, open_with_index(good_index), EQAT_NOT_FOUND, "two.safetensors");
    write_shard("two.safetensors", "b", 2);
    OK(ctx, open_with_index(good_index));
    says(ctx,
         open_with_index("{\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\","
                         "\"c\":\"one.safetensors\"}}"),
         EQAT_FORMAT, "tensor 'c': not found in one.safetensors");
    says(ctx,
         open_with_index("{\"weight_map\":{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}}"),
         EQAT_FORMAT, "found in one.safetensors, expected in two.safetensors");
    says(ctx, open_with_index("{\"weight_map\":{\"a\":1}}"), EQAT_FORMAT, "not a string");
    says(ctx, open_with_index("{\"weight_map\":{}}"), EQAT_FORMAT, "weight_map");
    says(ctx, open_with_index("{}"), EQAT_FORMAT, "weight_map");
    says(ctx, open_with_index("{"), EQAT_FORMAT, "index.json");
    const char *const names[] = {"../one.safetensors",
                                 "/etc/passwd",
                                 "sub/one.safetensors",
                                 "",
                                 ".",
                                 "..",
                                 "a\\\\b",
                                 ".hidden"};
    for (size_t i = 0; i < EQI_COUNT(names); i++) {
        char index[256];
        snprintf(index, sizeof index, "{\"weight_map\":{\"a\":\"%s\"}}", names[i]);
        says(ctx, open_with_index(index), EQAT_FORMAT, "same folder");
    }
    ck_assert_int_eq(truncate(scratch("two.safetensors"), 90), 0);
    says(ctx, open_with_index(good_index), EQAT_FORMAT, "two.safetensors");
    unlink(scratch("two.safetensors"));
    write_shard("two.safetensors", "a", 1);
    says(ctx, open_with_index(good_index), EQAT_FORMAT, "tensor 'a': found also in");
}
END_TEST

START_TEST(folders)
{
    eqi_source *s;
    says(ctx, eqi_source_open_safetensors(ctx, &s, dir), EQAT_NOT_FOUND,
         "model.safetensors.index.json");
    says(ctx, eqi_source_open_safetensors(ctx, &s, scratch("missing")), EQAT_NOT_FOUND, "missing");
    ck_assert_ptr_null(s);
    eqi_source_close(NULL);
}
END_TEST

START_TEST(allocation_failures)
{
    const char *path = scratch("sample.safetensors"), *again = scratch("again.safetensors");
    OK(ctx, write_sample(path));
    write_shard("one.safetensors", "a", 1);
    write_shard("two.safetensors", "b", 2);
    write_file(scratch("model.safetensors.index.json"), good_index, strlen(good_index));
    size_t live = memory.live;
    for (int i = 0; i < 6; i++) {
        const int what = i % 3;
        count_json(i >= 3 ? &memory : NULL);
        eqat_status st = EQAT_OUT_OF_MEMORY;
        long n = 0;
        for (; st != EQAT_OK; n++) {
            ck_assert_int_lt(n, 10000);
            eqi_source *s = NULL;
            refuse_after(n);
            st = what == 0  ? read_sample(path)
                : what == 1 ? eqi_source_open_safetensors(ctx, &s, dir)
                            : write_sample(again);
            refuse_after(-1);
            eqi_source_close(s);
            ck_assert_msg(st == EQAT_OK || st == EQAT_OUT_OF_MEMORY ||
                              (json_counts() && strstr(ctx->error, "JSON")),
                          "%s", ctx->error);
            ck_assert_uint_eq(memory.live, live);
            if (what == 2) ck_assert(eqi_path_exists(again) == (st == EQAT_OK));
        }
        ck_assert_int_gt(n, 3);
        if (what == 2) {
            OK(ctx, read_sample(again));
            unlink(again);
        }
    }
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("safetensors");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, round_trip);
    tcase_add_test(c, long_reads);
    tcase_add_test(c, every_tensor_starts_at_a_multiple_of_its_elements);
    tcase_add_test(c, writer_misuse);
    tcase_add_loop_test(c, hostile_headers, 0, EQI_COUNT(hostile));
    tcase_add_test(c, hostile_lengths);
    tcase_add_test(c, damaged_anywhere);
    tcase_add_test(c, shards);
    tcase_add_test(c, folders);
    tcase_add_test(c, allocation_failures);
    return run_case("safetensors", c, CK_FORK_GETENV);
}
