#include <jansson.h>
#include <string.h>

#include "data/tokenizer/utf8.h"
#include "data/tokens.h"
#include "format/json_load.h"

#define PIECE_BYTES (1u << 16)

static eqat_status encode(eqi_tokens *t, const eqat_tokenizer *tokenizer, const char *text,
                          size_t length)
{
    const int32_t *ids;
    size_t count;
    /* The rules of Hugging Face tokenizers: what spells a special token is one. */
    EQI_RETURN_IF(eqat_tokenizer_encode(tokenizer, text, length,
                                        EQAT_TOKENIZE_ADD_SPECIAL | EQAT_TOKENIZE_PARSE_SPECIAL,
                                        &ids, &count));
    return eqi_tokens_append(t, ids, count);
}

static const char *encoding_of(const char *text, size_t n)
{
    if (n >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2))) return "UTF-16";
    return n && memchr(text, 0, n < PIECE_BYTES ? n : PIECE_BYTES) ? "binary data" : NULL;
}

/* Text of another encoding would train on replacement characters. */
static eqat_status check_text(const eqi_tokens *t, const char *text, size_t n)
{
    const char *other = encoding_of(text, n);
    if (other)
        return eqi_fail(t->ctx, EQAT_FORMAT, "%s: found %s, expected text in UTF-8", t->name,
                        other);
    size_t good = eqi_utf8_valid(text, n);
    if (good < n)
        eqi_log(t->ctx, EQI_LOG_WARN,
                "%s: byte %zu: found what is not UTF-8, expected text in UTF-8: it is read as "
                "U+FFFD",
                t->name, good);
    return EQAT_OK;
}

static eqat_status read_plain(eqi_tokens *t, const char *path, const eqat_tokenizer *tokenizer)
{
    char *text;
    size_t length;
    EQI_RETURN_IF(eqi_file_slurp(t->ctx, path, SIZE_MAX / 2, &text, &length));
    eqat_status st = check_text(t, text, length);
    if (st == EQAT_OK && length) st = encode(t, tokenizer, text, length);
    eqi_free(t->ctx, text);
    return st;
}

static eqat_status refuse_record(eqi_tokens *t, const json_t *record, const char *key,
                                 int64_t number)
{
    const char *before = "no \"", *after = "\"";
    if (!json_is_object(record)) {
        before = "something else than an object";
        after = "";
    } else if (json_object_get(record, key)) {
        before = "a \"";
        after = "\" that is no string";
    }
    return eqi_fail(t->ctx, EQAT_FORMAT,
                    "%s: line %lld: found %s%s%s, expected an object with a string \"%s\"", t->name,
                    (long long)number, before, *after ? key : "", after, key);
}

/* Python writes numbers that JSON has no names for: they become 0, in place. Returns whether there
 * was one. */
static bool replace_numbers(char *line, size_t n)
{
    static const char *const names[] = {"-Infinity", "Infinity", "NaN"};
    bool in_string = false, any = false;
    for (size_t i = 0; i < n; i++) {
        if (line[i] == '"') in_string = !in_string;
        if (in_string && line[i] == '\\') i++;
        for (size_t k = 0; !in_string && k < EQI_COUNT(names); k++) {
            size_t length = strlen(names[k]);
            if (n - i < length || memcmp(line + i, names[k], length) != 0) continue;
            memset(line + i, ' ', length);
            line[i] = '0';
            any = true;
        }
    }
    return any;
}

static eqat_status refuse_line(const eqi_tokens *t, const char *line, int64_t number,
                               const json_error_t *error)
{
    size_t blank = strspn(line, " \t\r");
    const char *found = line[blank] == '[' ? "an array" : "an object over several lines";
    bool open = line[blank + 1 + strspn(line + blank + 1, " \t\r")] == 0;
    if (line[blank] == '[' || (line[blank] == '{' && open))
        return eqi_fail(t->ctx, EQAT_FORMAT,
                        "%s: line %lld: found %s, expected JSON Lines: one object a line", t->name,
                        (long long)number, found);
    return eqi_fail(t->ctx, EQAT_FORMAT, "%s: line %lld, byte %d: found %s, expected a JSON object",
                    t->name, (long long)number, error->position, error->text);
}

/* line[length] is 0; may be changed. */
static eqat_status record(eqi_tokens *t, const eqat_tokenizer *tokenizer, const char *key,
                          char *line, size_t length, int64_t number)
{
    static const char mark[] = "\xef\xbb\xbf";
    if (number == 1 && !strncmp(line, mark, 3)) {
        line += 3;
        length -= 3;
    }
    if (strspn(line, " \t\r") == length) return EQAT_OK;
    json_error_t error;
    json_t *json = eqi_json_load(line, length, JSON_ALLOW_NUL, &error);
    if (!json && replace_numbers(line, length))
        json = eqi_json_load(line, length, JSON_ALLOW_NUL, &error);
    if (!json) return refuse_line(t, line, number, &error);
    const json_t *text = json_object_get(json, key);
    eqat_status st = json_is_string(text)
        ? encode(t, tokenizer, json_string_value(text), json_string_length(text))
        : refuse_record(t, json, key, number);
    json_decref(json);
    return st;
}

/* The line in work and the piece of file behind it. */
typedef struct reader {
    eqi_file *file;
    uint64_t at; /* in the file */
    char *line;
    size_t length, capacity; /* line[length] is kept 0 */
    char *piece;
    size_t used, filled;
} reader;

static eqat_status add_to_line(reader *r, const char *p, size_t n)
{
    if (r->length + n + 1 > r->capacity) {
        size_t capacity = 2 * (r->length + n + 1);
        char *grown = eqi_realloc(r->file->ctx, r->line, capacity, "a line of a JSONL file");
        if (!grown) return EQAT_OUT_OF_MEMORY;
        r->line = grown;
        r->capacity = capacity;
    }
    memcpy(r->line + r->length, p, n);
    r->length += n;
    r->line[r->length] = 0;
    return EQAT_OK;
}

/* *more is false at the end of the file. */
static eqat_status next_line(reader *r, bool *more)
{
    r->length = 0;
    *more = false;
    for (;;) {
        if (r->used == r->filled) {
            uint64_t left = r->file->size - r->at;
            if (left == 0) return EQAT_OK;
            r->used = 0;
            r->filled = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
            EQI_RETURN_IF(eqi_file_read(r->file, r->piece, r->at, r->filled));
            r->at += r->filled;
        }
        const char *p = r->piece + r->used, *end = memchr(p, '\n', r->filled - r->used);
        size_t n = end ? (size_t)(end - p) : r->filled - r->used;
        EQI_RETURN_IF(add_to_line(r, p, n));
        *more = true;
        r->used += n + (end != NULL);
        if (end) return EQAT_OK;
    }
}

static eqat_status read_jsonl(eqi_tokens *t, const char *path, const char *key,
                              const eqat_tokenizer *tokenizer)
{
    reader r = {0};
    EQI_RETURN_IF(eqi_file_open(t->ctx, &r.file, path));
    eqat_status st = EQAT_OK;
    r.piece = eqi_alloc(t->ctx, PIECE_BYTES, "a piece of a JSONL file");
    if (!r.piece) st = EQAT_OUT_OF_MEMORY;
    bool more = true;
    for (int64_t number = 1; st == EQAT_OK; number++) {
        st = next_line(&r, &more);
        if (st != EQAT_OK || !more) break;
        st = record(t, tokenizer, key, r.line, r.length, number);
    }
    eqi_free(t->ctx, r.line);
    eqi_free(t->ctx, r.piece);
    eqi_file_close(r.file);
    return st;
}

eqat_status eqi_text_read(eqi_tokens *t, const char *path, const char *key,
                          const eqat_tokenizer *tokenizer)
{
    if (!key) key = "text";
    eqat_status st = eqi_path_ends(path, ".jsonl") ? read_jsonl(t, path, key, tokenizer)
                                                   : read_plain(t, path, tokenizer);
    eqat_tokenizer_release_buffers(tokenizer);
    return st;
}
