#include "checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "identity.h"

#define MANIFEST "checkpoint.json"
#define NEXT_MANIFEST MANIFEST ".next"
#define LOG "log.jsonl"
#define ENDING ".safetensors"
enum { VERSION = 1 };

/* ---- flags ---- */

static bool read_number(const char *flag, const char *text, int64_t *number)
{
    char *end;
    if (!text) return true;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (*text && !*end && !errno && value >= 0 && value <= INT_MAX) {
        *number = value;
        return true;
    }
    fprintf(stderr, "eqat: --%s: found \"%s\", expected 0 to %d\n", flag, text, INT_MAX);
    return false;
}

int checkpoint_check(checkpoint *c)
{
    int64_t seconds = 600;
    const char *alone = c->seconds_text ? "seconds" : c->steps_text ? "steps" : NULL;
    if (!c->dir && alone)
        return flags_refuse("--checkpoint-%s: found it without --checkpoint-dir", alone);
    if (!read_number("checkpoint-steps", c->steps_text, &c->steps)) return 2;
    if (!read_number("checkpoint-seconds", c->seconds_text, &seconds)) return 2;
    c->seconds = (double)seconds;
    return -1;
}

/* ---- the folder ---- */

static char *in_folder(const checkpoint *c, const char *name)
{
    size_t n = strlen(c->dir) + strlen(name) + 2;
    char *path = malloc(n);
    if (path) snprintf(path, n, "%s/%s", c->dir, name);
    return path;
}

static eqat_status take_folder(tool *t, checkpoint *c)
{
    if (mkdir(c->dir, 0777) != 0 && errno != EEXIST)
        return tool_fail(t, EQAT_IO, "%s: cannot create the folder of the checkpoint: %s", c->dir,
                         strerror(errno));
    c->folder = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (c->folder < 0)
        return tool_fail(t, EQAT_IO, "%s: cannot open the folder of the checkpoint: %s", c->dir,
                         strerror(errno));
    /* Filesystems without locks of folders do without. */
    if (flock(c->folder, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return tool_fail(t, EQAT_EXISTS,
                         "%s: found it in use by another run, expected a folder of this run's own",
                         c->dir);
    return EQAT_OK;
}

static json_t *states_of(const checkpoint *c) { return json_object_get(c->manifest, "states"); }

static bool is_state(const char *name)
{
    return (!strncmp(name, "block-ap-", 9) || !strncmp(name, "e2e-qp-", 7)) &&
        strstr(name, ENDING) && !strchr(name, '/');
}

static bool is_ours(const char *name)
{
    return is_state(name) || !strcmp(name, LOG) || !strcmp(name, NEXT_MANIFEST) ||
        !strcmp(name, MANIFEST);
}

static bool is_named(const checkpoint *c, const char *name)
{
    const char *phase;
    json_t *file;
    if (!strcmp(name, MANIFEST) || !strcmp(name, LOG)) return true;
    json_object_foreach(states_of(c), phase,
                        file) if (!strcmp(json_string_value(file), name)) return true;
    return false;
}

/* Files that the manifest does not name are what a run that was killed had begun. */
static eqat_status clean(tool *t, const checkpoint *c)
{
    DIR *d = opendir(c->dir);
    if (!d) return tool_fail(t, EQAT_IO, "%s: cannot read: %s", c->dir, strerror(errno));
    char other[NAME_MAX + 1] = "";
    for (struct dirent *e; (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (!is_ours(e->d_name))
            snprintf(other, sizeof other, "%s", e->d_name);
        else if (c->manifest && !is_named(c, e->d_name))
            unlinkat(dirfd(d), e->d_name, 0);
    }
    closedir(d);
    if (!*other || c->manifest) return EQAT_OK;
    return tool_fail(t, EQAT_EXISTS,
                     "%s: found %s, expected a checkpoint's folder, an empty or a new one", c->dir,
                     other);
}

/* ---- the manifest ---- */

/* Takes the reference. */
static eqat_status commit(tool *t, checkpoint *c, json_t *manifest)
{
    errno = 0;
    int fd = openat(c->folder, NEXT_MANIFEST, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
                    0666);
    bool done = fd >= 0 && manifest &&
        json_dumpfd(manifest, fd, JSON_INDENT(2) | JSON_REAL_PRECISION(10)) == 0 && fsync(fd) == 0;
    if (fd >= 0 && close(fd) != 0) done = false;
    if (done) done = renameat(c->folder, NEXT_MANIFEST, c->folder, MANIFEST) == 0;
    if (!done) {
        const int why = errno ? errno : ENOSPC; /* a write that is cut short tells nothing */
        json_decref(manifest);
        return tool_fail(t, EQAT_IO, "%s/" MANIFEST ": cannot write: %s", c->dir, strerror(why));
    }
    json_decref(c->manifest);
    c->manifest = manifest;
    fsync(c->folder);
    return EQAT_OK;
}

/* The folder may come from a stranger: what is named is read, and removed at the end. */
static bool names_states(const json_t *states)
{
    const char *phase;
    json_t *file;
    json_object_foreach((json_t *)states, phase,
                        file) if (!json_is_string(file) ||
                                  !is_state(json_string_value(file))) return false;
    return json_is_object(states);
}

static bool is_sound(const json_t *runs, const json_t *states, json_int_t bytes, json_int_t number)
{
    return json_is_array(runs) && names_states(states) && bytes >= 0 && number >= 0 &&
        number < INT_MAX;
}

static eqat_status load_manifest(tool *t, checkpoint *c)
{
    char *path = in_folder(c, MANIFEST);
    json_error_t error;
    if (access(path, F_OK) != 0) {
        free(path);
        return EQAT_OK;
    }
    c->manifest = json_load_file(path, 0, &error);
    free(path);
    if (!c->manifest)
        return tool_fail(t, EQAT_FORMAT, "%s/" MANIFEST ": found no JSON: %s", c->dir, error.text);
    int version = -1;
    json_t *of, *runs, *states, *first;
    json_int_t bytes, number;
    if (json_unpack(c->manifest, "{s:i,s:o,s:o,s:o,s:o,s:I,s:I}", "eqat_checkpoint", &version, "of",
                    &of, "run", &first, "runs", &runs, "states", &states, "log_bytes", &bytes,
                    "number", &number) != 0 ||
        version != VERSION)
        return tool_fail(t, EQAT_FORMAT, "%s/" MANIFEST ": found version %d, expected %d: damaged?",
                         c->dir, version, VERSION);
    if (is_sound(runs, states, bytes, number)) return EQAT_OK;
    return tool_fail(t, EQAT_FORMAT,
                     "%s/" MANIFEST ": found a number or a name of a state that no run writes: "
                     "damaged?",
                     c->dir);
}

/* What the log in the folder lacks. */
static bool append_log(tool *t, const checkpoint *c, long long *bytes)
{
    long long before = json_integer_value(json_object_get(c->manifest, "log_bytes"));
    int fd = openat(c->folder, LOG, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0666);
    FILE *f = fd >= 0 ? fdopen(fd, "wb") : NULL;
    if (!f && fd >= 0) close(fd);
    if (!f) return false;
    bool done = ftruncate(fd, before) == 0 && fseek(f, (long)before, SEEK_SET) == 0 &&
        tool_log_copy(t, before, f, bytes) && fflush(f) == 0 && fsync(fd) == 0;
    return fclose(f) == 0 && done;
}

static eqat_status fail_log(tool *t, const checkpoint *c)
{
    return tool_fail(t, EQAT_IO, "%s/" LOG ": cannot write: %s", c->dir, strerror(errno));
}

static eqat_status begin_manifest(tool *t, checkpoint *c, json_t *of)
{
    long long bytes = 0;
    if (!append_log(t, c, &bytes)) return fail_log(t, c);
    return commit(t, c,
                  json_pack("{s:i,s:O,s:O,s:O,s:{},s:I,s:i}", "eqat_checkpoint", VERSION, "of", of,
                            "run", t->run, "runs", t->runs, "states", "log_bytes",
                            (json_int_t)bytes, "number", 0));
}

/* ---- from one run to the next ---- */

/* What differs in any way from a run to the next stands in the log, which goes on. */
static eqat_status take_up(tool *t, checkpoint *c)
{
    json_int_t bytes = json_integer_value(json_object_get(c->manifest, "log_bytes"));
    int fd = bytes ? openat(c->folder, LOG, O_WRONLY | O_NOFOLLOW | O_CLOEXEC) : -1;
    char *path = in_folder(c, LOG);
    bool done = !bytes || (fd >= 0 && tool_log_before(t, path, bytes) && ftruncate(fd, bytes) == 0);
    int err = errno;
    if (fd >= 0) close(fd);
    free(path);
    if (!done)
        return tool_fail(t, EQAT_IO, "%s/" LOG ": cannot read %lld bytes: %s", c->dir,
                         (long long)bytes, strerror(err));
    json_t *runs = json_copy(json_object_get(c->manifest, "runs"));
    json_array_append(runs, t->run);
    json_decref(t->runs);
    t->runs = runs;
    return EQAT_OK;
}

static eqat_status match(tool *t, checkpoint *c, const json_t *of)
{
    char line[512];
    if (!identity_difference(json_object_get(c->manifest, "of"), of, line, sizeof line))
        return EQAT_OK;
    return tool_fail(t, EQAT_INVALID_ARGUMENT,
                     "%s: %s of this command; another --checkpoint-dir begins anew", c->dir, line);
}

/* A result that is in its place is not made again: by the run that this checkpoint is of, or, when
 * it had removed that by the time it was killed, by one that was the same. */
static bool is_placed(tool *t, checkpoint *c, const json_t *of, const output *out)
{
    const json_t *run = json_object_get(c->manifest, "run");
    bool same = output_is_same(t, out, of), placed = run ? output_is_of(out->path, run) : same;
    if (run) output_drop_stage(out, run);
    return placed;
}

eqat_status checkpoint_open(tool *t, checkpoint *c, const output *out)
{
    if (!c->dir) return EQAT_OK;
    json_t *of = identity_of(t->run);
    eqat_status st = of ? take_folder(t, c) : tool_fail(t, EQAT_IO, "the model cannot be read");
    if (st == EQAT_OK) st = load_manifest(t, c);
    if (st == EQAT_OK && c->manifest) st = match(t, c, of);
    if (st == EQAT_OK) st = clean(t, c);
    if (st == EQAT_OK) c->placed = is_placed(t, c, of, out);
    if (st == EQAT_OK && !c->placed) st = c->manifest ? take_up(t, c) : begin_manifest(t, c, of);
    json_decref(of);
    c->last = tool_seconds();
    return st;
}

char *checkpoint_state(const checkpoint *c, const char *phase)
{
    const char *name = json_string_value(json_object_get(states_of(c), phase));
    return name ? in_folder(c, name) : NULL;
}

void checkpoint_resumed(tool *t, checkpoint *c, const char *phase)
{
    tool_resume_phase(t);
    if (t->context.log_level >= EQAT_LOG_INFO)
        fprintf(stderr, "eqat: goes on from the checkpoint in %s: %s\n", c->dir, phase);
    tool_event(
        t,
        json_pack("{s:s,s:s,s:o}", "event", "resumed", "phase", phase, "path", tool_text(c->dir)));
    c->last = tool_seconds();
}

/* ---- checkpoints ---- */

bool checkpoint_due(checkpoint *c)
{
    if (!c->dir) return false;
    c->taken++;
    return (c->steps && c->taken >= c->steps) ||
        (c->seconds > 0 && tool_seconds() - c->last >= c->seconds);
}

/* The next manifest, with the state `name` in place of the phase's last one. */
static eqat_status put(tool *t, checkpoint *c, const char *phase, const char *name, int64_t number)
{
    long long bytes = 0;
    if (!append_log(t, c, &bytes)) return fail_log(t, c);
    char *before = checkpoint_state(c, phase);
    json_t *next = json_deep_copy(c->manifest);
    json_object_set_new(json_object_get(next, "states"), phase, json_string(name));
    json_object_set(next, "runs", t->runs);
    json_object_set_new(next, "log_bytes", json_integer(bytes));
    json_object_set_new(next, "number", json_integer(number));
    eqat_status st = commit(t, c, next);
    if (st == EQAT_OK && before) unlink(before);
    free(before);
    return st;
}

static void warn(tool *t, const char *why)
{
    tool_warn(t, "no checkpoint was saved, the one before stays: %s", why);
}

void checkpoint_save(tool *t, checkpoint *c, const char *phase, checkpoint_save_fn save, void *job)
{
    if (!c->dir) return;
    char name[64];
    double started = tool_seconds();
    int64_t number = json_integer_value(json_object_get(c->manifest, "number")) + 1;
    snprintf(name, sizeof name, "%s-%lld" ENDING, phase, (long long)number);
    char *path = in_folder(c, name);
    eqat_status st = save(job, path);
    if (st != EQAT_OK) {
        warn(t, eqat_context_error(t->ctx));
    } else {
        tool_event(t,
                   json_pack("{s:s,s:s,s:I,s:f}", "event", "checkpoint", "phase", phase, "number",
                             (json_int_t)number, "seconds", tool_seconds() - started));
        if (put(t, c, phase, name, number) != EQAT_OK) {
            warn(t, t->error);
            t->error[0] = 0;
            unlink(path);
        }
    }
    free(path);
    c->taken = 0;
    c->last = tool_seconds();
}

void checkpoint_tell(const tool *t, const checkpoint *c)
{
    if (json_object_size(states_of(c)) && t->context.log_level >= EQAT_LOG_INFO)
        fprintf(stderr, "eqat: the same command goes on from the checkpoint in %s\n", c->dir);
}

/* The manifest last, and only behind all the rest: by it the next run knows that it may remove what
 * could not be removed now. */
static void remove_all(checkpoint *c)
{
    bool all = true;
    DIR *d = opendir(c->dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (is_ours(e->d_name) && strcmp(e->d_name, MANIFEST) != 0 &&
            unlinkat(dirfd(d), e->d_name, 0) != 0)
            all = false;
    if (d) closedir(d);
    if (!d || !all) return;
    unlinkat(c->folder, MANIFEST, 0);
    rmdir(c->dir);
}

void checkpoint_close(checkpoint *c, bool done)
{
    if (!c->dir) return;
    if (done) remove_all(c);
    json_decref(c->manifest);
    if (c->folder >= 0) close(c->folder);
}
