/* Allocations that fail, bytes that are no text, handles that outlive their context. */
#include <sys/stat.h>

#include "engine/engine.h"
#include "eqat/context.h"
#include "gguf_bytes.h"
#include "json.h"
#include "make.h"

#define SPACE "\xe2\x96\x81"

static int32_t expected[8192];
static size_t expected_count;

/* Everything one can do with a tokenizer, until something fails. What succeeds in spite of a failed
 * allocation must be right. */
static eqat_status use(const char *path, const char *text, size_t n, const char *out)
{
    eqat_tokenizer *t;
    const int32_t *ids;
    const char *back;
    size_t count, length;
    eqat_status st = eqat_tokenizer_open(ctx, &t, path);
    if (st != EQAT_OK) {
        ck_assert_ptr_null(t);
        return st;
    }
    st = eqat_tokenizer_encode(t, text, n, EQAT_TOKENIZE_ADD_SPECIAL | EQAT_TOKENIZE_PARSE_SPECIAL,
                               &ids, &count);
    if (st == EQAT_OK && !expected_count) {
        expected_count = count;
        ck_assert(count && count <= EQI_COUNT(expected));
        memcpy(expected, ids, count * sizeof *ids);
    }
    if (st == EQAT_OK)
        ck_assert(count == expected_count && !memcmp(ids, expected, count * sizeof *ids));
    if (st == EQAT_OK)
        st = eqat_tokenizer_decode(t, ids, count, EQAT_TOKENIZE_PLAIN, &back, &length);
    if (st == EQAT_OK && out) st = eqat_tokenizer_save(t, out);
    eqat_tokenizer_release_buffers(t);
    if (st == EQAT_OK) st = eqat_tokenizer_encode(t, text, n, EQAT_TOKENIZE_PLAIN, &ids, &count);
    if (st != EQAT_OK) {
        ck_assert(memory.fail_at || st != EQAT_OUT_OF_MEMORY);
        /* The handle is as good as before. */
        counter before = memory;
        refuse_after(-1);
        OK(ctx, eqat_tokenizer_encode(t, text, n, EQAT_TOKENIZE_PLAIN, &ids, &count));
        memory.requests = before.requests;
        memory.fail_at = before.fail_at;
    }
    eqat_tokenizer_free(t);
    return st;
}

static void fail_each(const char *path)
{
    char text[4000] = "ab <s> e\xcc\x81\xcc\xa7 \xff\xfe 12 ";
    size_t n = strlen(text);
    while (n < sizeof text) text[n++] = 'a';
    expected_count = 0;
    OK(ctx, use(path, text, n, NULL));
    size_t live = memory.live;
    bool refused = true;
    long k = 0;
    for (; refused; k++) {
        const char *out = fresh_dir();
        ctx->error[0] = 0;
        refuse_after(k);
        eqat_status st = use(path, text, n, out);
        refused = memory.requests >= memory.fail_at;
        refuse_after(-1);
        /* jansson takes some of its failures for damaged text. */
        bool as_damage = json_counts() && st == EQAT_FORMAT && strstr(ctx->error, "expected JSON");
        ck_assert_msg(st == EQAT_OK || st == EQAT_OUT_OF_MEMORY || as_damage, "allocation %ld: %s",
                      k, ctx->error);
        ck_assert_msg(st != EQAT_OUT_OF_MEMORY || strstr(ctx->error, "out of memory"),
                      "allocation %ld: %s", k, ctx->error);
        ck_assert_uint_eq(memory.live, live);
        remove_dir(out);
    }
    ck_assert_int_gt(k, 20);
}

/* Those of the context alone, then those of the JSON library as well. */
START_TEST(each_allocation_of_json)
{
    count_json(_i ? &memory : NULL);
    const char *path = make_json(
        "tokenizer.json", "a|b|\xc4\xa0|ab|aa|<s>|1|2", "a b|a a",
        (parts){
            .normalizer = "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, "
                          "{\"type\": \"Prepend\", \"prepend\": \"b\"}, {\"type\": \"Replace\","
                          " \"pattern\": {\"Regex\": \"1\"}, \"content\": \"2\"}, {\"type\": "
                          "\"Lowercase\"}]}",
            .pre_tokenizer = "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\"}, "
                             "{\"type\": \"Split\", \"pattern\": {\"String\": \"2\"},"
                             " \"behavior\": \"MergedWithNext\", \"invert\": false}, {\"type\": "
                             "\"ByteLevel\", \"add_prefix_space\": true}]}",
            .post_processor = "{\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": "
                              "{\"id\": \"s\"}}, {\"Sequence\": {\"id\": \"A\"}}],"
                              " \"special_tokens\": {\"s\": {\"id\": \"s\", \"ids\": [5]}}}",
            .decoder = "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"ByteLevel\"}, "
                       "{\"type\": \"Replace\", \"pattern\": {\"String\": \"b\"},"
                       " \"content\": \"c\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", "
                       "\"content\": \"c\", \"start\": 1, \"stop\": 0}]}",
            .added_tokens = "[{\"id\": 5, \"content\": \"<s>\", \"special\": true}, {\"id\": 6, "
                            "\"content\": \"1\", \"normalized\": true}]"});
    fail_each(path);
}
END_TEST

START_TEST(each_allocation_of_a_folder)
{
    count_json(_i ? &memory : NULL);
    const char *const files[][2] = {
        {"vocab.json", "{\"a\": 0, \"b\": 1, \"aa\": 2, \"<s>\": 3}"},
        {"merges.txt", "a a\n"},
        {"tokenizer_config.json",
         "{\"tokenizer_class\": \"Qwen2Tokenizer\", \"bos_token\": \"<s>\", "
         "\"added_tokens_decoder\": {\"3\": {\"content\": \"<s>\"}}}"}};
    for (size_t i = 0; i < EQI_COUNT(files); i++) write_text(scratch(files[i][0]), files[i][1]);
    fail_each(dir);
}
END_TEST

START_TEST(each_allocation_of_gguf)
{
    static const char *const tokens[] = {"<unk>", "<s>", "</s>",    SPACE, "a",
                                         "b",     "ab",  SPACE "a", "aa"};
    bool llama = _i & 2;
    count_json(_i & 1 ? &memory : NULL);
    gguf_bytes g = {0};
    begin(&g, 3);
    key_string(&g, "tokenizer.ggml.model", llama ? "llama" : "gpt2");
    key_string(&g, "tokenizer.ggml.pre", "qwen2");
    key_array(&g, "tokenizer.ggml.tokens", G_STRING, EQI_COUNT(tokens));
    for (size_t i = 0; i < EQI_COUNT(tokens); i++) put_string(&g.file, tokens[i]);
    key_array(&g, "tokenizer.ggml.token_type", G_I32, EQI_COUNT(tokens));
    for (size_t i = 0; i < EQI_COUNT(tokens); i++) put_u32(&g.file, i == 0 ? 2 : i < 3 ? 3 : 1);
    key_array(&g, "tokenizer.ggml.scores", G_F32, EQI_COUNT(tokens));
    put_zeros(&g.file, 4 * EQI_COUNT(tokens));
    key_array(&g, "tokenizer.ggml.merges", G_STRING, 1);
    put_string(&g.file, "a b");
    key_u32(&g, "tokenizer.ggml.bos_token_id", 1);
    end_header(&g, 32);
    const char *path = scratch("v.gguf");
    write_file(path, g.file.p, g.file.n);
    free(g.file.p);
    fail_each(path);
}
END_TEST

START_TEST(bytes_that_are_no_text)
{
    const char *path = make_json("tokenizer.json", "a|b|\xef\xbf\xbd", "",
                                 (parts){.model = "\"unk_token\": \"b\""});
    eqat_tokenizer *t = open_tokenizer(path);
    ck_assert_str_eq(tokens_of(t, "a\xff\xe2\x96", 4, EQAT_TOKENIZE_PLAIN),
                     "a|\xef\xbf\xbd|\xef\xbf\xbd");
    ck_assert_str_eq(tokens_of(t, "a\0a", 3, EQAT_TOKENIZE_PLAIN), "a|b|a");
    ck_assert_str_eq(tokens_of(t, NULL, 0, EQAT_TOKENIZE_PLAIN), "");
    const int32_t *ids;
    size_t count = 7;
    says(ctx, eqat_tokenizer_encode(t, NULL, 3, EQAT_TOKENIZE_PLAIN, &ids, &count),
         EQAT_INVALID_ARGUMENT, "no text");
    ck_assert(!ids && !count);
    says(ctx, eqat_tokenizer_encode(t, "a", 1, 256, &ids, &count), EQAT_INVALID_ARGUMENT, "flags");
    eqat_tokenizer_free(t);
    t = open_tokenizer(
        make_json("bytes.json", "a|\xc4\x80|\xc3\xaf|\xc2\xbf|\xc2\xbd", "",
                  (parts){.pre_tokenizer = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
                          .decoder = "{\"type\": \"ByteLevel\"}"}));
    const char *text;
    size_t n;
    OK(ctx, eqat_tokenizer_encode(t, "a\0\xffz", 4, EQAT_TOKENIZE_PLAIN, &ids, &count));
    OK(ctx, eqat_tokenizer_decode(t, ids, count, EQAT_TOKENIZE_PLAIN, &text, &n));
    ck_assert_uint_eq(n, 5);
    ck_assert_mem_eq(text, "a\0\xef\xbf\xbd", 6); /* z has no token */
    eqat_tokenizer_free(t);
}
END_TEST

START_TEST(random_bytes)
{
    static const char *const pres[] = {"{\"type\": \"ByteLevel\"}", NULL,
                                       "{\"type\": \"Metaspace\", \"replacement\": \"" SPACE "\"}"};
    eqat_tokenizer *t = open_tokenizer(
        make_json("tokenizer.json", "a|b|" SPACE "|ab|\xef\xbf\xbd|?|<s>", "a b",
                  (parts){.normalizer = "{\"type\": \"NFKC\"}",
                          .pre_tokenizer = pres[_i],
                          .model = "\"unk_token\": \"?\", \"fuse_unk\": true",
                          .added_tokens = "[{\"id\": 6, \"content\": \"<s>\", \"lstrip\": true, "
                                          "\"rstrip\": true, \"single_word\": true}]"}));
    uint32_t state = 12345;
    for (int round = 0; round < 3000; round++) {
        char text[200];
        size_t n, count, length;
        const int32_t *ids;
        const char *back;
        for (n = 0; n < sizeof text && (n < 5 || state >> 26); n++) {
            state = state * 1664525u + 1013904223u;
            static const unsigned char likely[] = {' ',  'a',  '<',  's',  '>',  0xe2, 0x96, 0x81,
                                                   0xcc, 0x81, 0xf0, 0x9f, 0xed, 0xa0, 0,    0xff};
            text[n] = (char)(state & 0x10000 ? likely[state >> 28] : state >> 20);
        }
        OK(ctx, eqat_tokenizer_encode(t, text, n, EQAT_TOKENIZE_PARSE_SPECIAL, &ids, &count));
        OK(ctx, eqat_tokenizer_decode(t, ids, count, EQAT_TOKENIZE_PLAIN, &back, &length));
    }
    eqat_tokenizer_free(t);
}
END_TEST

START_TEST(outlives_the_context)
{
    eqat_tokenizer *t;
    const int32_t *ids;
    size_t count;
    eqat_context *other;
    eqi_ctx_config config = {.device = "cpu", .threads = 1};
    OK(ctx, eqi_ctx_create(&other, &config, NULL, 0));
    OK(ctx,
       eqat_tokenizer_open(other, &t, make_json("tokenizer.json", "a|b|ab", "a b", (parts){0})));
    eqi_ctx_unref(other);
    OK(ctx, eqat_tokenizer_encode(t, "ab", 2, EQAT_TOKENIZE_PLAIN, &ids, &count));
    ck_assert(count == 1 && ids[0] == 2);
    eqat_tokenizer_free(t);
}
END_TEST

START_TEST(buffers_go_back)
{
    eqat_tokenizer *t = open_tokenizer(
        make_json("tokenizer.json", "a|b|ab", "a b",
                  (parts){.normalizer = "{\"type\": \"Prepend\", \"prepend\": \"b\"}",
                          .model = "\"ignore_merges\": true"}));
    size_t before = ctx->bytes_now;
    char *text = malloc(1 << 20);
    const int32_t *ids;
    size_t count;
    ck_assert_ptr_nonnull(text);
    memset(text, 'a', 1 << 20);
    OK(ctx, eqat_tokenizer_encode(t, text, 1 << 20, EQAT_TOKENIZE_PLAIN, &ids, &count));
    ck_assert_uint_gt(ctx->bytes_now, before + (1 << 20));
    eqat_tokenizer_release_buffers(t);
    ck_assert_uint_eq(ctx->bytes_now, before);
    OK(ctx, eqat_tokenizer_encode(t, text, 1000, EQAT_TOKENIZE_PLAIN, &ids, &count));
    ck_assert_uint_eq(count, 1001);
    eqat_tokenizer_free(t);
    free(text);
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("tokenizer memory");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, each_allocation_of_json, 0, 2);
    tcase_add_loop_test(c, each_allocation_of_a_folder, 0, 2);
    tcase_add_loop_test(c, each_allocation_of_gguf, 0, 4);
    tcase_add_test(c, bytes_that_are_no_text);
    tcase_add_loop_test(c, random_bytes, 0, 3);
    tcase_add_test(c, outlives_the_context);
    tcase_add_test(c, buffers_go_back);
    return run_case("tokenizer memory", c, CK_FORK_GETENV);
}
