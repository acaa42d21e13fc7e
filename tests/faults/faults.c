#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

static struct {
    fault kind;
    atomic_long counted;
    long at;
    _Atomic(const char *) call;
    atomic_long threads, failing_thread;
} now;

void faults_begin(fault kind, long n)
{
    now.kind = kind;
    now.at = n;
    atomic_store(&now.counted, 0);
    atomic_store(&now.call, "");
}

bool faults_end(void)
{
    bool reached = now.at && atomic_load(&now.counted) >= now.at;
    now.kind = FAULT_NONE;
    return reached;
}

long faults_counted(void) { return atomic_load(&now.counted); }
const char *faults_call(void) { return atomic_load(&now.call); }

void faults_of_threads(long n)
{
    atomic_store(&now.threads, 0);
    atomic_store(&now.failing_thread, n);
}

typedef enum sort { READS = 1, WRITES = 2, WHOLE = 4 } sort; /* WHOLE: not a number of bytes */

static bool can(sort s)
{
    switch (now.kind) {
    case FAULT_EIO: return true;
    case FAULT_FULL: return s & WRITES;
    case FAULT_SHORT:
    case FAULT_INTERRUPTED: return !(s & WHOLE);
    default: return false;
    }
}

/* Whether this call fails; sets errno, but for short ones. */
static bool fails(const char *call, sort s)
{
    if (!can(s)) return false;
    long n = atomic_fetch_add(&now.counted, 1) + 1;
    if (!now.at || n < now.at || (n > now.at && now.kind != FAULT_FULL)) return false;
    if (n == now.at) atomic_store(&now.call, call);
    errno = now.kind == FAULT_FULL ? ENOSPC : now.kind == FAULT_INTERRUPTED ? EINTR : EIO;
    return true;
}

static bool is_short(void) { return now.kind == FAULT_SHORT; }

/* With files of 64-bit sizes glibc's calls have other names. */
#ifdef __GLIBC__
#define LARGE(prefix, name) prefix##name##64
#else
#define LARGE(prefix, name) prefix##name
#endif
#define REAL(name) LARGE(__real_, name)
#define WRAPPED(name) LARGE(__wrap_, name)

#define WRAP(type, name, ...)        \
    type __real_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__)

int REAL(open)(const char *path, int flags, ...);
int WRAPPED(open)(const char *path, int flags, ...);
int WRAPPED(open)(const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
    va_end(list);
    bool failed = fails("open", flags & O_CREAT ? WRITES | WHOLE : WHOLE);
    return failed ? -1 : REAL(open)(path, flags, mode);
}

ssize_t REAL(pread)(int fd, void *data, size_t n, off_t at);
ssize_t WRAPPED(pread)(int fd, void *data, size_t n, off_t at);
ssize_t WRAPPED(pread)(int fd, void *data, size_t n, off_t at)
{
    bool failed = fails("pread", READS);
    if (failed && !is_short()) return -1;
    return REAL(pread)(fd, data, failed && n > 1 ? n / 2 : n, at);
}

ssize_t REAL(pwrite)(int fd, const void *data, size_t n, off_t at);
ssize_t WRAPPED(pwrite)(int fd, const void *data, size_t n, off_t at);
ssize_t WRAPPED(pwrite)(int fd, const void *data, size_t n, off_t at)
{
    bool failed = fails("pwrite", WRITES);
    if (failed && !is_short()) return -1;
    return REAL(pwrite)(fd, data, failed && n > 1 ? n / 2 : n, at);
}

int REAL(fallocate)(int fd, int mode, off_t at, off_t n);
int WRAPPED(fallocate)(int fd, int mode, off_t at, off_t n);
int WRAPPED(fallocate)(int fd, int mode, off_t at, off_t n)
{
    return fails("fallocate", WRITES | WHOLE) ? -1 : REAL(fallocate)(fd, mode, at, n);
}

WRAP(ssize_t, write, int fd, const void *data, size_t n)
{
    bool failed = fd > 2 && fails("write", WRITES);
    if (failed && !is_short()) return -1;
    return __real_write(fd, data, failed && n > 1 ? n / 2 : n);
}

WRAP(int, fsync, int fd) { return fails("fsync", WRITES | WHOLE) ? -1 : __real_fsync(fd); }

WRAP(int, rename, const char *from, const char *to)
{
    return fails("rename", WRITES | WHOLE) ? -1 : __real_rename(from, to);
}

WRAP(int, mkdir, const char *path, mode_t mode)
{
    return fails("mkdir", WRITES | WHOLE) ? -1 : __real_mkdir(path, mode);
}

WRAP(int, close, int fd)
{
    bool failed = fails("close", WHOLE);
    int err = errno, result = __real_close(fd); /* the descriptor is gone in any case */
    if (failed) errno = err;
    return failed ? -1 : result;
}

WRAP(int, pthread_create, pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
     void *arg)
{
    if (atomic_fetch_add(&now.threads, 1) + 1 == atomic_load(&now.failing_thread)) return EAGAIN;
    return __real_pthread_create(thread, attr, start, arg);
}
