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
/* A batch that is read and one that is written, or one of each stream; of a device with memory of
 * its own one more, on its way. */
#define MAX_BUFFERS 3

typedef enum buffer_state {
    BUFFER_FREE,
    BUFFER_TAKEN,   /* by a call that fills it, or by c->late */
    BUFFER_READING, /* queued or in work */
    BUFFER_READY,   /* holds a batch that was read */
    BUFFER_WRITING  /* queued or in work */
} buffer_state;

typedef struct buffer {
    buffer_state state;
    int stream;
    int64_t n;
    int64_t *samples; /* [n], room for a batch */
    uint64_t age;     /* of a hint: the oldest gives way */
    char *data;
} buffer;

struct eqi_cache {
    eqi_ctx *ctx;
    eqi_cache_shape shape;
    char *memory; /* samples below shape.resident of all streams */
    char *dir;    /* of the others; NULL: there are none */
    int fds[MAX_STREAMS];
    int64_t *samples; /* of all buffers */
    char *data;       /* of all buffers */
    int count;        /* of buffers; in memory 1 or, without a device, none */
    /* Of a device with memory of its own: the batch that was written last comes to a buffer while
     * the device goes on, and from there to its place with what is written next. NULL: none. */
    struct buffer *late;
    uint64_t ticket;
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
    int queued, next;
    buffer *queue[MAX_BUFFERS]; /* a ring */
    buffer buffers[MAX_BUFFERS];
};

/* How many of the samples from the i-th on lie one behind the other, in one place. */
static int64_t run_length(const eqi_cache *c, const int64_t *samples, int64_t i, int64_t n)
{
    int64_t length = 1;
    while (i + length < n && samples[i + length] == samples[i] + length &&
           samples[i + length] != c->shape.resident)
        length++;
    return length;
}

static char *in_memory(const eqi_cache *c, int stream, int64_t sample)
{
    return c->memory + (size_t)(stream * c->shape.resident + sample) * c->shape.bytes;
}

static int move_bytes(int fd, bool write, char *p, size_t left, off_t at)
{
    while (left) {
        ssize_t n = write ? pwrite(fd, p, left, at) : pread(fd, p, left, at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? errno : EIO;
        p += n;
        at += n;
        left -= (size_t)n;
    }
    return 0;
}

/* A run between a buffer and its place. */
static int move_run(const eqi_cache *c, int stream, int64_t sample, bool write, char *p, size_t n)
{
    if (sample >= c->shape.resident) {
        uint64_t at = (uint64_t)(sample - c->shape.resident) * c->shape.bytes;
        return move_bytes(c->fds[stream], write, p, n, (off_t)at);
    }
    char *place = in_memory(c, stream, sample);
    memcpy(write ? place : p, write ? p : place, n);
    return 0;
}

static int transfer(const eqi_cache *c, const buffer *b, bool write)
{
    size_t bytes = c->shape.bytes;
    int err = 0;
    for (int64_t i = 0, run; i < b->n && !err; i += run) {
        run = run_length(c, b->samples, i, b->n);
        err = move_run(c, b->stream, b->samples[i], write, b->data + (size_t)i * bytes,
                       (size_t)run * bytes);
    }
    return err;
}

static void *serve(void *arg)
{
    eqi_cache *c = arg;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->queued && !c->stop) pthread_cond_wait(&c->asked, &c->lock);
        if (!c->queued) break;
        buffer *b = c->queue[c->next];
        c->next = (c->next + 1) % MAX_BUFFERS;
        c->queued--;
        pthread_mutex_unlock(&c->lock);
        int err = transfer(c, b, b->state == BUFFER_WRITING);
        pthread_mutex_lock(&c->lock);
        if (err && !c->failed) {
            c->failed = err;
            c->failed_write = b->state == BUFFER_WRITING;
        }
        b->state = b->state == BUFFER_WRITING ? BUFFER_FREE : BUFFER_READY;
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
    uint64_t size = (uint64_t)(c->shape.samples - c->shape.resident) * c->shape.bytes;
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

static eqat_status make_buffers(eqi_cache *c, int count)
{
    const eqi_backend *b = c->ctx->backend;
    size_t all = (size_t)count * (size_t)c->shape.batch, bytes = c->shape.bytes;
    c->samples = eqi_calloc(c->ctx, all, sizeof *c->samples, "the activation cache's buffers");
    if (!c->samples) return EQAT_OUT_OF_MEMORY;
    c->data = b->pin(c->ctx, all * bytes);
    if (!c->data) return EQAT_OUT_OF_MEMORY;
    c->count = count;
    for (int i = 0; i < count; i++) {
        c->buffers[i].samples = c->samples + i * c->shape.batch;
        c->buffers[i].data = c->data + (size_t)(i * c->shape.batch) * bytes;
    }
    return EQAT_OK;
}

static eqat_status use_files(eqi_cache *c, const char *dir)
{
    c->dir = eqi_strdup(c->ctx, dir);
    if (!c->dir) return EQAT_OUT_OF_MEMORY;
    EQI_RETURN_IF(make_buffers(c, c->ctx->backend->host ? 2 : 3));
    for (int i = 0; i < c->shape.streams; i++) EQI_RETURN_IF(open_file(c, i));
    return start_thread(c);
}

static eqat_status use_memory(eqi_cache *c)
{
    const eqi_cache_shape *s = &c->shape;
    if (!s->resident) return EQAT_OK;
    c->memory = eqi_alloc(c->ctx, (size_t)s->streams * (size_t)s->resident * s->bytes,
                          "the activation cache");
    if (!c->memory) return EQAT_OUT_OF_MEMORY;
    return c->ctx->backend->host || s->resident < s->samples ? EQAT_OK : make_buffers(c, 1);
}

eqat_status eqi_cache_create(eqi_ctx *ctx, eqi_cache **out, const eqi_cache_shape *shape,
                             const char *dir)
{
    *out = NULL;
    uint64_t most = (uint64_t)INT64_MAX / (uint64_t)shape->streams;
    if (shape->bytes && (uint64_t)shape->samples > most / shape->bytes)
        return eqi_fail(
            ctx, EQAT_OUT_OF_MEMORY,
            "activation cache: found %lld samples of %zu bytes, expected a size below 2^63",
            (long long)shape->samples, shape->bytes);
    eqi_cache *c = eqi_calloc(ctx, 1, sizeof *c, "the activation cache");
    if (!c) return EQAT_OUT_OF_MEMORY;
    c->ctx = eqi_ctx_ref(ctx);
    c->shape = *shape;
    if (!dir) c->shape.resident = shape->samples;
    for (int i = 0; i < MAX_STREAMS; i++) c->fds[i] = -1;
    eqat_status st = use_memory(c);
    if (st == EQAT_OK && c->shape.resident < shape->samples) st = use_files(c, dir);
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
    eqi_free(ctx, c->samples);
    if (c->data)
        ctx->backend->unpin(ctx, c->data,
                            (size_t)c->count * (size_t)c->shape.batch * c->shape.bytes);
    eqi_free(ctx, c);
    eqi_ctx_unref(ctx);
}

static void take(buffer *b, int stream, const int64_t *samples, int64_t n)
{
    b->state = BUFFER_TAKEN;
    b->stream = stream;
    b->n = n;
    memcpy(b->samples, samples, (size_t)n * sizeof *samples);
}

/* ---- requests: these functions are called with the lock held ---- */

/* Of a buffer that is taken. */
static void ask(eqi_cache *c, buffer *b, buffer_state state)
{
    b->state = state;
    b->age = c->age++;
    c->queue[(c->next + c->queued) % MAX_BUFFERS] = b;
    c->queued++;
    pthread_cond_signal(&c->asked);
}

static bool was_read(const buffer *b, int stream)
{
    return (b->state == BUFFER_READING || b->state == BUFFER_READY) && b->stream == stream;
}

/* The buffer that holds, or will hold, exactly these samples. */
static buffer *find_read(eqi_cache *c, int stream, const int64_t *samples, int64_t n)
{
    for (buffer *b = c->buffers; b < c->buffers + c->count; b++)
        if (was_read(b, stream) && b->n == n &&
            !memcmp(b->samples, samples, (size_t)n * sizeof *samples))
            return b;
    return NULL;
}

/* A free buffer, else the oldest hint that nobody took, else NULL: all are in work. */
static buffer *find_free(eqi_cache *c)
{
    buffer *oldest = NULL;
    for (buffer *b = c->buffers; b < c->buffers + c->count; b++) {
        if (b->state == BUFFER_FREE) return b;
        if (b->state == BUFFER_READY && (!oldest || b->age < oldest->age)) oldest = b;
    }
    return oldest;
}

static buffer *wait_free(eqi_cache *c)
{
    buffer *b;
    while (!(b = find_free(c))) pthread_cond_wait(&c->served, &c->lock);
    return b;
}

static bool any_writing(const eqi_cache *c)
{
    for (int i = 0; i < c->count; i++)
        if (c->buffers[i].state == BUFFER_WRITING) return true;
    return false;
}

/* The same, but hints give way only when no write will make room. */
static buffer *wait_free_for_write(eqi_cache *c)
{
    for (;;) {
        buffer *b = find_free(c);
        if (b && (b->state == BUFFER_FREE || !any_writing(c))) return b;
        pthread_cond_wait(&c->served, &c->lock);
    }
}

static bool holds_any(const buffer *b, const int64_t *samples, int64_t n)
{
    for (int64_t i = 0; i < b->n; i++)
        for (int64_t k = 0; k < n; k++)
            if (b->samples[i] == samples[k]) return true;
    return false;
}

/* Hints that nobody took are out of date once these samples are written. */
static void drop_hints(eqi_cache *c, int stream, const int64_t *samples, int64_t n)
{
    for (buffer *b = c->buffers; b < c->buffers + c->count; b++) {
        if (!was_read(b, stream) || !holds_any(b, samples, n)) continue;
        while (b->state != BUFFER_READY) pthread_cond_wait(&c->served, &c->lock);
        b->state = BUFFER_FREE;
    }
}

static eqat_status check_failed(eqi_cache *c)
{
    if (!c->failed) return EQAT_OK;
    return eqi_fail(c->ctx, EQAT_IO, "offload_dir %s: cannot %s activations: %s", c->dir,
                    c->failed_write ? "write" : "read", strerror(c->failed));
}

/* ---- batches ---- */

/* What is on its way, to its place. */
static eqat_status settle(eqi_cache *c)
{
    buffer *b = c->late;
    if (!b) return EQAT_OK;
    EQI_RETURN_IF(eqi_tensor_arrive(c->ctx, c->ticket));
    c->late = NULL;
    if (!c->dir) {
        transfer(c, b, true);
        return EQAT_OK;
    }
    pthread_mutex_lock(&c->lock);
    ask(c, b, BUFFER_WRITING);
    pthread_mutex_unlock(&c->lock);
    return EQAT_OK;
}

static bool is_late(const eqi_cache *c, int stream, const int64_t *samples, int64_t n)
{
    return c->late && c->late->stream == stream && holds_any(c->late, samples, n);
}

/* From a device that can go on meanwhile. */
static eqat_status send(eqi_cache *c, buffer *b, const eqi_tensor *batch)
{
    EQI_RETURN_IF(c->ctx->backend->download_late(c->ctx, b->data, batch->v.data,
                                                 (size_t)b->n * c->shape.bytes, &c->ticket));
    c->late = b;
    return EQAT_OK;
}

static eqat_status read_memory(eqi_cache *c, int stream, const int64_t *samples, int64_t n,
                               eqi_tensor *batch)
{
    size_t bytes = c->shape.bytes;
    for (int64_t i = 0, run; i < n; i += run) {
        run = run_length(c, samples, i, n);
        EQI_RETURN_IF(eqi_tensor_upload_part(
            batch, (size_t)i * bytes, in_memory(c, stream, samples[i]), (size_t)run * bytes));
    }
    return EQAT_OK;
}

static eqat_status write_memory(eqi_cache *c, int stream, const int64_t *samples, int64_t n,
                                const eqi_tensor *batch)
{
    size_t bytes = c->shape.bytes;
    if (c->count) {
        take(c->buffers, stream, samples, n);
        return send(c, c->buffers, batch);
    }
    for (int64_t i = 0, run; i < n; i += run) {
        run = run_length(c, samples, i, n);
        EQI_RETURN_IF(eqi_tensor_download_part(
            batch, (size_t)i * bytes, in_memory(c, stream, samples[i]), (size_t)run * bytes));
    }
    return EQAT_OK;
}

void eqi_cache_ahead(eqi_cache *c, int stream, const int64_t *samples, int64_t n)
{
    if (!c->dir || !n || is_late(c, stream, samples, n)) return;
    pthread_mutex_lock(&c->lock);
    buffer *b = find_read(c, stream, samples, n) ? NULL : find_free(c);
    if (b) {
        take(b, stream, samples, n);
        ask(c, b, BUFFER_READING);
    }
    pthread_mutex_unlock(&c->lock);
}

eqat_status eqi_cache_read(eqi_cache *c, int stream, const int64_t *samples, int64_t n,
                           eqi_tensor *batch)
{
    if (is_late(c, stream, samples, n)) EQI_RETURN_IF(settle(c));
    if (!c->dir) return read_memory(c, stream, samples, n, batch);
    pthread_mutex_lock(&c->lock);
    buffer *b = find_read(c, stream, samples, n);
    if (!b) {
        b = wait_free(c);
        take(b, stream, samples, n);
        ask(c, b, BUFFER_READING);
    }
    while (b->state != BUFFER_READY) pthread_cond_wait(&c->served, &c->lock);
    eqat_status st = check_failed(c);
    pthread_mutex_unlock(&c->lock);
    /* The thread leaves a buffer that is ready alone. */
    if (st == EQAT_OK) st = eqi_tensor_upload(batch, b->data, (size_t)n * c->shape.bytes);
    pthread_mutex_lock(&c->lock);
    b->state = BUFFER_FREE;
    pthread_mutex_unlock(&c->lock);
    return st;
}

eqat_status eqi_cache_write(eqi_cache *c, int stream, const int64_t *samples, int64_t n,
                            const eqi_tensor *batch)
{
    EQI_RETURN_IF(settle(c));
    if (!c->dir) return write_memory(c, stream, samples, n, batch);
    pthread_mutex_lock(&c->lock);
    drop_hints(c, stream, samples, n);
    buffer *b = wait_free_for_write(c);
    take(b, stream, samples, n);
    eqat_status st = check_failed(c);
    pthread_mutex_unlock(&c->lock);
    bool late = !c->ctx->backend->host;
    if (st == EQAT_OK)
        st = late ? send(c, b, batch)
                  : eqi_tensor_download(batch, b->data, (size_t)n * c->shape.bytes);
    pthread_mutex_lock(&c->lock);
    if (st != EQAT_OK)
        b->state = BUFFER_FREE;
    else if (!late)
        ask(c, b, BUFFER_WRITING);
    pthread_mutex_unlock(&c->lock);
    return st;
}

eqat_status eqi_cache_flush(eqi_cache *c)
{
    EQI_RETURN_IF(settle(c));
    if (!c->dir) return EQAT_OK;
    pthread_mutex_lock(&c->lock);
    while (any_writing(c)) pthread_cond_wait(&c->served, &c->lock);
    eqat_status st = check_failed(c);
    pthread_mutex_unlock(&c->lock);
    return st;
}
