#include "base/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

/* oneDNN as packaged uses OpenMP inside; a worker must not start a team of its own.
 * Weak: a build against a oneDNN without OpenMP has no such symbol. */
extern void omp_set_num_threads(int n) __attribute__((weak));

typedef struct worker {
    eqi_pool *pool;
    int index;
    pthread_t thread;
} worker;

struct eqi_pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    uint64_t generation;
    int running; /* workers still inside the current generation */
    bool stop;
    eqi_task_fn fn;
    void *arg;
    size_t count;
    atomic_size_t next;
    int size;    /* asked for */
    int started; /* of them, in the process `owner` */
    pid_t owner;
    worker workers[];
};

static void *worker_main(void *arg)
{
    worker *w = arg;
    eqi_pool *p = w->pool;
    if (omp_set_num_threads) omp_set_num_threads(1);
    uint64_t seen = 0;
    for (;;) {
        pthread_mutex_lock(&p->lock);
        while (p->generation == seen && !p->stop) pthread_cond_wait(&p->work, &p->lock);
        seen = p->generation;
        bool stop = p->stop;
        pthread_mutex_unlock(&p->lock);
        if (stop) return NULL;
        for (;;) {
            size_t i = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
            if (i >= p->count) break;
            p->fn(p->arg, i, w->index);
        }
        pthread_mutex_lock(&p->lock);
        if (--p->running == 0) pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->lock);
    }
}

static int available_processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

/* An errno when not all could be started. */
static int start(eqi_pool *p)
{
    p->owner = getpid();
    p->started = 0;
    p->generation = 0;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    /* Signals stay the business of the threads that the host program made. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = 0;
    for (int i = 0; i < p->size && err == 0; i++) {
        p->workers[i] = (worker){ .pool = p, .index = i };
        err = pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]);
        if (err == 0) p->started = i + 1;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return err;
}

/* The child of a fork has the pool's memory and none of its threads: waiting for one would be for ever. */
static bool inherited(const eqi_pool *p) { return p->owner != getpid(); }

eqat_status eqi_pool_create(eqi_ctx *ctx, eqi_pool **out, int threads)
{
    *out = NULL;
    if (threads < 0 || threads > 1024)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "threads: found %d, expected 0 to 1024", threads);
    if (threads == 0) threads = available_processors();
    eqi_pool *p = eqi_calloc(ctx, 1, sizeof *p + (size_t)threads * sizeof(worker), "the thread pool");
    if (!p) return EQAT_OUT_OF_MEMORY;
    p->size = threads;
    int err = start(p);
    if (err) {
        eqi_pool_free(ctx, p);
        return eqi_fail(ctx, EQAT_BACKEND, "threads: cannot start %d: %s", threads, strerror(err));
    }
    *out = p;
    return EQAT_OK;
}

void eqi_pool_free(eqi_ctx *ctx, eqi_pool *p)
{
    if (!p) return;
    if (!inherited(p)) {
        pthread_mutex_lock(&p->lock);
        p->stop = true;
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
        for (int i = 0; i < p->started; i++) pthread_join(p->workers[i].thread, NULL);
        pthread_cond_destroy(&p->done);
        pthread_cond_destroy(&p->work);
        pthread_mutex_destroy(&p->lock);
    }
    eqi_free(ctx, p);
}

int eqi_pool_size(const eqi_pool *p) { return p->size; }

void eqi_parallel(eqi_ctx *ctx, size_t count, eqi_task_fn fn, void *arg)
{
    if (count == 0) return;
    eqi_pool *p = ctx->pool;
    if (inherited(p)) (void)start(p); /* with fewer workers it is slower, and no less right */
    if (p->started == 0) {
        for (size_t i = 0; i < count; i++) fn(arg, i, 0);
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->fn = fn;
    p->arg = arg;
    p->count = count;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    p->running = p->started;
    p->generation++;
    pthread_cond_broadcast(&p->work);
    while (p->running > 0) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
