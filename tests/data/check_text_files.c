#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibration.h"

/* a is 0, b is 1, ...; "<s>" (6) stands in front of every text. */
static const char tokenizer_json[] =
    "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
    "\"added_tokens\":[{\"id\":6,\"content\":\"<s>\",\"single_word\":false,\"lstrip\":false,"
    "\"rstrip\":false,"
    "\"normalized\":false,\"special\":true}],"
    "\"normalizer\":null,"
    "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
    "\"use_regex\":true},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\","
    "\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\","
    "\"type_id\":0}}],"
    "\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"Sequence\":{\"id\":\"B\",\"type_id\":"
    "1}}],"
    "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[6],\"tokens\":[\"<s>\"]}}},"
    "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_"
    "regex\":true},"
    "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":"
    "null,"
    "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,"
    "\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"d\":3,\"\\u010a\":4,\"\\u0120\":5},\"merges\":[]}}";

static eqat_tokenizer *open_tokenizer(void)
{
    eqat_tokenizer *t;
    OK(ctx,
       eqat_tokenizer_open(
           ctx, &t,
           write_file(scratch("tokenizer.json"), tokenizer_json, sizeof tokenizer_json - 1)));
    return t;
}

static void expect_text(const eqat_tokenizer *t, const char *path, size_t count,
                        const int32_t *expected)
{
    const eqat_data_options o = options(1, 0, (int64_t)count, EQAT_SAMPLING_CONSECUTIVE);
    eqat_data *d;
    int32_t ids[64];
    OK(ctx, eqat_data_open(ctx, &d, path, t, 10, &o));
    ck_assert_int_eq(eqat_data_token_count(d), (int64_t)count);
    OK(ctx, ids_of(d, false, 0, ids));
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(ids[i] == expected[i], "%s: token %d: found %d", path, (int)i, ids[i]);
    eqat_data_free(d);
}

START_TEST(text_files)
{
    eqat_tokenizer *t = open_tokenizer();
    static const char plain[] = "ab\ncd";
    static const char lines[] = "{\"text\": \"ab\\nc\", \"n\": 1}\n\n  \r\n{\"text\": "
                                "\"\"}\n{\"n\": [2], \"text\": \"<s>d\"}";
    expect_text(t, write_file(scratch("plain.txt"), plain, sizeof plain - 1), 6,
                (int32_t[]){6, 0, 1, 4, 2, 3});
    expect_text(t, write_file(scratch("lines.jsonl"), lines, sizeof lines - 1), 9,
                (int32_t[]){6, 0, 1, 4, 2, 6, 6, 6, 3});
    /* lines longer than a piece of the file, and lines that end with one */
    enum { LONG = 200000 };
    char *text = malloc(3 * LONG);
    ck_assert_ptr_nonnull(text);
    for (size_t first = 65536 - 15; first <= 65536 - 10; first++) {
        size_t n = (size_t)sprintf(text, "{\"text\": \"");
        memset(text + n, 'b', first);
        n += first;
        n += (size_t)sprintf(text + n, "\"}\n{\"text\": \"");
        memset(text + n, 'c', LONG);
        n += LONG;
        n += (size_t)sprintf(text + n, "\"}\n");
        eqat_data_options o = options(0, 0, 1, EQAT_SAMPLING_CONSECUTIVE);
        eqat_data *d;
        OK(ctx, eqat_data_open(ctx, &d, write_file(scratch("long.jsonl"), text, n), t, 10, &o));
        ck_assert_int_eq(eqat_data_token_count(d), (int64_t)(first + LONG + 2));
        int32_t id;
        OK(ctx, ids_of(d, false, (int64_t)first + 1, &id));
        ck_assert_int_eq(id, 6);
        OK(ctx, ids_of(d, false, (int64_t)first + LONG + 1, &id));
        ck_assert_int_eq(id, 2);
        eqat_data_free(d);
    }
    free(text);
    eqat_tokenizer_free(t);
}
END_TEST

START_TEST(bad_text_files)
{
    eqat_tokenizer *t = open_tokenizer();
    static const char broken[] = "{\"text\": \"ab\"}\n{\"text\": \"ab\"\n",
                      other[] = "{\"text\": \"ab\"}\n\n{\"txt\": \"ab\"}\n",
                      number[] = "{\"text\": 3}", list[] = "[1]", bytes[] = "{\"text\": \"\xff\"}";
    refuse(write_file(scratch("empty.txt"), "", 0), t, 10, EQAT_FORMAT,
           "found 0 tokens, expected at least 2");
    refuse(write_file(scratch("empty.jsonl"), "\n\n", 2), t, 10, EQAT_FORMAT,
           "found 0 tokens, expected at least 2");
    refuse(write_file(scratch("broken.jsonl"), broken, sizeof broken - 1), t, 10, EQAT_FORMAT,
           "line 2, byte 13");
    refuse(write_file(scratch("other.jsonl"), other, sizeof other - 1), t, 10, EQAT_FORMAT,
           "line 3: found no \"text\"");
    refuse(write_file(scratch("number.jsonl"), number, sizeof number - 1), t, 10, EQAT_FORMAT,
           "line 1: found a \"text\" that is no string");
    refuse(write_file(scratch("list.jsonl"), list, sizeof list - 1), t, 10, EQAT_FORMAT,
           "line 1: found something else than an object");
    refuse(write_file(scratch("bytes.jsonl"), bytes, sizeof bytes - 1), t, 10, EQAT_FORMAT,
           "line 1, byte");
    refuse(write_file(scratch("vocab.txt"), "abcd", 4), t, 3, EQAT_FORMAT,
           "token 0: found id 6, expected 0 to 2");
    refuse(scratch("missing.jsonl"), t, 10, EQAT_NOT_FOUND, "cannot open");
    eqat_tokenizer_free(t);
}
END_TEST

static void takes(eqat_tokenizer *t, const char *name, const void *data, size_t n, int64_t tokens)
{
    eqat_data *d;
    eqat_data_options o = options(0, 0, 1, EQAT_SAMPLING_CONSECUTIVE);
    OK(ctx, eqat_data_open(ctx, &d, write_file(scratch(name), data, n), t, 10, &o));
    ck_assert_int_eq(eqat_data_token_count(d), tokens);
    eqat_data_free(d);
}

/* What users bring in place of UTF-8 and of one object a line. */
START_TEST(text_of_another_kind)
{
    eqat_tokenizer *t = open_tokenizer();
    static const char mark[] = "\xef\xbb\xbf{\"text\": \"ab\"}\n",
                      numbers[] = "{\"text\": \"ab\", \"x\": NaN, \"y\": [-Infinity, Infinity]}\n"
                                  "{\"x\": NaN, \"s\": \"NaN \\\" NaN\", \"text\": \"abc\"}\n",
                      pretty[] = "[\n  {\n    \"text\": \"ab\"\n  }\n]\n",
                      object[] = "{ \r\n  \"text\": \"ab\"\n}\n", nan[] = "{\"text\": NaN}\n",
                      latin[] = "ab\xe9"
                                "cd";
    takes(t, "mark.jsonl", mark, sizeof mark - 1, 3);
    takes(t, "numbers.jsonl", numbers, sizeof numbers - 1, 7);
    ck_assert_str_eq(logged, "");
    refuse(write_file(scratch("pretty.jsonl"), pretty, sizeof pretty - 1), t, 10, EQAT_FORMAT,
           "line 1: found an array, expected JSON Lines: one object a line");
    refuse(write_file(scratch("object.jsonl"), object, sizeof object - 1), t, 10, EQAT_FORMAT,
           "line 1: found an object over several lines, expected JSON Lines");
    refuse(write_file(scratch("nan.jsonl"), nan, sizeof nan - 1), t, 10, EQAT_FORMAT,
           "line 1: found a \"text\" that is no string");
    refuse(write_file(scratch("wide.txt"),
                      "\xff\xfe"
                      "a\0b\0",
                      6),
           t, 10, EQAT_FORMAT, "wide.txt: found UTF-16, expected text in UTF-8");
    refuse(write_file(scratch("big.txt"), "\xfe\xff\0a\0b", 6), t, 10, EQAT_FORMAT, "UTF-16");
    refuse(write_file(scratch("program.txt"),
                      "\x7f"
                      "ELF\2\1\1\0\0",
                      9),
           t, 10, EQAT_FORMAT, "program.txt: found binary data, expected text in UTF-8");
    ck_assert_str_eq(logged, "");
    eqat_data *d;
    eqat_data_options o = options(0, 0, 1, EQAT_SAMPLING_CONSECUTIVE);
    (void)eqat_data_open(ctx, &d, write_file(scratch("latin.txt"), latin, sizeof latin - 1), t, 0,
                         &o);
    ck_assert_ptr_nonnull(strstr(logged, "latin.txt: byte 2: found what is not UTF-8"));
    eqat_data_free(d);
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n";
    refuse(write_file(scratch("lfs.jsonl"), pointer, sizeof pointer - 1), t, 10, EQAT_FORMAT,
           "lfs.jsonl: found a Git-LFS pointer");
    eqat_tokenizer_free(t);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_checked_fixture(tc, listen, NULL);
    tcase_add_test(tc, text_files);
    tcase_add_test(tc, bad_text_files);
    tcase_add_test(tc, text_of_another_kind);
    return run_case("text files", tc, CK_NOFORK);
}
