#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static eqat_status fail_errno(eqi_ctx *ctx, const char *path, const char *what)
{
    int e = errno;
    return eqi_fail(ctx, e == ENOENT ? EQAT_NOT_FOUND : EQAT_IO, "%s: %s: %s", path, what,
                    strerror(e));
}

/* A pipe without a writer would make open wait. */
#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NONBLOCK)

/* What a clone without Git LFS has in place of large files. */
static eqat_status refuse_pointer(const eqi_file *f)
{
    static const char start[] = "version https://git-lfs.github.com/spec/";
    char text[sizeof start - 1];
    if (f->size > 1024 || pread(f->fd, text, sizeof text, 0) != (ssize_t)sizeof text ||
        memcmp(text, start, sizeof text) != 0)
        return EQAT_OK;
    return eqi_fail(f->ctx, EQAT_FORMAT,
                    "%s: found a Git-LFS pointer, expected the file itself (git lfs pull gets it)",
                    f->path);
}

/* Takes over fd; -1 with errno: opening has failed. */
static eqat_status adopt(eqi_ctx *ctx, eqi_file **out, const char *path, int fd)
{
    *out = NULL;
    if (fd < 0) return fail_errno(ctx, path, "cannot open");
    struct stat sb;
    eqat_status st = EQAT_OK;
    if (fstat(fd, &sb) != 0)
        st = fail_errno(ctx, path, "cannot stat");
    else if (!S_ISREG(sb.st_mode))
        st = eqi_fail(ctx, EQAT_IO, "%s: not a regular file", path);
    eqi_file *f = st == EQAT_OK ? eqi_calloc(ctx, 1, sizeof *f, "an open file") : NULL;
    if (f) f->path = eqi_strdup(ctx, path);
    if (!f || !f->path) {
        eqi_free(ctx, f);
        close(fd);
        return st == EQAT_OK ? EQAT_OUT_OF_MEMORY : st;
    }
    f->ctx = ctx;
    f->fd = fd;
    f->size = (uint64_t)sb.st_size;
    st = refuse_pointer(f);
    if (st == EQAT_OK)
        *out = f;
    else
        eqi_file_close(f);
    return st;
}

eqat_status eqi_file_open(eqi_ctx *ctx, eqi_file **out, const char *path)
{
    return adopt(ctx, out, path, open(path, OPEN_FLAGS));
}

static void parent_of(const char *path, char parent[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    snprintf(parent, PATH_MAX, "%.*s", slash ? (int)(n ? n : 1) : 1, slash ? path : ".");
}

static bool is_below(const char *path, const char *folder)
{
    size_t n = strlen(folder);
    return !strncmp(path, folder, n) && path[n] == '/';
}

/* Hugging Face's cache keeps the files of NAME/snapshots/REVISION in NAME/blobs. */
static bool is_blob(const char *path, const char *folder)
{
    static const char snapshots[] = "/snapshots/";
    const char *last = NULL;
    char blobs[PATH_MAX + sizeof "/blobs"];
    for (const char *p = folder; (p = strstr(p, snapshots)); p++) last = p;
    if (!last) return false;
    snprintf(blobs, sizeof blobs, "%.*s/blobs", (int)(last - folder), folder);
    return is_below(path, blobs);
}

/* *real: what to open in place of a link. */
static eqat_status resolve(eqi_ctx *ctx, const char *path, char real[PATH_MAX])
{
    char parent[PATH_MAX], folder[PATH_MAX];
    parent_of(path, parent);
    if (!realpath(path, real) || !realpath(parent, folder))
        return eqi_fail(ctx, EQAT_FORMAT, "%s: cannot follow the symbolic link: %s", path,
                        strerror(errno));
    if (is_below(real, folder) || is_blob(real, folder)) return EQAT_OK;
    return eqi_fail(ctx, EQAT_FORMAT,
                    "%s: found a symbolic link to %s, expected a file in the same folder", path,
                    real);
}

eqat_status eqi_path_check_inside(eqi_ctx *ctx, const char *path)
{
    char real[PATH_MAX];
    struct stat sb;
    if (lstat(path, &sb) != 0 || !S_ISLNK(sb.st_mode)) return EQAT_OK;
    return resolve(ctx, path, real);
}

eqat_status eqi_file_open_inside(eqi_ctx *ctx, eqi_file **out, const char *path)
{
    char real[PATH_MAX];
    *out = NULL;
    int fd = open(path, OPEN_FLAGS | O_NOFOLLOW);
    if (fd < 0 && errno == ELOOP) {
        EQI_RETURN_IF(resolve(ctx, path, real));
        fd = open(real, OPEN_FLAGS | O_NOFOLLOW);
    }
    return adopt(ctx, out, path, fd);
}

void eqi_file_close(eqi_file *f)
{
    if (!f) return;
    close(f->fd);
    eqi_free(f->ctx, f->path);
    eqi_free(f->ctx, f);
}

eqat_status eqi_file_read(eqi_file *f, void *buffer, uint64_t offset, size_t n)
{
    char *p = buffer;
    size_t left = n;
    uint64_t at = offset;
    while (left) {
        ssize_t got = pread(f->fd, p, left, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_errno(f->ctx, f->path, "cannot read");
        if (got == 0)
            return eqi_fail(f->ctx, EQAT_FORMAT,
                            "%s: truncated: found %llu bytes, expected %llu at offset %llu",
                            f->path, (unsigned long long)at, (unsigned long long)n,
                            (unsigned long long)offset);
        p += got;
        at += (uint64_t)got;
        left -= (size_t)got;
    }
    return EQAT_OK;
}

/* Takes over the file. */
static eqat_status slurp(eqi_file *f, size_t limit, char **out, size_t *size)
{
    eqi_ctx *ctx = f->ctx;
    const char *path = f->path;
    eqat_status st = EQAT_OK;
    char *text = NULL;
    if (f->size > limit)
        st = eqi_fail(ctx, EQAT_FORMAT, "%s: found %llu bytes, expected at most %zu", path,
                      (unsigned long long)f->size, limit);
    else if (!(text = eqi_alloc(ctx, (size_t)f->size + 1, path)))
        st = EQAT_OUT_OF_MEMORY;
    else
        st = eqi_file_read(f, text, 0, (size_t)f->size);
    if (st == EQAT_OK) {
        text[f->size] = 0;
        *out = text;
        if (size) *size = (size_t)f->size;
    } else {
        eqi_free(ctx, text);
    }
    eqi_file_close(f);
    return st;
}

eqat_status eqi_file_slurp(eqi_ctx *ctx, const char *path, size_t limit, char **out, size_t *size)
{
    *out = NULL;
    eqi_file *f;
    EQI_RETURN_IF(eqi_file_open(ctx, &f, path));
    return slurp(f, limit, out, size);
}

eqat_status eqi_file_slurp_inside(eqi_ctx *ctx, const char *path, size_t limit, char **out,
                                  size_t *size)
{
    *out = NULL;
    eqi_file *f;
    EQI_RETURN_IF(eqi_file_open_inside(ctx, &f, path));
    return slurp(f, limit, out, size);
}

bool eqi_path_is_dir(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

bool eqi_path_exists(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0;
}

char *eqi_path_join(eqi_ctx *ctx, const char *dir, const char *name)
{
    size_t n = strlen(dir);
    return eqi_asprintf(ctx, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
}

static bool dir_is_empty(const char *path)
{
    DIR *d = opendir(path);
    if (!d) return false;
    bool empty = true;
    for (struct dirent *e; empty && (e = readdir(d));)
        empty = !strcmp(e->d_name, ".") || !strcmp(e->d_name, "..");
    closedir(d);
    return empty;
}

/* ---- what a file or folder is called until it is whole ---- */

static bool is_left_over(const char *name, const char *base)
{
    static const char word[] = ".partial-";
    size_t n = strlen(base);
    char *end;
    if (strncmp(name, base, n) != 0 || strncmp(name + n, word, sizeof word - 1) != 0) return false;
    const char *digits = name + n + sizeof word - 1;
    if (*digits < '1' || *digits > '9') return false;
    long pid = strtol(digits, &end, 10);
    return (!*end || *end == '-') && pid <= INT_MAX && kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

static void remove_files_in(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
    if (!list && fd >= 0) close(fd);
    for (struct dirent *e; list && (e = readdir(list));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) unlinkat(fd, e->d_name, 0);
    if (list) closedir(list);
}

void eqi_temp_clean(const char *target)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(target, '/'), *base = slash ? slash + 1 : target;
    parent_of(target, parent);
    DIR *list = *base ? opendir(parent) : NULL;
    for (struct dirent *e; list && (e = readdir(list));)
        if (is_left_over(e->d_name, base) && unlinkat(dirfd(list), e->d_name, 0) != 0) {
            remove_files_in(dirfd(list), e->d_name);
            unlinkat(dirfd(list), e->d_name, AT_REMOVEDIR);
        }
    if (list) closedir(list);
}

char *eqi_temp_name(eqi_ctx *ctx, const char *target, int attempt)
{
    return eqi_asprintf(ctx, "%s.partial-%ld-%d", target, (long)getpid(), attempt);
}

static eqat_status sync_dir(eqi_ctx *ctx, const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return EQAT_OK; /* a folder may be written to and not be read */
    bool failed = fsync(fd) != 0 && errno != EINVAL;
    eqat_status st = failed ? fail_errno(ctx, path, "cannot sync the folder") : EQAT_OK;
    close(fd);
    return st;
}

eqat_status eqi_temp_commit(eqi_ctx *ctx, const char *temp, const char *target)
{
    char parent[PATH_MAX];
    if (rename(temp, target) != 0)
        return fail_errno(ctx, target, "cannot put the result in its place");
    parent_of(target, parent);
    return sync_dir(ctx, parent);
}

/* ---- output folders ---- */

/* Not mkdtemp: its folders are private whatever the umask says, and reading the umask would change
 * it for a moment. */
static eqat_status make_beside(eqi_outdir *d)
{
    eqi_temp_clean(d->target);
    for (int attempt = 0; attempt < 1000; attempt++) {
        d->temp = eqi_temp_name(d->ctx, d->target, attempt);
        if (!d->temp) return EQAT_OUT_OF_MEMORY;
        if (mkdir(d->temp, 0777) == 0) return EQAT_OK;
        int failed = errno;
        eqi_free(d->ctx, d->temp);
        d->temp = NULL;
        errno = failed;
        if (failed != EEXIST) break;
    }
    return fail_errno(d->ctx, d->target, "cannot create the output folder");
}

/* A folder can be put in the place of an empty one, but not of one that something is mounted on. */
static bool is_mounted(const char *path, const struct stat *sb)
{
    char parent[PATH_MAX];
    struct stat above;
    snprintf(parent, sizeof parent, "%s/..", path);
    return stat(parent, &above) == 0 && (above.st_dev != sb->st_dev || above.st_ino == sb->st_ino);
}

eqat_status eqi_outdir_begin(eqi_ctx *ctx, eqi_outdir **out, const char *target)
{
    *out = NULL;
    struct stat sb;
    if (!*target) return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "output folder: found an empty name");
    if (lstat(target, &sb) == 0 && !(S_ISDIR(sb.st_mode) && dir_is_empty(target)))
        return eqi_fail(ctx, EQAT_EXISTS, "%s: found %s, expected a new or empty folder", target,
                        S_ISDIR(sb.st_mode) ? "a folder that is not empty"
                                            : "something that is not a folder");
    if (lstat(target, &sb) == 0 && is_mounted(target, &sb))
        return eqi_fail(ctx, EQAT_EXISTS,
                        "%s: found a mount point, expected a new folder, for example inside it",
                        target);
    eqi_outdir *d = eqi_calloc(ctx, 1, sizeof *d, "an output folder");
    if (!d) return EQAT_OUT_OF_MEMORY;
    d->ctx = ctx;
    d->target = eqi_strdup(ctx, target);
    size_t n = d->target ? strlen(d->target) : 0;
    while (n > 1 && d->target[n - 1] == '/') d->target[--n] = 0;
    eqat_status st = d->target ? make_beside(d) : EQAT_OUT_OF_MEMORY;
    if (st != EQAT_OK) {
        eqi_outdir_abort(&d);
        return st;
    }
    *out = d;
    return EQAT_OK;
}

eqat_status eqi_outdir_commit(eqi_outdir **dir)
{
    eqi_outdir *d = *dir;
    eqat_status st = sync_dir(d->ctx, d->temp);
    if (st == EQAT_OK) st = eqi_temp_commit(d->ctx, d->temp, d->target);
    eqi_outdir_abort(dir); /* which finds nothing when it has its place */
    return st;
}

void eqi_outdir_abort(eqi_outdir **dir)
{
    eqi_outdir *d = dir ? *dir : NULL;
    if (!d) return;
    *dir = NULL;
    if (d->temp) {
        remove_files_in(AT_FDCWD, d->temp);
        rmdir(d->temp);
    }
    eqi_free(d->ctx, d->temp);
    eqi_free(d->ctx, d->target);
    eqi_free(d->ctx, d);
}

struct eqi_out {
    eqi_ctx *ctx;
    char *path, *target; /* target: where close puts it; NULL: it is there */
    int fd;
    eqat_status failed;
    uint64_t at; /* of the next byte */
    size_t used;
    char buffer[1 << 16];
};

eqat_status eqi_out_open(eqi_ctx *ctx, eqi_out **out, const char *path)
{
    *out = NULL;
    eqi_out *o = eqi_alloc(ctx, sizeof *o, "an output buffer");
    if (!o) return EQAT_OUT_OF_MEMORY;
    o->ctx = ctx;
    o->target = NULL;
    o->failed = EQAT_OK;
    o->at = 0;
    o->used = 0;
    o->path = eqi_strdup(ctx, path);
    if (!o->path) {
        eqi_free(ctx, o);
        return EQAT_OUT_OF_MEMORY;
    }
    o->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (o->fd < 0) {
        eqat_status st = errno == EEXIST ? eqi_fail(ctx, EQAT_EXISTS, "%s: already exists", path)
                                         : fail_errno(ctx, path, "cannot create");
        eqi_free(ctx, o->path);
        eqi_free(ctx, o);
        return st;
    }
    *out = o;
    return EQAT_OK;
}

eqat_status eqi_out_open_beside(eqi_ctx *ctx, eqi_out **out, const char *path)
{
    *out = NULL;
    struct stat sb;
    if (lstat(path, &sb) == 0) return eqi_fail(ctx, EQAT_EXISTS, "%s: already exists", path);
    eqi_temp_clean(path);
    eqat_status st = EQAT_EXISTS;
    for (int attempt = 0; st == EQAT_EXISTS && attempt < 1000; attempt++) {
        char *temp = eqi_temp_name(ctx, path, attempt);
        st = temp ? eqi_out_open(ctx, out, temp) : EQAT_OUT_OF_MEMORY;
        eqi_free(ctx, temp);
    }
    EQI_RETURN_IF(st);
    (*out)->target = eqi_strdup(ctx, path);
    if ((*out)->target) return EQAT_OK;
    eqi_out_discard(*out);
    *out = NULL;
    return EQAT_OUT_OF_MEMORY;
}

static void write_all(eqi_out *o, const char *p, size_t n)
{
    while (n && o->failed == EQAT_OK) {
        ssize_t did = write(o->fd, p, n);
        if (did < 0 && errno == EINTR) continue;
        if (did < 0) {
            o->failed = fail_errno(o->ctx, o->path, "cannot write");
            return;
        }
        p += did;
        n -= (size_t)did;
    }
}

static void flush(eqi_out *o)
{
    write_all(o, o->buffer, o->used);
    o->used = 0;
}

eqat_status eqi_out_write(eqi_out *o, const void *data, size_t n)
{
    if (n > sizeof o->buffer - o->used) flush(o);
    if (n >= sizeof o->buffer) {
        write_all(o, data, n);
    } else {
        memcpy(o->buffer + o->used, data, n);
        o->used += n;
    }
    o->at += n;
    return o->failed;
}

eqat_status eqi_out_seek(eqi_out *o, uint64_t at)
{
    if (at == o->at) return o->failed;
    flush(o);
    if (o->failed == EQAT_OK && lseek(o->fd, (off_t)at, SEEK_SET) < 0)
        o->failed = fail_errno(o->ctx, o->path, "cannot seek");
    o->at = at;
    return o->failed;
}

static void out_free(eqi_out *o)
{
    eqi_free(o->ctx, o->target);
    eqi_free(o->ctx, o->path);
    eqi_free(o->ctx, o);
}

eqat_status eqi_out_close(eqi_out *o)
{
    flush(o);
    if (o->failed == EQAT_OK && fsync(o->fd) != 0 && errno != EINVAL)
        o->failed = fail_errno(o->ctx, o->path, "cannot sync");
    if (close(o->fd) != 0 && o->failed == EQAT_OK)
        o->failed = fail_errno(o->ctx, o->path, "cannot close");
    if (o->target && o->failed == EQAT_OK) o->failed = eqi_temp_commit(o->ctx, o->path, o->target);
    eqat_status st = o->failed;
    if (o->target && st != EQAT_OK) unlink(o->path);
    out_free(o);
    return st;
}

void eqi_out_discard(eqi_out *o)
{
    if (!o) return;
    close(o->fd);
    unlink(o->path);
    out_free(o);
}

eqat_status eqi_write_file(eqi_ctx *ctx, const char *path, const void *data, size_t n)
{
    eqi_out *o;
    EQI_RETURN_IF(eqi_out_open(ctx, &o, path));
    eqi_out_write(o, data, n);
    return eqi_out_close(o);
}

eqat_status eqi_copy_inside(eqi_ctx *ctx, const char *from, const char *to, const char *name,
                            size_t limit)
{
    char *source = eqi_path_join(ctx, from, name),
         *target = source ? eqi_path_join(ctx, to, name) : NULL, *data = NULL;
    size_t size;
    eqat_status st = target ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK) st = eqi_path_check_inside(ctx, source);
    if (st == EQAT_OK && eqi_path_exists(source)) {
        st = eqi_file_slurp_inside(ctx, source, limit, &data, &size);
        if (st == EQAT_OK) st = eqi_write_file(ctx, target, data, size);
    }
    eqi_free(ctx, data);
    eqi_free(ctx, source);
    eqi_free(ctx, target);
    return st;
}
