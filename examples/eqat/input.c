#include "input.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "record.h"
#include "sha256.h"

#define PIECE (1u << 16)

static bool refuse(const char *path, const char *what, const char *why)
{
    fprintf(stderr, "eqat: %s: %s: %s\n", path, what, why);
    return false;
}

/* ---- standard input ---- */

static bool add(input *in, size_t *capacity, const char *piece, size_t n)
{
    if (in->length + n > *capacity) {
        *capacity = 2 * (in->length + n);
        char *grown = realloc(in->text, *capacity);
        if (!grown) return false;
        in->text = grown;
    }
    memcpy(in->text + in->length, piece, n);
    in->length += n;
    return true;
}

static bool read_standard_input(input *in)
{
    char piece[PIECE];
    size_t capacity = 0;
    for (size_t n; (n = fread(piece, 1, sizeof piece, stdin)) > 0;)
        if (!add(in, &capacity, piece, n))
            return refuse("standard input", "cannot keep it", "out of memory");
    return !ferror(stdin) || refuse("standard input", "cannot read", strerror(errno));
}

/* ---- hashes ---- */

static bool hash_file(const char *path, long long *bytes, char text[SHA256_TEXT])
{
    char piece[PIECE];
    sha256 h;
    FILE *f = fopen(path, "rb");
    if (!f) return refuse(path, "cannot open", strerror(errno));
    sha256_begin(&h);
    *bytes = 0;
    for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0; *bytes += (long long)n)
        sha256_add(&h, piece, n);
    bool failed = ferror(f);
    int err = errno;
    fclose(f);
    if (failed) return refuse(path, "cannot read", strerror(err));
    sha256_end(&h, text);
    return true;
}

static void hash_text(const input *in, char text[SHA256_TEXT])
{
    sha256 h;
    sha256_begin(&h);
    sha256_add(&h, in->text, in->length);
    sha256_end(&h, text);
}

bool input_take(tool *t, input *in, const char *use, const char *path)
{
    char text[SHA256_TEXT];
    long long bytes;
    bool standard = !strcmp(path, "-");
    *in = (input){.path = path};
    if (standard && !read_standard_input(in)) return false;
    if (!t->keeps && !t->log_path) return true;
    if (standard)
        hash_text(in, text);
    else if (!hash_file(path, &bytes, text))
        return false;
    record_file(t->run, use, path, standard ? (long long)in->length : bytes, text);
    return true;
}

void input_release(input *in)
{
    free(in->text);
    *in = (input){0};
}

/* ---- data ---- */

static eqat_status open_text(tool *t, const input *in, const eqat_tokenizer *tokenizer,
                             int64_t vocab, const eqat_data_options *options, eqat_data **out)
{
    const int32_t *ids;
    size_t count;
    if (!tokenizer)
        return tool_fail(t, EQAT_INVALID_ARGUMENT,
                         "standard input: found text but no tokenizer, expected a file of tokens");
    eqat_status st = eqat_tokenizer_encode(tokenizer, in->text ? in->text : "", in->length,
                                           EQAT_TOKENIZE_ADD_SPECIAL | EQAT_TOKENIZE_PARSE_SPECIAL,
                                           &ids, &count);
    return st == EQAT_OK ? eqat_data_from_tokens(t->ctx, out, ids, count, vocab, options) : st;
}

eqat_status input_open(tool *t, const input *in, eqat_model *model,
                       const eqat_data_options *options, eqat_data **out)
{
    const eqat_tokenizer *tokenizer = eqat_model_tokenizer(model);
    eqat_model_info info = {.struct_size = sizeof info};
    eqat_status st = eqat_model_inspect(model, &info);
    if (st != EQAT_OK) return st;
    if (!strcmp(in->path, "-")) return open_text(t, in, tokenizer, info.vocab_size, options, out);
    return eqat_data_open(t->ctx, out, in->path, tokenizer, info.vocab_size, options);
}
