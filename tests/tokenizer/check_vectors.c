/* Published vocabularies and their test vectors, from the folder that EQAT_SHARED names; skipped
 * without it. */
#include "base/file.h"
#include "data/tokenizer/gguf_keys.h"
#include "make.h"

static const char separator[] = "\n__ggml_vocab_test__\n";

/* Vectors, and the vocabulary relative to the folder (NULL: the GGUF file beside the vectors). */
static const struct {
    const char *vectors, *vocabulary;
} cases[] = {
    {"gpt-2", NULL},
    {"gpt-2", "gpt2"},
    {"llama-spm", NULL},
    {"llama-spm", "llama2"},
    {"llama-spm", "llama2/tokenizer.json"},
    {"phi-3", NULL},
    {"qwen2", "qwen2"},
};

static char *slurp(const char *path, size_t *n)
{
    char *text;
    OK(ctx, eqi_file_slurp(ctx, path, 1 << 24, &text, n));
    return text;
}

static void check_one(const eqat_tokenizer *t, const char *text, size_t n, const char *line,
                      int number)
{
    const int32_t *ids;
    size_t count, i = 0, length;
    const char *back;
    OK(ctx, eqat_tokenizer_encode(t, text, n, EQAT_TOKENIZE_PLAIN, &ids, &count));
    for (char *end; *line && *line != '\n'; line = end) {
        long id = strtol(line, &end, 10);
        if (end == line) break;
        ck_assert_msg(i < count && ids[i] == id, "text %d, token %zu: expected %ld", number, i, id);
        i++;
    }
    ck_assert_msg(i == count, "text %d: expected %zu tokens, found %zu", number, i, count);
    OK(ctx, eqat_tokenizer_decode(t, ids, count, EQAT_TOKENIZE_PLAIN, &back, &length));
    ck_assert_msg(length == n && !memcmp(back, text, n), "text %d: back as '%s'", number, back);
}

static int check_file(const eqat_tokenizer *t, const char *in, size_t n, const char *out)
{
    int number = 0;
    for (const char *end = in + n, *next; in <= end; in = next, number++) {
        const char *p = memmem(in, (size_t)(end - in), separator, strlen(separator));
        next = p ? p + strlen(separator) : end + 1;
        check_one(t, in, (size_t)((p ? p : end) - in), out, number);
        out = strchr(out, '\n');
        out = out ? out + 1 : "";
    }
    return number;
}

/* more: rows of the embedding without a token. */
static eqat_tokenizer *through_gguf(const eqat_tokenizer *t, int more)
{
    eqi_gguf_writer *w;
    OK(ctx, eqi_gguf_create(ctx, &w, scratch("tokenizer.gguf")));
    OK(ctx, eqi_gguf_put_tokenizer(ctx, t, eqat_tokenizer_vocab_size(t) + more, w));
    OK(ctx, eqi_gguf_finish(w));
    eqat_tokenizer *again = open_tokenizer(scratch("tokenizer.gguf"));
    ck_assert_int_eq(eqat_tokenizer_bos(again), eqat_tokenizer_bos(t));
    ck_assert_int_eq(eqat_tokenizer_eos(again), eqat_tokenizer_eos(t));
    return again;
}

START_TEST(vectors)
{
    char base[512], path[1024];
    size_t n, m;
    snprintf(base, sizeof base, "%s/tokenizer", getenv("EQAT_SHARED"));
    snprintf(path, sizeof path, "%s/vectors/ggml-vocab-%s.gguf.inp", base, cases[_i].vectors);
    char *in = slurp(path, &n);
    snprintf(path, sizeof path, "%s/vectors/ggml-vocab-%s.gguf.out", base, cases[_i].vectors);
    char *out = slurp(path, &m);
    if (cases[_i].vocabulary)
        snprintf(path, sizeof path, "%s/%s", base, cases[_i].vocabulary);
    else
        snprintf(path, sizeof path, "%s/vectors/ggml-vocab-%s.gguf", base, cases[_i].vectors);
    eqat_tokenizer *t = open_tokenizer(path);
    ck_assert_int_gt(check_file(t, in, n, out), 40);
    /* What is saved gives the same. */
    OK(ctx, eqat_tokenizer_save(t, dir));
    eqat_tokenizer *again = open_tokenizer(dir);
    ck_assert_int_gt(check_file(again, in, n, out), 40);
    eqat_tokenizer_free(again);
    /* So does what a GGUF file says of it. */
    again = through_gguf(t, cases[_i].vocabulary ? 3 : 0);
    ck_assert_int_gt(check_file(again, in, n, out), 40);
    eqat_tokenizer_free(again);
    eqat_tokenizer_free(t);
    eqi_free(ctx, in);
    eqi_free(ctx, out);
}
END_TEST

int main(void)
{
    if (!getenv("EQAT_SHARED")) {
        puts("SKIP: EQAT_SHARED names no folder with vocabularies");
        return 77;
    }
    TCase *c = tcase_create("tokenizer vectors");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_add_loop_test(c, vectors, 0, EQI_COUNT(cases));
    return run_case("tokenizer vectors", c, CK_FORK_GETENV);
}
