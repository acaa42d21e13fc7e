#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calibration.h"

enum { COUNT = 70001 }; /* more than one piece of a file */

static void little_endian(unsigned char *p, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++) p[i] = (unsigned char)(value >> 8 * i);
}

/* Ids 7 i mod 60000 behind `head`, `size` bytes each. */
static const char *write_tokens(const char *name, const char *head, size_t head_size, size_t size,
                                int64_t count)
{
    unsigned char *bytes = malloc(head_size + (size_t)count * size + 1);
    ck_assert_ptr_nonnull(bytes);
    if (head_size) memcpy(bytes, head, head_size);
    for (int64_t i = 0; i < count; i++)
        little_endian(bytes + head_size + (size_t)i * size, (uint64_t)(7 * i % 60000), size);
    const char *path = write_file(scratch(name), bytes, head_size + (size_t)count * size);
    free(bytes);
    return path;
}

static void expect_tokens(const char *path)
{
    eqat_data_options o = options(0, 0, 1000, EQAT_SAMPLING_CONSECUTIVE);
    eqat_data *d;
    size_t before = eqat_context_bytes(ctx);
    OK(ctx, eqat_data_open(ctx, &d, path, NULL, 60000, &o));
    ck_assert_int_eq(eqat_data_token_count(d), COUNT);
    ck_assert_int_eq(eqat_data_train_size(d), COUNT / 1000);
    ck_assert_uint_lt(eqat_context_bytes(ctx) - before, 1 << 17); /* the file stays where it is */
    int32_t ids[1000];
    for (int64_t w = 0; w < COUNT / 1000; w++) {
        OK(ctx, ids_of(d, false, w, ids));
        for (int64_t i = 0; i < 1000; i++) ck_assert_int_eq(ids[i], 7 * (1000 * w + i) % 60000);
    }
    eqat_data_free(d);
    ck_assert_uint_eq(eqat_context_bytes(ctx), before);
}

/* A header as numpy.save writes it. */
static size_t npy_header(char *head, int version, const char *dictionary)
{
    size_t prefix = version == 1 ? 10 : 12, n = strlen(dictionary),
           total = (prefix + n + 1 + 63) / 64 * 64;
    memset(head, ' ', total);
    memcpy(head, "\x93NUMPY", 6);
    head[6] = (char)version;
    head[7] = 0;
    little_endian((unsigned char *)head + 8, total - prefix, version == 1 ? 2 : 4);
    memcpy(head + prefix, dictionary, n);
    head[total - 1] = '\n';
    return total;
}

START_TEST(token_files)
{
    expect_tokens(write_tokens("raw.u16", NULL, 0, 2, COUNT));
    expect_tokens(write_tokens("raw.u32", NULL, 0, 4, COUNT));
    static const struct {
        const char *descr;
        size_t size;
    } types[] = {{"<u2", 2}, {"<u4", 4}, {"<i4", 4}, {"<i8", 8}};
    for (int version = 1; version <= 3; version++)
        for (size_t i = 0; i < 4; i++) {
            char head[256], dictionary[128];
            snprintf(dictionary, sizeof dictionary,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (%d,), }", types[i].descr,
                     COUNT);
            expect_tokens(write_tokens("array.npy", head, npy_header(head, version, dictionary),
                                       types[i].size, COUNT));
        }
}
END_TEST

START_TEST(bad_token_files)
{
    char head[256];
    refuse(scratch("missing.u16"), NULL, 0, EQAT_NOT_FOUND, "cannot open");
    refuse(write_file(scratch("other.bin"), "abcd", 4), NULL, 0, EQAT_INVALID_ARGUMENT,
           "expected .txt, .jsonl, .npy, .u16 or .u32");
    refuse(write_file(scratch("text.txt"), "abcd", 4), NULL, 0, EQAT_INVALID_ARGUMENT,
           "no tokenizer");
    refuse(write_file(scratch("empty.u16"), "", 0), NULL, 0, EQAT_FORMAT,
           "found 0 tokens, expected at least 2");
    refuse(write_file(scratch("odd.u16"), "abcde", 5), NULL, 0, EQAT_FORMAT,
           "found 5 bytes, expected a multiple of 2");
    refuse(write_file(scratch("odd.u32"), "abcdef", 6), NULL, 0, EQAT_FORMAT,
           "found 6 bytes, expected a multiple of 4");
    refuse(write_tokens("high.u16", NULL, 0, 2, COUNT), NULL, 59997, EQAT_FORMAT,
           "token 8571: found id 59997, expected 0 to 59996");
    refuse(write_file(scratch("wide.u32"), "\0\0\0\0\0\0\0\x80", 8), NULL, 0, EQAT_FORMAT,
           "token 1: found id 2147483648, expected 0 to 2147483647");
    refuse(write_file(scratch("none.npy"), "", 0), NULL, 0, EQAT_FORMAT, "no NumPy header");
    refuse(write_file(scratch("magic.npy"), "\x93NUMPX\1\0\0\0\0\0\0", 14), NULL, 0, EQAT_FORMAT,
           "no NumPy header");
    refuse(write_file(scratch("version.npy"), "\x93NUMPY\4\0\0\0\0\0\0", 14), NULL, 0, EQAT_FORMAT,
           "no NumPy header");
    refuse(write_file(scratch("length.npy"), "\x93NUMPY\1\0\xff\x7f\0\0\0", 13), NULL, 0,
           EQAT_FORMAT, "header of 32767 bytes");
    refuse(write_file(scratch("long.npy"), "\x93NUMPY\2\0\xff\xff\xff\xff\0", 13), NULL, 0,
           EQAT_FORMAT, "header of 4294967295 bytes");
    static const struct {
        const char *dictionary, *expected;
    } cases[] = {
        {"{'fortran_order': False, 'shape': (3,), }", "without descr"},
        {"{'descr': '<u2', 'shape': (3,), }", "without fortran_order"},
        {"{'descr': '<u2', 'fortran_order': False}", "without shape"},
        {"{'descr': '>u2', 'fortran_order': False, 'shape': (3,), }",
         "found dtype '>u2', expected '<u2', '<u4', '<i4' or '<i8'"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "found dtype '<f4'"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (3, 1), }", "found shape (3, 1)"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (), }", "found shape ()"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (-3,), }", "found shape (-3,)"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': 3, }", "found shape 3"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (4,), }",
         "found 6 bytes behind the header, expected 4 tokens of 2 bytes"},
        {"{'descr': '<u2', 'fortran_order': False, 'shape': (2,), }",
         "found 6 bytes behind the header, expected 2 tokens of 2 bytes"},
        {"{'descr'", "without descr"},
        {"{'shape': (3,), 'fortran_order': False, 'descr': ", "found dtype"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t n = npy_header(head, 1, cases[i].dictionary);
        refuse(write_tokens("case.npy", head, n, 2, 3), NULL, 0, EQAT_FORMAT, cases[i].expected);
    }
    size_t n = npy_header(head, 1, "{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }");
    memset(head + n, 0xff, 8);
    refuse(write_file(scratch("negative.npy"), head, n + 8), NULL, 0, EQAT_FORMAT,
           "token 0: found id -1, expected 0 to 2147483647");
}
END_TEST

START_TEST(a_file_that_changes)
{
    const eqat_data_options o = options(0, 0, 1000, EQAT_SAMPLING_CONSECUTIVE);
    eqat_data *d;
    int32_t ids[1000];
    const char *path = write_tokens("changes.u16", NULL, 0, 2, 5000);
    OK(ctx, eqat_data_open(ctx, &d, path, NULL, 60000, &o));
    FILE *f = fopen(path, "r+b");
    ck_assert_ptr_nonnull(f);
    fseek(f, 2 * 1500, SEEK_SET);
    fwrite("\xff\xff", 1, 2, f);
    fclose(f);
    ck_assert_int_eq(ids_of(d, false, 1, ids), EQAT_FORMAT);
    ck_assert_ptr_nonnull(
        strstr(eqat_context_error(ctx), "token 1500: found id 65535, expected 0 to 59999"));
    ck_assert_int_eq(truncate(path, 100), 0);
    ck_assert_int_eq(ids_of(d, false, 4, ids), EQAT_FORMAT);
    ck_assert_ptr_nonnull(strstr(eqat_context_error(ctx), "truncated"));
    eqat_data_free(d);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_checked_fixture(tc, listen, NULL);
    tcase_add_test(tc, token_files);
    tcase_add_test(tc, bad_token_files);
    tcase_add_test(tc, a_file_that_changes);
    return run_case("token files", tc, CK_NOFORK);
}
