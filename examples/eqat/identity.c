#include "identity.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sha256.h"

enum { PIECE = 1 << 16, STRIDE = 1 << 22, WHOLE = 1 << 24 };

/* ---- the model's files ---- */

static bool hash_pieces(FILE *f, long long size, sha256 *h)
{
    char piece[PIECE];
    long long stride = size <= WHOLE ? PIECE : STRIDE;
    for (long long at = 0; at < size; at += stride) {
        long long left = size - at, end = size - PIECE;
        if (left < stride && left > PIECE) /* the last of them ends where the file does */
            at = end;
        if (fseeko(f, at, SEEK_SET) != 0) return false;
        size_t n = fread(piece, 1, PIECE, f);
        if (n < PIECE && (long long)n < size - at) return false;
        sha256_add(h, piece, n);
    }
    return true;
}

static json_t *file_of(const char *path)
{
    char text[SHA256_TEXT];
    struct stat sb;
    sha256 h;
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    sha256_begin(&h);
    bool read = fstat(fileno(f), &sb) == 0 && hash_pieces(f, (long long)sb.st_size, &h);
    fclose(f);
    if (!read) return NULL;
    sha256_end(&h, text);
    return json_pack("{s:I,s:s}", "bytes", (json_int_t)sb.st_size, "sha256", text);
}

/* Not the record of how it was made. */
static int counts(const struct dirent *e)
{
    static const char *const endings[] = {".json", ".safetensors", ".gguf", ".model", ".txt"};
    size_t n = strlen(e->d_name);
    if (e->d_name[0] == '.' || !strncmp(e->d_name, "eqat_", 5)) return 0;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t m = strlen(endings[i]);
        if (n > m && !strcmp(e->d_name + n - m, endings[i])) return 1;
    }
    return 0;
}

static json_t *files_in(const char *folder)
{
    struct dirent **list;
    json_t *files = json_object();
    int n = scandir(folder, &list, counts, alphasort);
    bool all = n >= 0;
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", folder, list[i]->d_name);
        if (json_object_set_new(files, list[i]->d_name, file_of(path)) != 0) all = false;
        free(list[i]);
    }
    if (n >= 0) free(list);
    if (all) return files;
    json_decref(files);
    return NULL;
}

/* ---- of a run ---- */

static json_t *data_of(const json_t *run)
{
    json_t *files = json_deep_copy(json_object_get(run, "files")), *file;
    size_t i;
    json_array_foreach(files, i, file) json_object_del(file, "path");
    return files;
}

static json_t *options_of(const json_t *run)
{
    json_t *options = json_deep_copy(json_object_get(run, "options"));
    json_t *context = json_object_get(options, "context");
    json_object_del(context, "threads");
    json_object_del(context, "log_level");
    json_object_del(context, "device_memory");
    json_object_del(json_object_get(options, "block_ap"), "offload_dir");
    json_object_del(json_object_get(options, "block_ap"), "offload_memory");
    json_object_del(json_object_get(options, "e2e_qp"), "host_state");
    return options;
}

/* As it will be read from a file: numbers have ten digits there. */
static json_t *as_written(json_t *json)
{
    char *text = json_dumps(json, JSON_REAL_PRECISION(10));
    json_t *read = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    json_decref(json);
    return read;
}

/* NULL when they cannot be read. */
static json_t *files_of(const char *model)
{
    struct stat sb;
    if (stat(model, &sb) != 0) return NULL;
    return S_ISDIR(sb.st_mode) ? files_in(model) : file_of(model);
}

json_t *identity_of(const json_t *run)
{
    static const char *const members[] = {"command", "version", "method", "rules"};
    const char *teacher = json_string_value(json_object_get(run, "teacher"));
    json_t *files = files_of(json_string_value(json_object_get(run, "model")));
    json_t *taught = teacher ? files_of(teacher) : json_null();
    json_t *rest = json_pack("{s:o,s:o,s:o,s:o}", "model", files, "data", data_of(run), "options",
                             options_of(run), "teacher", taught);
    if (!rest) return NULL;
    /* In the order in which differences are told: a recipe's before the teacher that it takes. */
    json_t *of = json_object();
    for (size_t i = 0; i < sizeof members / sizeof *members; i++)
        json_object_set(of, members[i], json_object_get(run, members[i]));
    json_object_update(of, rest);
    json_decref(rest);
    return as_written(of);
}

char *identity_digest(const json_t *of)
{
    char *text = json_dumps(of, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(10));
    char *digest = text ? malloc(SHA256_TEXT) : NULL;
    sha256 h;
    sha256_begin(&h);
    if (digest) sha256_add(&h, text, strlen(text));
    if (digest) sha256_end(&h, digest);
    free(text);
    return digest;
}

/* ---- differences ---- */

static void value_text(const json_t *value, char text[96])
{
    const char *word = !value || json_is_null(value) ? "none" : "one";
    bool plain = value && !json_is_null(value) && !json_is_object(value) && !json_is_array(value);
    char *dumped = plain ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    snprintf(text, 96, "%.90s", dumped ? dumped : word);
    free(dumped);
}

static bool differ(const char *place, const json_t *found, const json_t *expected, char *line,
                   size_t size);

static bool members_differ(const char *place, const json_t *found, const json_t *expected,
                           const json_t *of, char *line, size_t size)
{
    const char *key;
    json_t *value;
    char inside[256];
    json_object_foreach((json_t *)of, key, value)
    {
        snprintf(inside, sizeof inside, "%s%s%s", place, *place ? "." : "", key);
        if (differ(inside, json_object_get(found, key), json_object_get(expected, key), line, size))
            return true;
    }
    return false;
}

static bool items_differ(const char *place, const json_t *found, const json_t *expected, char *line,
                         size_t size)
{
    char inside[256];
    size_t n = json_array_size(found), m = json_array_size(expected);
    for (size_t i = 0; i < n || i < m; i++) {
        snprintf(inside, sizeof inside, "%s.%zu", place, i);
        if (differ(inside, json_array_get(found, i), json_array_get(expected, i), line, size))
            return true;
    }
    return false;
}

static bool differ(const char *place, const json_t *found, const json_t *expected, char *line,
                   size_t size)
{
    char has[96], wants[96];
    if (json_is_object(found) && json_is_object(expected))
        return members_differ(place, found, expected, found, line, size) ||
            members_differ(place, found, expected, expected, line, size);
    if (json_is_array(found) && json_is_array(expected))
        return items_differ(place, found, expected, line, size);
    if (found == expected || (found && expected && json_equal(found, expected))) return false;
    value_text(found, has);
    value_text(expected, wants);
    snprintf(line, size, "%s: found %s, expected %s", place, has, wants);
    return true;
}

bool identity_difference(const json_t *found, const json_t *expected, char *line, size_t size)
{
    return differ("", found, expected, line, size);
}
