/* Small tokenizers made in the tests. */
#ifndef TESTS_TOKENIZER_MAKE_H
#define TESTS_TOKENIZER_MAKE_H

#include <dirent.h>
#include <jansson.h>
#include <unistd.h>

#include "bytes.h"
#include "each_test.h"
#include "eqat/tokenizer.h"

/* The parts of a tokenizer.json; NULL: null. */
typedef struct parts {
    const char *normalizer, *pre_tokenizer, *post_processor, *decoder, *added_tokens;
    const char *model; /* further members of the model: "\"fuse_unk\": true" */
} parts;

/* Writes a tokenizer.json with the tokens of a list "a|b|c" (ids in this order) and merges "a b|ab
 * c", and gives its path. */
static inline const char *make_json(const char *name, const char *tokens, const char *merges,
                                    parts p)
{
    bytes b = {0};
    json_t *vocab = json_object(), *list = json_array();
    char *copy = strdup(tokens), *rest = copy;
    for (char *one; (one = strsep(&rest, "|"));)
        if (!json_object_get(vocab, one))
            json_object_set_new(vocab, one, json_integer((json_int_t)json_object_size(vocab)));
    free(copy);
    rest = copy = strdup(merges);
    for (char *one; *merges && (one = strsep(&rest, "|"));)
        json_array_append_new(list, json_string(one));
    free(copy);
    char *vocab_text = json_dumps(vocab, 0), *merges_text = json_dumps(list, 0);
    const char *texts[] = {"{\"normalizer\": ",
                           p.normalizer,
                           ", \"pre_tokenizer\": ",
                           p.pre_tokenizer,
                           ", \"post_processor\": ",
                           p.post_processor,
                           ", \"decoder\": ",
                           p.decoder,
                           ", \"added_tokens\": ",
                           p.added_tokens ? p.added_tokens : "[]",
                           ", \"model\": {\"type\": \"BPE\", ",
                           p.model ? p.model : "\"fuse_unk\": false",
                           ", \"vocab\": ",
                           vocab_text,
                           ", \"merges\": ",
                           merges_text,
                           "}}"};
    for (size_t i = 0; i < EQI_COUNT(texts); i++)
        put(&b, texts[i] ? texts[i] : "null", strlen(texts[i] ? texts[i] : "null"));
    const char *path = scratch(name);
    write_file(path, b.p, b.n);
    free(b.p);
    free(vocab_text);
    free(merges_text);
    json_decref(vocab);
    json_decref(list);
    return path;
}

static inline eqat_tokenizer *open_tokenizer(const char *path)
{
    eqat_tokenizer *t;
    OK(ctx, eqat_tokenizer_open(ctx, &t, path));
    return t;
}

/* The texts of the tokens that a text becomes, joined by "|". */
static inline const char *tokens_of(const eqat_tokenizer *t, const char *text, size_t n,
                                    uint32_t flags)
{
    static char out[1 << 16];
    const int32_t *ids;
    size_t count, at = 0;
    OK(ctx, eqat_tokenizer_encode(t, text, n, flags, &ids, &count));
    out[0] = 0;
    for (size_t i = 0; i < count; i++) {
        ck_assert(ids[i] >= 0 && ids[i] < eqat_tokenizer_vocab_size(t));
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%s", i ? "|" : "",
                               eqat_tokenizer_token_text(t, ids[i], NULL));
        ck_assert_uint_lt(at, sizeof out);
    }
    return out;
}

#define ck_tokens(t, text, flags, expected) \
    ck_assert_str_eq(tokens_of(t, text, strlen(text), flags), expected)

#endif
