/* Preloaded into the tool: what it does to files is counted, and the process is killed in front of
 * or behind one of these calls, or the call fails.
 *
 *     KILL_AT="rename /out. 2 before"   the second rename with "/out." in a path
 *     KILL_AT="any /out.partial 7 after"
 *     KILL_AT="any /kept/ 7 EIO"        fails
 *     KILL_AT="any /kept/ 7 ENOSPC"     fails, as do all that follow and need room
 *     KILL_TRACE=FILE                   appends a line for each call: its name and its paths */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static atomic_int matched;

static void path_of(int fd, const char *name, char path[2 * PATH_MAX])
{
    char link[64], folder[PATH_MAX] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (fd >= 0 && (!name || *name != '/') && readlink(link, folder, sizeof folder - 1) < 0)
        *folder = 0;
    snprintf(path, 2 * PATH_MAX, "%s%s%s", folder, *folder && name ? "/" : "", name ? name : "");
}

static void trace(const char *call, const char *paths)
{
    const char *file = getenv("KILL_TRACE");
    char line[4 * PATH_MAX];
    if (!file) return;
    int fd =
        (int)syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    int n = snprintf(line, sizeof line, "%s %s\n", call, paths);
    syscall(SYS_write, fd, line, (size_t)n);
    close(fd);
}

enum { GO_ON, DIE_BEHIND, FAIL };

static int needs_room(const char *call)
{
    return strcmp(call, "unlink") != 0 && strcmp(call, "rmdir") != 0;
}

/* In front of which the process dies, from that this does not return. */
static int count(const char *call, const char *paths)
{
    char wanted[16], part[256], side[16];
    int n;
    const char *spec = getenv("KILL_AT");
    trace(call, paths);
    if (!spec || sscanf(spec, "%15s %255s %d %15s", wanted, part, &n, side) != 4) return GO_ON;
    if ((strcmp(wanted, "any") && strcmp(wanted, call)) || !strstr(paths, part)) return GO_ON;
    int full = !strcmp(side, "ENOSPC"), at = atomic_fetch_add(&matched, 1) + 1;
    if (full ? at < n || !needs_room(call) : at != n) return GO_ON;
    errno = full ? ENOSPC : EIO;
    if (full || !strcmp(side, "EIO")) return FAIL;
    if (!strcmp(side, "before")) kill(getpid(), SIGKILL);
    return DIE_BEHIND;
}

static int end(int what, int result)
{
    if (what == DIE_BEHIND) kill(getpid(), SIGKILL);
    return result;
}

static int count_one(const char *call, int fd, const char *name)
{
    char path[2 * PATH_MAX];
    path_of(fd, name, path);
    return count(call, path);
}

static int count_two(const char *call, int from_fd, const char *from, int to_fd, const char *to)
{
    char a[2 * PATH_MAX], b[2 * PATH_MAX], both[4 * PATH_MAX + 2];
    path_of(from_fd, from, a);
    path_of(to_fd, to, b);
    snprintf(both, sizeof both, "%s %s", a, b);
    return count(call, both);
}

int rename(const char *from, const char *to)
{
    int what = count_two("rename", -1, from, -1, to);
    return what == FAIL ? -1 : end(what, NEXT(rename)(from, to));
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    int what = count_two("rename", from_fd, from, to_fd, to);
    return what == FAIL ? -1 : end(what, NEXT(renameat)(from_fd, from, to_fd, to));
}

int fsync(int fd)
{
    int what = count_one("fsync", fd, NULL);
    return what == FAIL ? -1 : end(what, NEXT(fsync)(fd));
}

int unlink(const char *path)
{
    int what = count_one("unlink", -1, path);
    return what == FAIL ? -1 : end(what, NEXT(unlink)(path));
}

int unlinkat(int fd, const char *path, int flags)
{
    int what = count_one("unlink", fd, path);
    return what == FAIL ? -1 : end(what, NEXT(unlinkat)(fd, path, flags));
}

int rmdir(const char *path)
{
    int what = count_one("rmdir", -1, path);
    return what == FAIL ? -1 : end(what, NEXT(rmdir)(path));
}

int mkdir(const char *path, mode_t mode)
{
    int what = count_one("mkdir", -1, path);
    return what == FAIL ? -1 : end(what, NEXT(mkdir)(path, mode));
}

ssize_t write(int fd, const void *data, size_t n)
{
    int what = fd > 2 ? count_one("write", fd, NULL) : GO_ON;
    if (what == FAIL) return -1;
    ssize_t result = NEXT(write)(fd, data, n);
    end(what, 0);
    return result;
}

int open(const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
    va_end(list);
    int what = flags & O_CREAT ? count_one("open", -1, path) : GO_ON;
    return what == FAIL ? -1 : end(what, NEXT(open)(path, flags, mode));
}

int openat(int fd, const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
    va_end(list);
    int what = flags & O_CREAT ? count_one("open", fd, path) : GO_ON;
    return what == FAIL ? -1 : end(what, NEXT(openat)(fd, path, flags, mode));
}
