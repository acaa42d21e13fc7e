/* Where tokenizers come from and what is wrong with some of them: folders, tokenizer.json, GGUF;
 * saving. */
#include <sys/stat.h>

#include "base/file.h"
#include "gguf_bytes.h"
#include "make.h"

#define SPACE "\xe2\x96\x81"
#define G "\xc4\xa0" /* a space in the byte-level alphabet */
#define ALL (EQAT_TOKENIZE_ADD_SPECIAL | EQAT_TOKENIZE_PARSE_SPECIAL)

static const char *subfolder(const char *name)
{
    const char *path = scratch(name);
    ck_assert_int_eq(mkdir(path, 0777), 0);
    return path;
}

static json_t *load(const char *folder, const char *name)
{
    const char *path = in_dir(folder, name);
    json_error_t e;
    json_t *json = json_load_file(path, 0, &e);
    ck_assert_msg(json != NULL, "%s: %s", path, e.text);
    return json;
}

static void write_gpt2(void)
{
    write_text(scratch("vocab.json"),
               "{\"a\": 0, \"b\": 1, \"" G "\": 2, \"ab\": 3, \"" G
               "ab\": 4, \"1\": 5, \"\xc3\x83\": 6, \"\xc2\xa9\": 7, \"<|endoftext|>\": 8}");
    write_text(scratch("merges.txt"), "#version: 0.2\na b\r\n\n" G " ab\n");
}

START_TEST(gpt2_folder)
{
    write_gpt2();
    eqat_tokenizer *t = open_tokenizer(dir);
    ck_tokens(t, "ab ab11<|endoftext|>", ALL, "ab|" G "ab|1|1|<|endoftext|>");
    ck_assert_int_eq(eqat_tokenizer_bos(t), 8);
    ck_assert_int_eq(eqat_tokenizer_eos(t), 8);
    ck_assert_int_eq(eqat_tokenizer_unk(t), -1);
    ck_assert_int_eq(eqat_tokenizer_vocab_size(t), 9);
    eqat_tokenizer_free(t);
    write_text(scratch("tokenizer_config.json"),
               "{\"tokenizer_class\": \"GPT2Tokenizer\", \"bos_token\": {\"content\": "
               "\"<|endoftext|>\"}, \"eos_token\": null, \"unk_token\": \"zz\","
               " \"add_bos_token\": true, \"add_prefix_space\": true}");
    t = open_tokenizer(dir);
    ck_tokens(t, "ab", ALL, "<|endoftext|>|" G "ab");
    ck_assert_int_eq(eqat_tokenizer_eos(t), -1);
    ck_assert_int_eq(eqat_tokenizer_unk(t), -1); /* not in the vocabulary */
    eqat_tokenizer_free(t);
}
END_TEST

START_TEST(qwen2_folder)
{
    write_gpt2();
    write_text(scratch("tokenizer_config.json"),
               "{\"tokenizer_class\": \"Qwen2Tokenizer\", \"model_max_length\": "
               "1000000000000000019884624838656, \"eos_token\": \"<|endoftext|>\","
               " \"added_tokens_decoder\": {\"10\": {\"content\": \"<tool>\", \"special\": false, "
               "\"normalized\": false},"
               " \"9\": {\"content\": \"<|im_end|>\", \"special\": true, \"normalized\": false}, "
               "\"8\": {\"content\": \"<|endoftext|>\", \"special\": true}}}");
    eqat_tokenizer *t = open_tokenizer(dir);
    ck_tokens(t, "a<|im_end|><tool>11e\xcc\x81", ALL,
              "a|<|im_end|>|<tool>|1|1|\xc3\x83|\xc2\xa9"); /* NFC first */
    ck_tokens(t, "<|endoftext|>", EQAT_TOKENIZE_PLAIN,
              ""); /* the vocabulary has none of these letters */
    ck_assert_int_eq(eqat_tokenizer_bos(t), -1);
    ck_assert_int_eq(eqat_tokenizer_eos(t), 8);
    ck_assert_int_eq(eqat_tokenizer_vocab_size(t), 11);
    ck_assert(eqat_tokenizer_is_special(t, 9) && !eqat_tokenizer_is_special(t, 10));
    eqat_tokenizer_free(t);
    write_text(scratch("tokenizer_config.json"),
               "{\"tokenizer_class\": \"Qwen2TokenizerFast\", \"eos_token\": \"<|endoftext|>\", "
               "\"additional_special_tokens\": [\"<x>\"]}");
    write_text(scratch("added_tokens.json"), "{\"<y>\": 10, \"<x>\": 9, \"<|endoftext|>\": 8}");
    t = open_tokenizer(dir);
    ck_tokens(t, "<x><y>", ALL, "<x>|<y>");
    ck_assert(eqat_tokenizer_is_special(t, 8) && eqat_tokenizer_is_special(t, 9) &&
              !eqat_tokenizer_is_special(t, 10));
    eqat_tokenizer_free(t);
}
END_TEST

static const struct {
    const char *vocab, *merges, *config, *message;
    eqat_status status;
} broken_folders[] = {
    {"{\"a\": 0", "", "{}", "vocab.json: line 1", EQAT_FORMAT},
    {"[]", "", "{}", "expected an object", EQAT_FORMAT},
    {"{\"a\": 0}", "a", "{}", "expected two tokens", EQAT_FORMAT},
    {"{\"a\": 0}", "a a a", "{}", "expected two tokens", EQAT_FORMAT},
    {"{\"a\": 0}", "a b", "{}", "merge 0: token \"b\" is not in the vocabulary", EQAT_FORMAT},
    {"{\"a\": 0}", "a a", "{}", "its result \"aa\" is not in the vocabulary", EQAT_FORMAT},
    {"{\"a\": 0}", "\xff \xfe", "{}", "merges.txt: line 1", EQAT_FORMAT},
    {"{\"a\": 0}", "", "{\"tokenizer_class\": \"BertTokenizer\"}", "BertTokenizer",
     EQAT_UNSUPPORTED},
    {"{\"a\": 0}", "", "{\"tokenizer_class\": ", "tokenizer_config.json", EQAT_FORMAT},
    {"{\"a\": 0}", "", "{\"added_tokens_decoder\": {\"x\": {}}}", "added_tokens_decoder",
     EQAT_FORMAT},
    {"{\"a\": 0}", "", "{\"added_tokens_decoder\": {\"7\": {\"content\": \"b\"}}}",
     "found id 7, expected 1", EQAT_FORMAT},
    {"{\"a\": 0}", "", "{\"bos_token\": \"b\", \"add_bos_token\": true}", "add_bos_token",
     EQAT_FORMAT},
};

START_TEST(broken_folder)
{
    eqat_tokenizer *t;
    write_text(scratch("vocab.json"), broken_folders[_i].vocab);
    write_text(scratch("merges.txt"), broken_folders[_i].merges);
    write_text(scratch("tokenizer_config.json"), broken_folders[_i].config);
    says(ctx, eqat_tokenizer_open(ctx, &t, dir), broken_folders[_i].status,
         broken_folders[_i].message);
    ck_assert_ptr_null(t);
}
END_TEST

START_TEST(no_tokenizer)
{
    eqat_tokenizer *t;
    says(ctx, eqat_tokenizer_open(ctx, &t, dir), EQAT_NOT_FOUND, "found no tokenizer");
    says(ctx, eqat_tokenizer_open(ctx, &t, scratch("missing")), EQAT_NOT_FOUND, "missing");
    says(ctx, eqat_tokenizer_open(ctx, &t, NULL), EQAT_INVALID_ARGUMENT, "path: found NULL");
    write_text(scratch("tokenizer.model"), "x");
    says(ctx, eqat_tokenizer_open(ctx, &t, dir), EQAT_UNSUPPORTED, "tokenizer.model alone");
    eqat_tokenizer_free(NULL);
}
END_TEST

#define MODEL "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1}, \"merges\": []}"
#define WITH(part) "{" part ", " MODEL "}"
#define A_ALONE "{\"type\": \"TemplateProcessing\", \"single\": [{\"Sequence\": {\"id\": \"A\"}}]}"
#define POST(text) WITH("\"post_processor\": {\"type\": \"TemplateProcessing\", " text "}")

static const struct {
    const char *json, *message;
    eqat_status status;
} broken_json[] = {
    {"", "expected JSON", EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a", "line 1, column", EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"\xff\": 0}}}", "line 1", EQAT_FORMAT},
    {"3", "expected JSON", EQAT_FORMAT},
    {"{}", "\"model\"", EQAT_FORMAT},
    {"{\"model\": {\"type\": \"WordPiece\"}}", "\"WordPiece\" is not supported", EQAT_UNSUPPORTED},
    {"{\"model\": {\"type\": \"Unigram\", \"vocab\": []}}", "\"Unigram\" is not supported",
     EQAT_UNSUPPORTED},
    {"{\"model\": {\"type\": \"BPE\"}}", "\"vocab\"", EQAT_FORMAT},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": []}}", "empty vocabulary",
     EQAT_FORMAT},
    {"{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}}}", "\"merges\"", EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a\": -1}, \"merges\": []}}", "token \"a\"", EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a\": 4294967296}, \"merges\": []}}", "out of range", EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a\": 99999999999999999999}, \"merges\": []}}", "integer",
     EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a\": 1.5}, \"merges\": []}}", "token \"a\"", EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a\": \"0\"}, \"merges\": []}}", "token \"a\"", EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a\": 0, \"b\": 0}, \"merges\": []}}", "both have id 0",
     EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}}", "merge 0", EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [[\"a\", 1]]}}", "merge 0", EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [7]}}", "merge 0", EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"\"]}}", "merge 0", EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [], \"dropout\": 0.1}}", "dropout",
     EQAT_UNSUPPORTED},
    {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [], \"continuing_subword_prefix\": \"##\"}}",
     "continuing_subword_prefix", EQAT_UNSUPPORTED},
    {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [], \"end_of_word_suffix\": \"</w>\"}}",
     "end_of_word_suffix", EQAT_UNSUPPORTED},
    {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [], \"unk_token\": \"?\"}}", "unk_token",
     EQAT_FORMAT},
    {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [], \"byte_fallback\": 3}}", "byte_fallback",
     EQAT_FORMAT},
    {WITH("\"normalizer\": {\"type\": \"Precompiled\"}"),
     "normalizer \"Precompiled\" is not supported", EQAT_UNSUPPORTED},
    {WITH("\"normalizer\": {\"type\": \"BertNormalizer\"}"), "\"BertNormalizer\" is not supported",
     EQAT_UNSUPPORTED},
    {WITH("\"normalizer\": []"), "normalizer", EQAT_FORMAT},
    {WITH("\"normalizer\": {\"type\": \"Sequence\"}"), "\"normalizers\"", EQAT_FORMAT},
    {WITH("\"normalizer\": {\"type\": \"Prepend\"}"), "\"prepend\"", EQAT_FORMAT},
    {WITH("\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": "
          "\"\"}"),
     "pattern", EQAT_FORMAT},
    {WITH("\"normalizer\": {\"type\": \"Replace\", \"pattern\": {\"Regex\": \"(\"}, \"content\": "
          "\"\"}"),
     "regular expression", EQAT_FORMAT},
    {WITH("\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}"),
     "pre-tokenizer \"BertPreTokenizer\" is not supported", EQAT_UNSUPPORTED},
    {WITH("\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"x\"}, "
          "\"behavior\": \"Other\"}"),
     "behavior \"Other\"", EQAT_UNSUPPORTED},
    {WITH("\"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"String\": \"x\"}}"),
     "\"behavior\"", EQAT_FORMAT},
    {WITH("\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"ab\"}"), "one character",
     EQAT_FORMAT},
    {WITH("\"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"_\", "
          "\"prepend_scheme\": \"last\"}"),
     "\"last\"", EQAT_UNSUPPORTED},
    {WITH("\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": "
          "\"ByteLevel\"}, {\"type\": \"Digits\"}]}"),
     "behind ByteLevel", EQAT_UNSUPPORTED},
    {POST("\"single\": 3"), "\"single\"", EQAT_FORMAT},
    {POST("\"single\": []"), "sequence A", EQAT_FORMAT},
    {POST("\"single\": [{\"Sequence\": {\"id\": \"B\"}}]"), "sequence A", EQAT_UNSUPPORTED},
    {POST("\"single\": [{\"Sequence\": {\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": \"s\"}}]"),
     "\"s\"", EQAT_FORMAT},
    {POST("\"single\": [{\"Sequence\": {\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": \"s\"}}], "
          "\"special_tokens\": {\"s\": {\"ids\": [2]}}"),
     "found id 2, expected one below 2", EQAT_FORMAT},
    {WITH("\"post_processor\": {\"type\": \"Sequence\", \"processors\": [" A_ALONE ", " A_ALONE
          "]}"),
     "more than one TemplateProcessing", EQAT_UNSUPPORTED},
    {WITH("\"post_processor\": {\"type\": \"RobertaProcessing\"}"),
     "\"RobertaProcessing\" is not supported", EQAT_UNSUPPORTED},
    {WITH("\"decoder\": {\"type\": \"WordPiece\"}"), "decoder \"WordPiece\" is not supported",
     EQAT_UNSUPPORTED},
    {WITH("\"decoder\": {\"type\": \"Strip\", \"content\": \" \", \"start\": -1, \"stop\": 0}"),
     "\"start\"", EQAT_FORMAT},
    {WITH("\"added_tokens\": {}"), "added_tokens", EQAT_FORMAT},
    {WITH("\"added_tokens\": [3]"), "added_tokens", EQAT_FORMAT},
    {WITH("\"added_tokens\": [{\"id\": 2}]"), "\"content\"", EQAT_FORMAT},
    {WITH("\"added_tokens\": [{\"id\": 5, \"content\": \"c\"}]"), "found id 5, expected 2",
     EQAT_FORMAT},
    {WITH("\"added_tokens\": [{\"id\": 1, \"content\": \"a\"}]"), "found id 1, expected 0",
     EQAT_FORMAT},
    {WITH("\"added_tokens\": [{\"id\": 2, \"content\": \"c\", \"lstrip\": 1}]"), "lstrip",
     EQAT_FORMAT},
    {"{\"added_tokens\": [{\"content\": \"c\"}], \"model\": {\"vocab\": {\"a\": 1}, \"merges\": "
     "[]}}",
     "id 1 is taken", EQAT_FORMAT},
};

START_TEST(broken_tokenizer_json)
{
    eqat_tokenizer *t;
    write_text(scratch("tokenizer.json"), broken_json[_i].json);
    says(ctx, eqat_tokenizer_open(ctx, &t, scratch("tokenizer.json")), broken_json[_i].status,
         broken_json[_i].message);
    ck_assert_ptr_nonnull(strstr(ctx->error, "tokenizer.json"));
    says(ctx, eqat_tokenizer_open(ctx, &t, dir), broken_json[_i].status, broken_json[_i].message);
}
END_TEST

/* More than the stages may, and more than any JSON may. */
START_TEST(nested_too_deeply)
{
    static const struct {
        int stages;
        eqat_status status;
        const char *message;
    } depths[] = {{9, EQAT_UNSUPPORTED, "nested more than 8 times"},
                  {48, EQAT_UNSUPPORTED, "nested more than 8 times"},
                  {100, EQAT_FORMAT, "more than 100 levels of nesting"}};
    char json[8192] = "{\"normalizer\": ";
    const int n = depths[_i].stages;
    for (int i = 0; i < n; i++) strcat(json, "{\"type\": \"Sequence\", \"normalizers\": [");
    strcat(json, "{\"type\": \"NFC\"}");
    for (int i = 0; i < n; i++) strcat(json, "]}");
    strcat(json, ", " MODEL "}");
    write_text(scratch("tokenizer.json"), json);
    eqat_tokenizer *t;
    says(ctx, eqat_tokenizer_open(ctx, &t, dir), depths[_i].status, depths[_i].message);
}
END_TEST

START_TEST(cut_anywhere)
{
    /* A damaged file is told as such at every length; nothing is read beyond it. */
    const char *path = make_json("tokenizer.json", "a|b|ab|<s>", "a b",
                                 (parts){.normalizer = "{\"type\": \"NFC\"}",
                                         .added_tokens = "[{\"id\": 3, \"content\": \"<s>\"}]"});
    char *text, *copy;
    size_t n;
    OK(ctx, eqi_file_slurp(ctx, path, 1 << 20, &text, &n));
    copy = malloc(n);
    ck_assert_ptr_nonnull(copy);
    for (size_t k = 0; k < n; k++) {
        eqat_tokenizer *t;
        memcpy(copy, text, n);
        write_file(scratch("cut.json"), copy, k);
        says(ctx, eqat_tokenizer_open(ctx, &t, scratch("cut.json")), EQAT_FORMAT, "cut.json");
        copy[k] ^= 0x15;
        write_file(scratch("changed.json"), copy, n);
        if (eqat_tokenizer_open(ctx, &t, scratch("changed.json")) == EQAT_OK) {
            const int32_t *ids;
            size_t count;
            OK(ctx, eqat_tokenizer_encode(t, "ab <s> \xc3\xa9 a", 11, ALL, &ids, &count));
            for (size_t i = 0; i < count; i++)
                ck_assert(ids[i] >= 0 && ids[i] < eqat_tokenizer_vocab_size(t));
        }
        eqat_tokenizer_free(t);
    }
    free(copy);
    eqi_free(ctx, text);
}
END_TEST

START_TEST(folder_is_copied)
{
    make_json("tokenizer.json", "a|b|<s>", "",
              (parts){.added_tokens = "[{\"id\": 2, \"content\": \"<s>\", \"special\": true}]"});
    write_text(scratch("tokenizer_config.json"), "{ \"eos_token\" : \"b\" }\n");
    write_text(
        scratch("special_tokens_map.json"),
        "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"a\", \"unk_token\": \"a\"}");
    write_text(scratch("chat_template.jinja"), "{{ x }}");
    write_text(scratch("config.json"), "{}");
    write_text(scratch("added_tokens.json"), "{}");
    write_text(scratch("vocab.json"), "{\"a\": 0}");
    write_text(scratch("merges.txt"), "a b\n");
    write_text(scratch("tokenizer.model"), "m");
    eqat_tokenizer *t = open_tokenizer(dir);
    ck_assert_int_eq(eqat_tokenizer_bos(t), 2);
    ck_assert_int_eq(eqat_tokenizer_eos(t), 1); /* tokenizer_config.json first */
    ck_assert_int_eq(eqat_tokenizer_unk(t), 0);
    static const char *const names[] = {"tokenizer.json",
                                        "tokenizer_config.json",
                                        "special_tokens_map.json",
                                        "added_tokens.json",
                                        "vocab.json",
                                        "merges.txt",
                                        "tokenizer.model",
                                        "chat_template.jinja"};
    const char *out = subfolder("out");
    OK(ctx, eqat_tokenizer_save(t, out));
    for (size_t i = 0; i < EQI_COUNT(names); i++) {
        char path[1024], *a, *b;
        size_t n, m;
        snprintf(path, sizeof path, "%s/%s", out, names[i]);
        OK(ctx, eqi_file_slurp(ctx, scratch(names[i]), 1 << 20, &a, &n));
        OK(ctx, eqi_file_slurp(ctx, path, 1 << 20, &b, &m));
        ck_assert(n == m && !memcmp(a, b, n));
        eqi_free(ctx, a);
        eqi_free(ctx, b);
    }
    char config[1024];
    snprintf(config, sizeof config, "%s/config.json", out);
    ck_assert(!eqi_path_exists(config)); /* the model's file, not ours */
    says(ctx, eqat_tokenizer_save(t, out), EQAT_EXISTS, "tokenizer.json");
    says(ctx, eqat_tokenizer_save(t, scratch("nowhere")), EQAT_NOT_FOUND, "nowhere");
    eqat_tokenizer_free(t);
    remove_dir(out);
}
END_TEST

/* GGUF. */

typedef struct vocab {
    const char *model, *pre;
    const char *tokens[16];
    int32_t types[16];
    float scores[16];
    const char *merges[8];
    bool no_scores, no_merges;
    int bos, eos, unk;                      /* -1: not said */
    int add_bos, add_eos, add_space_prefix; /* -1: not said */
    uint64_t type_count;                    /* 0: as many as tokens */
} vocab;

static void key_bool(gguf_bytes *g, const char *name, int value)
{
    unsigned char byte = value != 0;
    if (value < 0) return;
    key(g, name, G_BOOL);
    put(&g->file, &byte, 1);
}

static const char *write_gguf(const char *name, const vocab *v)
{
    gguf_bytes g = {0};
    uint64_t count = 0, merges = 0;
    while (count < EQI_COUNT(v->tokens) && v->tokens[count]) count++;
    while (merges < EQI_COUNT(v->merges) && v->merges[merges]) merges++;
    begin(&g, 3);
    if (v->model) key_string(&g, "tokenizer.ggml.model", v->model);
    if (v->pre) key_string(&g, "tokenizer.ggml.pre", v->pre);
    key_array(&g, "tokenizer.ggml.tokens", G_STRING, count);
    for (uint64_t i = 0; i < count; i++) put_string(&g.file, v->tokens[i]);
    key_array(&g, "tokenizer.ggml.token_type", G_I32, v->type_count ? v->type_count : count);
    for (uint64_t i = 0; i < (v->type_count ? v->type_count : count); i++)
        put_u32(&g.file, (uint32_t)(v->types[i] ? v->types[i] : 1));
    if (!v->no_scores) {
        key_array(&g, "tokenizer.ggml.scores", G_F32, count);
        put(&g.file, v->scores, count * sizeof(float));
    }
    if (!v->no_merges) {
        key_array(&g, "tokenizer.ggml.merges", G_STRING, merges);
        for (uint64_t i = 0; i < merges; i++) put_string(&g.file, v->merges[i]);
    }
    if (v->bos >= 0) key_u32(&g, "tokenizer.ggml.bos_token_id", (uint32_t)v->bos);
    if (v->eos >= 0) key_u32(&g, "tokenizer.ggml.eos_token_id", (uint32_t)v->eos);
    if (v->unk >= 0) key_u32(&g, "tokenizer.ggml.unknown_token_id", (uint32_t)v->unk);
    key_bool(&g, "tokenizer.ggml.add_bos_token", v->add_bos);
    key_bool(&g, "tokenizer.ggml.add_eos_token", v->add_eos);
    key_bool(&g, "tokenizer.ggml.add_space_prefix", v->add_space_prefix);
    key_string(&g, "tokenizer.chat_template", "{{ m }}");
    end_header(&g, 32);
    const char *path = scratch(name);
    write_file(path, g.file.p, g.file.n);
    free(g.file.p);
    return path;
}

static const vocab gpt2_vocab = {
    .model = "gpt2",
    .pre = "smollm",
    .tokens = {"<s>", "a", "b", G, "ab", G "ab", "1", "11", "<tool>", "e", "\xc3\x8c", "\xc2\xa3"},
    .types = {[0] = 3, [8] = 4},
    .merges = {"a b", G " ab", "1 1"},
    .bos = 0,
    .eos = 0,
    .unk = -1,
    .add_bos = -1,
    .add_eos = -1,
    .add_space_prefix = -1,
};

/* The same ids from the file and from what is saved of it. */
static void check_gguf(const vocab *v, const char *text, const char *expected)
{
    eqat_tokenizer *t = open_tokenizer(write_gguf("v.gguf", v)), *again;
    ck_tokens(t, text, ALL, expected);
    const char *out = subfolder("out");
    OK(ctx, eqat_tokenizer_save(t, out));
    again = open_tokenizer(out);
    ck_tokens(again, text, ALL, expected);
    ck_assert_int_eq(eqat_tokenizer_bos(t), eqat_tokenizer_bos(again));
    ck_assert_int_eq(eqat_tokenizer_eos(t), eqat_tokenizer_eos(again));
    ck_assert_int_eq(eqat_tokenizer_unk(t), eqat_tokenizer_unk(again));
    ck_assert_int_eq(eqat_tokenizer_vocab_size(t), eqat_tokenizer_vocab_size(again));
    const int32_t *ids;
    const char *one, *two;
    size_t count, n, m;
    OK(ctx, eqat_tokenizer_encode(t, text, strlen(text), EQAT_TOKENIZE_PLAIN, &ids, &count));
    OK(ctx, eqat_tokenizer_decode(t, ids, count, EQAT_TOKENIZE_PLAIN, &one, &n));
    OK(ctx, eqat_tokenizer_decode(again, ids, count, EQAT_TOKENIZE_PLAIN, &two, &m));
    ck_assert(n == m && !memcmp(one, two, n));
    json_t *config = load(out, "tokenizer_config.json");
    ck_assert_str_eq(json_string_value(json_object_get(config, "chat_template")), "{{ m }}");
    json_decref(config);
    eqat_tokenizer_free(t);
    eqat_tokenizer_free(again);
    remove_dir(out);
}

static char warning[1024];

static void keep_warning(void *user, int level, const char *line)
{
    (void)user;
    (void)level;
    snprintf(warning, sizeof warning, "%s", line);
}

START_TEST(gguf_gpt2)
{
    vocab v = gpt2_vocab;
    check_gguf(&v, "ab ab11<s><tool>", "ab|" G "ab|1|1|<s>|<tool>");
    v.add_bos = v.add_eos = 1;
    check_gguf(&v, "a", "<s>|a|<s>");
    v = gpt2_vocab;
    v.pre = "gpt-2";
    check_gguf(&v, "a11", "a|11");
    v.pre = "llama-bpe";
    check_gguf(&v, "11111",
               "<s>|11|1|11"); /* three digits at a time, BOS unless the file says no */
    v.add_bos = 0;
    check_gguf(&v, "a", "a");
    v.add_bos = -1;
    v.pre = "qwen2";
    check_gguf(&v, "11e\xcc\xa3", "1|1"); /* composed, which this vocabulary cannot write */
    v.pre = "tekken";
    check_gguf(&v,
               "e\xcc\xa3"
               "11",
               "<s>|e|\xc3\x8c|\xc2\xa3|1|1");
    v.pre = "default";
    check_gguf(&v, "1111", "11|1|1");
    ctx->log = keep_warning;
    ctx->log_level = EQAT_LOG_WARN;
    check_gguf(&v, "1111", "11|1|1");
    ck_assert_str_eq(warning, "");
    v.pre = NULL;
    check_gguf(&v, "ab1111", "ab|11|1|1");
    ck_assert_ptr_nonnull(strstr(warning, "found no tokenizer.ggml.pre"));
}
END_TEST

static const vocab llama_vocab = {
    .model = "llama",
    .pre = "default",
    .tokens = {"<unk>", "<s>", "</s>", "<0x0A>", SPACE, "a", "b", "ab", SPACE "ab", SPACE "a", "ba",
               "<tool>", "aba"},
    .types = {2, 3, 3, 6, [11] = 4},
    .scores = {[4] = -9, -10, -11, -1, -2, -3, 0, 0, -4},
    .no_merges = true,
    .bos = 1,
    .eos = 2,
    .unk = 0,
    .add_bos = -1,
    .add_eos = -1,
    .add_space_prefix = -1,
};

START_TEST(gguf_llama)
{
    vocab v = llama_vocab;
    /* The best score first: ba before ab, then what is left. */
    check_gguf(&v, "ab ab", "<s>|" SPACE "ab|" SPACE "ab");
    check_gguf(&v, "bab", "<s>|" SPACE "|ba|b");
    check_gguf(&v, "a<tool>b", "<s>|" SPACE "a|<tool>|" SPACE "|b");
    check_gguf(&v, "aba", "<s>|" SPACE "a|ba"); /* \xe2\x96\x81" "a at -3 comes before aba at -4 */
    v.add_space_prefix = 0;
    v.add_bos = 0;
    v.add_eos = 1;
    check_gguf(&v, "aba a", "aba|" SPACE "a|</s>");
    v.unk = v.bos = v.eos = -1; /* then 0, 1, 2 */
    v.add_bos = 1;
    check_gguf(&v, "axy", "<s>|a|<unk>|</s>");
}
END_TEST

START_TEST(gguf_llama_equal_scores)
{
    /* aaa is a|aa or aa|a with the same score: the left part with the lower id comes first. */
    const vocab v = {.model = "llama",
                     .tokens = {"<unk>", "<s>", "</s>", "a", "aa", "aaa", SPACE},
                     .types = {2, 3, 3},
                     .scores = {[4] = -1, -1},
                     .no_merges = true,
                     .bos = -1,
                     .eos = -1,
                     .unk = -1,
                     .add_bos = 0,
                     .add_eos = -1,
                     .add_space_prefix = 0};
    check_gguf(&v, "aaa", "aaa");
    check_gguf(&v, "aaaa", "aa|aa");
    eqat_tokenizer *t = open_tokenizer(write_gguf("v.gguf", &v));
    const char *out = subfolder("out");
    OK(ctx, eqat_tokenizer_save(t, out));
    json_t *json = load(out, "tokenizer.json"),
           *merges = json_object_get(json_object_get(json, "model"), "merges");
    ck_assert_uint_eq(json_array_size(merges), 3);
    ck_assert_str_eq(json_string_value(json_array_get(merges, 0)), "a a");
    ck_assert_str_eq(json_string_value(json_array_get(merges, 1)), "a aa");
    ck_assert_str_eq(json_string_value(json_array_get(merges, 2)), "aa a");
    json_decref(json);
    eqat_tokenizer_free(t);
    remove_dir(out);
}
END_TEST

START_TEST(gguf_merge_with_space)
{
    /* A token with a real space: merges as pairs. */
    const vocab v = {.model = "llama",
                     .tokens = {"<unk>", "<s>", "</s>", " ", "a", " a", SPACE},
                     .types = {2, 3, 3},
                     .no_merges = true,
                     .bos = -1,
                     .eos = -1,
                     .unk = -1,
                     .add_bos = 0,
                     .add_eos = -1,
                     .add_space_prefix = 0};
    check_gguf(&v, "a", "a");
}
END_TEST

START_TEST(broken_gguf)
{
    eqat_tokenizer *t;
    vocab v = gpt2_vocab;
#define BAD(status, message) \
    says(ctx, eqat_tokenizer_open(ctx, &t, write_gguf("v.gguf", &v)), status, message)
    v.model = NULL;
    BAD(EQAT_NOT_FOUND, "tokenizer.ggml.model");
    v.model = "bert";
    BAD(EQAT_UNSUPPORTED, "\"bert\" is not supported");
    v = gpt2_vocab;
    v.pre = "brand-new";
    BAD(EQAT_UNSUPPORTED, "\"brand-new\" is not supported");
    v = gpt2_vocab;
    v.tokens[3] = "a";
    BAD(EQAT_FORMAT, "tokens 1 and 3 are the same");
    v.tokens[3] = "\xff";
    BAD(EQAT_FORMAT, "token 3 is not UTF-8");
    v.tokens[0] = NULL;
    BAD(EQAT_FORMAT, "tokenizer.ggml.tokens");
    v = gpt2_vocab;
    v.type_count = 3;
    BAD(EQAT_FORMAT, "tokenizer.ggml.token_type");
    v = gpt2_vocab;
    v.no_merges = true;
    BAD(EQAT_FORMAT, "tokenizer.ggml.merges");
    v = gpt2_vocab;
    v.merges[1] = "ab";
    BAD(EQAT_FORMAT, "merge 1");
    v.merges[1] = "a \xff";
    BAD(EQAT_FORMAT, "entry 1 is not UTF-8");
    v.merges[1] = "b a";
    BAD(EQAT_FORMAT, "\"ba\" is not in the vocabulary");
    v = gpt2_vocab;
    v.bos = 12;
    BAD(EQAT_FORMAT, "found id 12, expected one below 12");
    v = llama_vocab;
    v.no_scores = true;
    BAD(EQAT_FORMAT, "tokenizer.ggml.scores");
    v = llama_vocab;
    v.scores[7] = 0.0f / 0.0f * 0.0f;
    memcpy(&v.scores[7], "\x00\x00\xc0\x7f", 4);
    BAD(EQAT_FORMAT, "expected a number for token 7");
    write_text(scratch("v.gguf"), "no GGUF");
    ck_assert_int_ne(eqat_tokenizer_open(ctx, &t, scratch("v.gguf")), EQAT_OK);
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("tokenizer files");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_test(c, gpt2_folder);
    tcase_add_test(c, qwen2_folder);
    tcase_add_loop_test(c, broken_folder, 0, EQI_COUNT(broken_folders));
    tcase_add_test(c, no_tokenizer);
    tcase_add_loop_test(c, broken_tokenizer_json, 0, EQI_COUNT(broken_json));
    tcase_add_loop_test(c, nested_too_deeply, 0, 3);
    tcase_add_test(c, cut_anywhere);
    tcase_add_test(c, folder_is_copied);
    tcase_add_test(c, gguf_gpt2);
    tcase_add_test(c, gguf_llama);
    tcase_add_test(c, gguf_llama_equal_scores);
    tcase_add_test(c, gguf_merge_with_space);
    tcase_add_test(c, broken_gguf);
    return run_case("tokenizer files", c, CK_FORK_GETENV);
}
