#include "output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "identity.h"

#define CONFIG "eqat_config.json"
#define LOG "eqat_log.jsonl"
#define INSIDE (PATH_MAX + NAME_MAX + 2) /* room for a path inside such a folder */

static bool is_dot(const char *name) { return !strcmp(name, ".") || !strcmp(name, ".."); }

static bool is_empty_folder(const char *path)
{
    DIR *d = opendir(path);
    if (!d) return false;
    bool empty = true;
    for (struct dirent *e; empty && (e = readdir(d));) empty = is_dot(e->d_name);
    closedir(d);
    return empty;
}

static void beside(const char *out, const char *word, char path[PATH_MAX])
{
    int length = (int)strlen(out);
    while (length > 1 && out[length - 1] == '/') length--;
    snprintf(path, PATH_MAX, "%.*s.%s-%ld", length, out, word, (long)getpid());
}

static void in_folder(const char *dir, const char *name, char path[INSIDE])
{
    snprintf(path, INSIDE, "%s/%s", dir, name);
}

/* The record last: by it another run knows what it may remove. False: something is left. */
static bool remove_result(const char *dir)
{
    if (unlink(dir) == 0) return true; /* a file */
    char path[INSIDE];
    bool all = true;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        in_folder(dir, e->d_name, path);
        if (!is_dot(e->d_name) && strcmp(e->d_name, CONFIG) != 0 && unlink(path) != 0) all = false;
    }
    if (d) closedir(d);
    in_folder(dir, CONFIG, path);
    return all && (unlink(path) == 0 || errno == ENOENT) && rmdir(dir) == 0;
}

/* ---- what runs that were killed left ---- */

/* "OUT.word-PID" and what its owner built beside that. */
static bool is_left_over(const char *name, const char *base, size_t length, const char *word)
{
    char *end;
    size_t n = strlen(word);
    if (strncmp(name, base, length) != 0 || strncmp(name + length, word, n) != 0) return false;
    long pid = strtol(name + length + n, &end, 10);
    if (pid <= 0 || pid > INT_MAX || (*end && *end != '.' && *end != '-')) return false;
    return pid == getpid() || (kill((pid_t)pid, 0) != 0 && errno == ESRCH);
}

/* Between two renames it may have been the only copy of what was there. */
static void clear(const char *out, const char *path, bool before)
{
    if (before && access(out, F_OK) != 0)
        rename(path, out);
    else
        remove_result(path);
}

static void parent_of(const char *out, char parent[PATH_MAX], const char **base, size_t *length)
{
    size_t n = strlen(out);
    while (n > 1 && out[n - 1] == '/') n--;
    size_t start = n;
    while (start > 0 && out[start - 1] != '/') start--;
    snprintf(parent, PATH_MAX, "%.*s", start ? (int)start : 1, start ? out : ".");
    *base = out + start;
    *length = n - start;
}

static void clear_left_overs(const char *out)
{
    char parent[PATH_MAX], path[INSIDE];
    const char *base;
    size_t length;
    parent_of(out, parent, &base, &length);
    DIR *d = opendir(parent);
    for (struct dirent *e; d && (e = readdir(d));) {
        bool before = is_left_over(e->d_name, base, length, ".before-");
        if (!before && !is_left_over(e->d_name, base, length, ".partial-")) continue;
        in_folder(parent, e->d_name, path);
        clear(out, path, before);
    }
    if (d) closedir(d);
}

/* ---- what may be replaced ---- */

static eqat_status refuse(tool *t, const char *out, const char *found, const char *expected)
{
    return tool_fail(t, EQAT_EXISTS, "%s: found %s, expected %s", out, found, expected);
}

/* Files alone, so that replacing it never deletes a tree. */
static eqat_status check_files(tool *t, const char *out)
{
    char path[INSIDE], found[NAME_MAX + 16] = "";
    struct stat sb;
    DIR *d = opendir(out);
    if (!d) return tool_fail(t, EQAT_IO, "%s: cannot read: %s", out, strerror(errno));
    for (struct dirent *e; !*found && (e = readdir(d));) {
        in_folder(out, e->d_name, path);
        if (!is_dot(e->d_name) && lstat(path, &sb) == 0 && S_ISDIR(sb.st_mode))
            snprintf(found, sizeof found, "a folder %s", e->d_name);
    }
    closedir(d);
    return *found ? refuse(t, out, found, "a model's folder of files alone to replace") : EQAT_OK;
}

static eqat_status check_replaced(tool *t, const output *out, const struct stat *there)
{
    char config[INSIDE];
    struct stat sb;
    in_folder(out->path, "config.json", config);
    if (!out->force)
        return refuse(t, out->path, "a folder that is not empty",
                      "a new or empty folder (--force replaces a model's)");
    if (lstat(config, &sb) != 0)
        return refuse(t, out->path, "a folder without config.json", "a model's folder to replace");
    if (stat(out->model, &sb) == 0 && sb.st_ino == there->st_ino && sb.st_dev == there->st_dev)
        return refuse(t, out->path, "the input itself", "another folder");
    return check_files(t, out->path);
}

/* An empty folder takes the way that the result will. */
static eqat_status try_place(tool *t, const char *out, bool empty)
{
    char probe[PATH_MAX];
    beside(out, "partial", probe);
    if (mkdir(probe, 0777) != 0)
        return tool_fail(t, EQAT_IO, "%s: cannot create the output folder: %s", out,
                         strerror(errno));
    int failed = empty && rename(probe, out) != 0 ? errno : 0;
    if (!empty || failed) rmdir(probe);
    if (failed == EBUSY || failed == EXDEV)
        return refuse(t, out, "a mount point", "a new folder, for example inside it");
    return failed
        ? tool_fail(t, EQAT_IO, "%s: cannot put a folder in its place: %s", out, strerror(failed))
        : EQAT_OK;
}

/* What is a file and not a folder. */
static bool is_file(const eqat_save_options *options)
{
    return options->format && !strcmp(options->format, "gguf");
}

static bool ends_in(const char *path, const char *ending)
{
    size_t n = strlen(path), m = strlen(ending);
    return n > m && !strcmp(path + n - m, ending);
}

static eqat_status check_replaced_file(tool *t, const output *out, const struct stat *there)
{
    struct stat sb;
    if (!S_ISREG(there->st_mode))
        return refuse(t, out->path, "something that is not a file", "a new path for a file");
    if (!out->force) return refuse(t, out->path, "a file", "a new path (--force replaces a file)");
    bool input =
        stat(out->model, &sb) == 0 && sb.st_ino == there->st_ino && sb.st_dev == there->st_dev;
    return input ? refuse(t, out->path, "the input itself", "another path") : EQAT_OK;
}

static eqat_status check_file(tool *t, const output *out)
{
    char probe[PATH_MAX];
    struct stat sb;
    eqat_status st = lstat(out->path, &sb) == 0 ? check_replaced_file(t, out, &sb) : EQAT_OK;
    if (st != EQAT_OK) return st;
    beside(out->path, "partial", probe);
    int fd = open(probe, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd < 0)
        return tool_fail(t, EQAT_IO, "%s: cannot create the output file: %s", out->path,
                         strerror(errno));
    close(fd);
    unlink(probe);
    return EQAT_OK;
}

eqat_status output_check(tool *t, const output *out, const eqat_save_options *options)
{
    struct stat sb;
    clear_left_overs(out->path);
    if (is_file(options)) return check_file(t, out);
    if (ends_in(out->path, ".gguf"))
        return tool_fail(t, EQAT_INVALID_ARGUMENT,
                         "%s: found the name of a file for a format that is a folder, expected "
                         "--format gguf or another name",
                         out->path);
    bool there = lstat(out->path, &sb) == 0;
    if (there && !S_ISDIR(sb.st_mode))
        return refuse(t, out->path, "something that is not a folder", "a new or empty folder");
    bool empty = there && is_empty_folder(out->path);
    eqat_status st = there && !empty ? check_replaced(t, out, &sb) : EQAT_OK;
    return st == EQAT_OK ? try_place(t, out->path, empty) : st;
}

/* ---- record and log ---- */

static json_t *load_config(const char *dir)
{
    char path[INSIDE];
    in_folder(dir, CONFIG, path);
    return json_load_file(path, 0, NULL);
}

bool output_is_of(const char *out, const json_t *run)
{
    json_t *config = load_config(out), *made;
    size_t i;
    bool found = false;
    json_array_foreach(json_object_get(config, "runs"), i, made) if (json_equal(made, run)) found =
        true;
    json_decref(config);
    return found;
}

bool output_is_same(tool *t, const output *out, const json_t *of)
{
    char *digest = identity_digest(of);
    json_object_set_new(t->run, "identity", json_string(digest));
    json_t *config = load_config(out->path), *runs = json_object_get(config, "runs");
    const json_t *last = json_array_get(runs, json_array_size(runs) - 1);
    const char *found = json_string_value(json_object_get(last, "identity"));
    bool same = !out->force && found && digest && !strcmp(found, digest);
    json_decref(config);
    free(digest);
    return same;
}

bool output_log_has(const char *out, const char *event)
{
    char path[INSIDE], *line = NULL;
    size_t size = 0;
    bool found = false;
    in_folder(out, LOG, path);
    FILE *f = fopen(path, "rb");
    while (f && !found && getline(&line, &size, f) >= 0) {
        if (!strstr(line, event)) continue;
        json_t *told = json_loads(line, 0, NULL);
        const char *name = json_string_value(json_object_get(told, "event"));
        found = name && !strcmp(name, event);
        json_decref(told);
    }
    free(line);
    if (f) fclose(f);
    return found;
}

void output_inherit(tool *t, const char *model)
{
    char path[INSIDE], piece[1 << 14];
    json_t *config = load_config(model);
    json_array_extend(t->runs, json_object_get(config, "runs"));
    json_decref(config);
    in_folder(model, LOG, path);
    FILE *log = t->kept ? fopen(path, "rb") : NULL;
    for (size_t n; log && (n = fread(piece, 1, sizeof piece, log)) > 0;)
        fwrite(piece, 1, n, t->kept);
    if (log) fclose(log);
}

static eqat_status close_file(tool *t, FILE *f, const char *path, bool failed)
{
    if (f) failed |= fflush(f) != 0 || fsync(fileno(f)) != 0;
    int err = errno;
    if (f) failed |= fclose(f) != 0;
    return failed ? tool_fail(t, EQAT_IO, "%s: cannot write: %s", path, strerror(err)) : EQAT_OK;
}

static eqat_status write_config(tool *t, const char *dir)
{
    char path[INSIDE];
    in_folder(dir, CONFIG, path);
    FILE *f = fopen(path, "wb");
    json_t *config = json_pack("{s:O}", "runs", t->runs);
    bool failed = !f || !config ||
        json_dumpf(config, f, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(10)) != 0;
    if (!failed) fputc('\n', f);
    json_decref(config);
    return close_file(t, f, path, failed);
}

static eqat_status write_log(tool *t, const char *dir)
{
    char path[INSIDE], piece[1 << 14];
    in_folder(dir, LOG, path);
    FILE *f = fopen(path, "wb");
    bool failed = !f || ferror(t->kept) || fflush(t->kept) != 0;
    rewind(t->kept);
    for (size_t n; !failed && (n = fread(piece, 1, sizeof piece, t->kept)) > 0;)
        failed = fwrite(piece, 1, n, f) != n;
    return close_file(t, f, path, failed);
}

/* ---- from beside its place into it ---- */

/* Filesystems that cannot are not asked twice. */
static bool sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return true;
    bool done = fsync(fd) == 0 || errno == EINVAL;
    close(fd);
    return done;
}

static bool replace(const char *partial, const char *out)
{
    char before[PATH_MAX];
    beside(out, "before", before);
    if (rename(out, before) != 0) return false;
    if (rename(partial, out) == 0) {
        remove_result(before); /* a run that is killed here leaves it to the next */
        return true;
    }
    int err = errno;
    rename(before, out);
    errno = err;
    return false;
}

static eqat_status put_in_place(tool *t, const output *out, const char *partial)
{
    bool full = access(out->path, F_OK) == 0 && !is_empty_folder(out->path);
    char parent[PATH_MAX];
    const char *base;
    size_t length;
    parent_of(out->path, parent, &base, &length);
    struct stat sb;
    bool placed = false;
    if (full && !out->force && stat(partial, &sb) == 0 && S_ISREG(sb.st_mode))
        errno = EEXIST; /* came there meanwhile, and renaming would put an end to it */
    else
        placed = sync_folder(partial) &&
            (out->force && full ? replace(partial, out->path) : rename(partial, out->path) == 0);
    if (placed && sync_folder(parent)) return EQAT_OK;
    return tool_fail(t, errno == ENOTEMPTY || errno == EEXIST ? EQAT_EXISTS : EQAT_IO,
                     "%s: cannot put the result in its place: %s", out->path, strerror(errno));
}

static void tell(tool *t, const output *out, const eqat_model_info *info)
{
    tool_set(t, "model", tool_text(out->model));
    tool_set(t, "out", tool_text(out->path));
    tool_set(t, "bits_per_linear_parameter", json_real(info->linear_bits));
    tool_set(t, "bytes", json_integer(info->bytes));
    char device[128] = "";
    if (tool_has_device_memory(t))
        snprintf(device, sizeof device, ", on %.64s %.0f MB", t->context.device,
                 (double)eqat_context_device_bytes_peak(t->ctx) / 1e6);
    tool_say(t,
             "%s: %.2f bits per parameter of the linears, %.1f MB in all, %.0f s, peak memory "
             "%.0f MB%s",
             out->path, info->linear_bits, (double)info->bytes / 1e6, tool_seconds() - t->started,
             (double)tool_peak_rss() / 1e6, device);
}

/* Of the files with weights that are there: a folder's, or the one. */
static int64_t weight_bytes(const char *path)
{
    int64_t sum = 0;
    struct stat sb;
    char inside[INSIDE];
    DIR *d = opendir(path);
    if (!d) return stat(path, &sb) == 0 ? sb.st_size : 0;
    for (struct dirent *e; (e = readdir(d));) {
        const char *dot = strrchr(e->d_name, '.');
        in_folder(path, e->d_name, inside);
        if (dot && !strcmp(dot, ".safetensors") && stat(inside, &sb) == 0) sum += sb.st_size;
    }
    closedir(d);
    return sum;
}

/* Complete at `to`, with record and log. */
static eqat_status save(tool *t, const output *to, eqat_model *model,
                        const eqat_save_options *options, eqat_model_info *info)
{
    char partial[PATH_MAX];
    eqat_save_options told = *options;
    told.progress = tool_between;
    told.progress_user = t;
    beside(to->path, "partial", partial);
    eqat_status st = eqat_model_save(model, partial, &told);
    if (st != EQAT_OK) return st;
    st = eqat_model_inspect(model, info);
    info->bytes = weight_bytes(partial);
    if (!strcmp(options->format, "fp16")) info->linear_bits = 16;
    if (st == EQAT_OK) {
        tool_event(t,
                   tool_with_peaks(t,
                                   json_pack("{s:s,s:o,s:I,s:I,s:f,s:f}", "event", "saved", "path",
                                             tool_text(to->path), "bytes", (json_int_t)info->bytes,
                                             "input_bytes", (json_int_t)t->input_bytes,
                                             "bits_per_linear_parameter", info->linear_bits,
                                             "seconds", tool_seconds() - t->started)));
        if (!is_file(options)) st = write_config(t, partial);
    }
    if (st == EQAT_OK && !is_file(options)) st = write_log(t, partial);
    if (st == EQAT_OK) st = put_in_place(t, to, partial);
    if (st != EQAT_OK) remove_result(partial);
    return st;
}

eqat_status output_save(tool *t, const output *out, eqat_model *model,
                        const eqat_save_options *options)
{
    eqat_model_info info = {.struct_size = sizeof info};
    eqat_status st = save(t, out, model, options, &info);
    if (st == EQAT_OK) tell(t, out, &info);
    return st;
}

void output_log_on(tool *t, const output *out, const eqat_save_options *options, long long from)
{
    char path[INSIDE];
    long long bytes;
    in_folder(out->path, LOG, path);
    FILE *f = is_file(options) ? NULL : fopen(path, "ab");
    if (!f) return;
    fseek(f, 0, SEEK_END);
    (void)tool_log_copy(t, from < 0 ? ftell(f) : from, f, &bytes);
    fclose(f);
}

/* ---- the result of a phase ---- */

static output stage_of(const output *out, char path[PATH_MAX])
{
    output stage = *out;
    int length = (int)strlen(out->path);
    while (length > 1 && out->path[length - 1] == '/') length--;
    snprintf(path, PATH_MAX, "%.*s.block-ap", length, out->path);
    stage.path = path;
    return stage;
}

eqat_status output_check_stage(tool *t, const output *out, const eqat_save_options *options)
{
    char path[PATH_MAX];
    output stage = stage_of(out, path);
    return output_check(t, &stage, options);
}

eqat_status output_save_stage(tool *t, output *out, eqat_model *model,
                              const eqat_save_options *options)
{
    char path[PATH_MAX];
    output stage = stage_of(out, path);
    eqat_model_info info = {.struct_size = sizeof info};
    eqat_status st = save(t, &stage, model, options, &info);
    out->staged = st == EQAT_OK;
    return st;
}

void output_drop_stage(const output *out, const json_t *run)
{
    char path[PATH_MAX];
    output stage = stage_of(out, path);
    if (output_is_of(stage.path, run)) remove_result(stage.path);
}

void output_end_stage(tool *t, output *out, eqat_status status, const char *from_there)
{
    char path[PATH_MAX];
    output stage = stage_of(out, path);
    if (out->staged && status == EQAT_OK) {
        out->staged = !remove_result(stage.path);
        if (out->staged)
            tool_warn(t, "%s: cannot remove it, which nothing needs any more: %s", stage.path,
                      strerror(errno));
        return;
    }
    if (out->staged)
        tool_warn(t,
                  "%s holds the result of Block-AP; eqat e2e-qp %s --out %s%s goes on from it, "
                  "with the options of this command for sampling and E2E-QP",
                  stage.path, stage.path, out->path, from_there);
}

eqat_status output_found(tool *t, const output *out)
{
    eqat_model *model = NULL;
    eqat_model_info info = {.struct_size = sizeof info};
    clear_left_overs(out->path);
    eqat_status st = eqat_model_open(t->ctx, &model, out->path, NULL);
    if (st == EQAT_OK) st = eqat_model_inspect(model, &info);
    if (st == EQAT_OK) tell(t, out, &info);
    eqat_model_free(model);
    return st;
}
