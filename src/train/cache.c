#include "train/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_STREAMS 2

typedef enum slot_state {
    SLOT_FREE,
    SLOT_READING, /* queued or in work */
    SLOT_READY,   /* holds a record that was read */
    SLOT_WRITING  /* queued or in work */
} slot_state;

typedef struct slot {
    slot_state state;
    int stream;
    int64_t record;
    uint64_t age; /* of a hint: the oldest gives way */
    char *data;
} slot;

struct eqi_cache {
    eqi_ctx *ctx;
    int streams;
    int64_t records;
    size_t bytes;
    char *memory; /* all streams; NULL: files */
    char *dir;
    int fds[MAX_STREAMS];
    /* The rest belongs to the thread and is guarded by lock. Requests are served in order, so that
     * a read sees the writes before it. */
    bool running;
    pid_t owner; /* of the thread: the child of a fork has none to wait for */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t asked, served;
    bool stop;
    int failed; /* errno of the first failed transfer */
    bool failed_write;
    uint64_t age;
    int n_slots, queued, next; /* queue: slot numbers, a ring */
    int *queue;
    slot *slots;
    char *buffers;
};

static int transfer(const eqi_cache *c, const slot *s)
{
    size_t left = c->bytes;
    char *p = s->data;
    off_t at = (off_t)((uint64_t)s->record * c->bytes);
    while (left) {
        ssize_t n = s->state == SLOT_WRITING ? pwrite(c->fds[s->stream], p, left, at)
                                             : pread(c->fds[s->stream], p, left, at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : EIO;
        p += n;
        at += n;
        left -= (size_t)n;
    }
    return 0;
}

static void *serve(void *arg)
{
    eqi_cache *c = arg;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->queued && !c->stop) pthread_cond_wait(&c->asked, &c->lock);
        if (!c->queued) break;
        slot *s = &c->slots[c->queue[c->next]];
        c->next = (c->next + 1) % c->n_slots;
        c->queued--;
        pthread_mutex_unlock(&c->lock);
        int err = transfer(c, s);
        pthread_mutex_lock(&c->lock);
        if (err && !c->failed) {
            c->failed = err;
            c->failed_write = s->state == SLOT_WRITING;
        }
        s->state = s->state == SLOT_WRITING ? SLOT_FREE : SLOT_READY;
        pthread_cond_broadcast(&c->served);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

static eqat_status open_file(eqi_cache *c, int stream)
{
    int fd = open(c->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && errno != ENOENT &&
        errno != ENOTDIR) { /* not every file system has files without a name */
        char *path = eqi_asprintf(c->ctx, "%s/eqat-cache-XXXXXX", c->dir);
        if (!path) return EQAT_OUT_OF_MEMORY;
        fd = mkostemp(path, O_CLOEXEC);
        if (fd >= 0) unlink(path);
        eqi_free(c->ctx, path);
    }
    if (fd < 0)
        return eqi_fail(c->ctx, EQAT_IO, "offload_dir %s: cannot create a file: %s", c->dir,
                        strerror(errno));
    c->fds[stream] = fd;
    uint64_t size = (uint64_t)c->records * c->bytes;
    int failed;
    do failed = size && fallocate(fd, 0, 0, (off_t)size) != 0;
    while (failed && errno == EINTR);
    if (failed && errno != EOPNOTSUPP && errno != ENOSYS)
        return eqi_fail(c->ctx, EQAT_IO,
                        "offload_dir %s: cannot reserve %llu bytes for activations: %s", c->dir,
                        (unsigned long long)size, strerror(errno));
    return EQAT_OK;
}

static eqat_status start_thread(eqi_cache *c)
{
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->asked, NULL);
    pthread_cond_init(&c->served, NULL);
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = pthread_create(&c->thread, NULL, serve, c);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    c->running = err == 0;
    c->owner = getpid();
    if (err == 0) return EQAT_OK;
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->asked);
    pthread_cond_destroy(&c->served);
    return eqi_fail(c->ctx, EQAT_BACKEND, "activation cache: cannot start a thread: %s",
                    strerror(err));
}

static eqat_status use_files(eqi_cache *c, const char *dir, int slots)
{
    c->n_slots = slots;
    c->dir = eqi_strdup(c->ctx, dir);
    c->queue = eqi_calloc(c->ctx, (size_t)slots, sizeof *c->queue, "the activation cache's queue");
    c->slots =
        eqi_calloc(c->ctx, (size_t)slots, sizeof *c->slots, "the activation cache's buffers");
    c->buffers = eqi_calloc(c->ctx, (size_t)slots, c->bytes, "the activation cache's buffers");
    if (!c->dir || !c->queue || !c->slots || !c->buffers) return EQAT_OUT_OF_MEMORY;
    for (int i = 0; i < slots; i++) c->slots[i].data = c->buffers + (size_t)i * c->bytes;
    for (int i = 0; i < c->streams; i++) EQI_RETURN_IF(open_file(c, i));
    return start_thread(c);
}

eqat_status eqi_cache_create(eqi_ctx *ctx, eqi_cache **out, int streams, int64_t records,
                             size_t bytes, const char *dir, int slots)
{
    *out = NULL;
    if (bytes && (uint64_t)records > (uint64_t)INT64_MAX / bytes / (uint64_t)streams)
        return eqi_fail(
            ctx, EQAT_OUT_OF_MEMORY,
            "activation cache: found %lld records of %zu bytes, expected a size below 2^63",
            (long long)records, bytes);
    eqi_cache *c = eqi_calloc(ctx, 1, sizeof *c, "the activation cache");
    if (!c) return EQAT_OUT_OF_MEMORY;
    c->ctx = eqi_ctx_ref(ctx);
    c->streams = streams;
    c->records = records;
    c->bytes = bytes;
    for (int i = 0; i < MAX_STREAMS; i++) c->fds[i] = -1;
    eqat_status st = EQAT_OK;
    if (dir)
        st = use_files(c, dir, slots);
    else if (!(c->memory = eqi_alloc(ctx, (size_t)streams * (size_t)records * bytes,
                                     "the activation cache")))
        st = EQAT_OUT_OF_MEMORY;
    if (st != EQAT_OK) {
        eqi_cache_free(c);
        return st;
    }
    *out = c;
    return EQAT_OK;
}

void eqi_cache_free(eqi_cache *c)
{
    if (!c) return;
    eqi_ctx *ctx = c->ctx;
    if (c->running && c->owner == getpid()) {
        pthread_mutex_lock(&c->lock);
        c->stop = true;
        c->queued = 0; /* nobody will read what is still to be written */
        pthread_cond_signal(&c->asked);
        pthread_mutex_unlock(&c->lock);
        pthread_join(c->thread, NULL);
        pthread_mutex_destroy(&c->lock);
        pthread_cond_destroy(&c->asked);
        pthread_cond_destroy(&c->served);
    }
    for (int i = 0; i < MAX_STREAMS; i++)
        if (c->fds[i] >= 0) close(c->fds[i]);
    eqi_free(ctx, c->memory);
    eqi_free(ctx, c->dir);
    eqi_free(ctx, c->queue);
    eqi_free(ctx, c->slots);
    eqi_free(ctx, c->buffers);
    eqi_free(ctx, c);
    eqi_ctx_unref(ctx);
}

/* The functions from here to eqi_cache_ahead are called with the lock held. */

static void ask(eqi_cache *c, slot *s, slot_state state, int stream, int64_t record)
{
    s->state = state;
    s->stream = stream;
    s->record = record;
    s->age = c->age++;
    c->queue[(c->next + c->queued) % c->n_slots] = (int)(s - c->slots);
    c->queued++;
    pthread_cond_signal(&c->asked);
}

/* The slot that holds, or will hold, a record that was read. */
static slot *find_read(eqi_cache *c, int stream, int64_t record)
{
    for (int i = 0; i < c->n_slots; i++) {
        slot *s = &c->slots[i];
        if ((s->state == SLOT_READING || s->state == SLOT_READY) && s->stream == stream &&
            s->record == record)
            return s;
    }
    return NULL;
}

/* A free slot, else the oldest hint that nobody took, else NULL: all are in work. */
static slot *find_free(eqi_cache *c)
{
    slot *oldest = NULL;
    for (int i = 0; i < c->n_slots; i++) {
        slot *s = &c->slots[i];
        if (s->state == SLOT_FREE) return s;
        if (s->state == SLOT_READY && (!oldest || s->age < oldest->age)) oldest = s;
    }
    return oldest;
}

static slot *wait_free(eqi_cache *c)
{
    slot *s;
    while (!(s = find_free(c))) pthread_cond_wait(&c->served, &c->lock);
    return s;
}

/* The same, but hints give way only when no write will make room. */
static slot *wait_free_for_write(eqi_cache *c)
{
    for (;;) {
        slot *s = find_free(c);
        if (s && s->state == SLOT_FREE) return s;
        bool writing = false;
        for (int i = 0; i < c->n_slots; i++) writing |= c->slots[i].state == SLOT_WRITING;
        if (s && !writing) return s;
        pthread_cond_wait(&c->served, &c->lock);
    }
}

static eqat_status check_failed(eqi_cache *c)
{
    if (!c->failed) return EQAT_OK;
    return eqi_fail(c->ctx, EQAT_IO, "offload_dir %s: cannot %s activations: %s", c->dir,
                    c->failed_write ? "write" : "read", strerror(c->failed));
}

void eqi_cache_ahead(eqi_cache *c, int stream, int64_t record)
{
    if (c->memory) return;
    pthread_mutex_lock(&c->lock);
    slot *s = find_read(c, stream, record) ? NULL : find_free(c);
    if (s) ask(c, s, SLOT_READING, stream, record);
    pthread_mutex_unlock(&c->lock);
}

static char *in_memory(const eqi_cache *c, int stream, int64_t record)
{
    return c->memory + ((size_t)stream * (size_t)c->records + (size_t)record) * c->bytes;
}

eqat_status eqi_cache_get(eqi_cache *c, int stream, int64_t record, eqi_tensor *t)
{
    if (c->memory) return eqi_tensor_upload(t, in_memory(c, stream, record), c->bytes);
    pthread_mutex_lock(&c->lock);
    slot *s = find_read(c, stream, record);
    if (!s) ask(c, s = wait_free(c), SLOT_READING, stream, record);
    while (s->state != SLOT_READY) pthread_cond_wait(&c->served, &c->lock);
    eqat_status st = check_failed(c);
    pthread_mutex_unlock(&c->lock);
    /* The thread leaves a slot that is ready alone. */
    if (st == EQAT_OK) st = eqi_tensor_upload(t, s->data, c->bytes);
    pthread_mutex_lock(&c->lock);
    s->state = SLOT_FREE;
    pthread_mutex_unlock(&c->lock);
    return st;
}

eqat_status eqi_cache_put(eqi_cache *c, int stream, int64_t record, const eqi_tensor *t)
{
    if (c->memory) return eqi_tensor_download(t, in_memory(c, stream, record), c->bytes);
    pthread_mutex_lock(&c->lock);
    slot *s;
    while ((s = find_read(c, stream, record))) { /* a hint that nobody took is out of date now */
        while (s->state != SLOT_READY) pthread_cond_wait(&c->served, &c->lock);
        s->state = SLOT_FREE;
    }
    s = wait_free_for_write(c);
    s->state = SLOT_READY; /* taken, and nothing that another call would find */
    s->record = -1;
    eqat_status st = check_failed(c);
    pthread_mutex_unlock(&c->lock);
    if (st == EQAT_OK) st = eqi_tensor_download(t, s->data, c->bytes);
    pthread_mutex_lock(&c->lock);
    if (st == EQAT_OK)
        ask(c, s, SLOT_WRITING, stream, record);
    else
        s->state = SLOT_FREE;
    pthread_mutex_unlock(&c->lock);
    return st;
}

eqat_status eqi_cache_flush(eqi_cache *c)
{
    if (c->memory) return EQAT_OK;
    pthread_mutex_lock(&c->lock);
    for (int i = 0; i < c->n_slots; i++)
        while (c->slots[i].state == SLOT_WRITING) pthread_cond_wait(&c->served, &c->lock);
    eqat_status st = check_failed(c);
    pthread_mutex_unlock(&c->lock);
    return st;
}
