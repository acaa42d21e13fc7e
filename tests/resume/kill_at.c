/* Preloaded into the tool: what it does to files is counted, and the process is killed in front of
 * or behind one of these calls.
 *
 *     KILL_AT="rename /out. 2 before"   the second rename with "/out." in a path
 *     KILL_AT="any /out.partial 7 after"
 *     KILL_TRACE=FILE                   appends a line for each call: its name and its paths */
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
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
    int fd = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    int n = snprintf(line, sizeof line, "%s %s\n", call, paths);
    syscall(SYS_write, fd, line, (size_t)n);
    close(fd);
}

/* Whether to die behind the call; in front of it this does not return. */
static int count(const char *call, const char *paths)
{
    char wanted[16], part[256], side[16];
    int n;
    const char *spec = getenv("KILL_AT");
    trace(call, paths);
    if (!spec || sscanf(spec, "%15s %255s %d %15s", wanted, part, &n, side) != 4) return 0;
    if ((strcmp(wanted, "any") && strcmp(wanted, call)) || !strstr(paths, part)) return 0;
    if (atomic_fetch_add(&matched, 1) + 1 != n) return 0;
    if (!strcmp(side, "before")) kill(getpid(), SIGKILL);
    return 1;
}

static int end(int die, int result)
{
    if (die) kill(getpid(), SIGKILL);
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
    int die = count_two("rename", -1, from, -1, to);
    return end(die, NEXT(rename)(from, to));
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    int die = count_two("rename", from_fd, from, to_fd, to);
    return end(die, NEXT(renameat)(from_fd, from, to_fd, to));
}

int fsync(int fd)
{
    int die = count_one("fsync", fd, NULL);
    return end(die, NEXT(fsync)(fd));
}

int unlink(const char *path)
{
    int die = count_one("unlink", -1, path);
    return end(die, NEXT(unlink)(path));
}

int unlinkat(int fd, const char *path, int flags)
{
    int die = count_one("unlink", fd, path);
    return end(die, NEXT(unlinkat)(fd, path, flags));
}

int rmdir(const char *path)
{
    int die = count_one("rmdir", -1, path);
    return end(die, NEXT(rmdir)(path));
}

int mkdir(const char *path, mode_t mode)
{
    int die = count_one("mkdir", -1, path);
    return end(die, NEXT(mkdir)(path, mode));
}

ssize_t write(int fd, const void *data, size_t n)
{
    int die = fd > 2 ? count_one("write", fd, NULL) : 0;
    ssize_t result = NEXT(write)(fd, data, n);
    end(die, 0);
    return result;
}
