#include "base/threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/fpenv.h"

/* oneDNN as packaged uses OpenMP inside; a thread of the pool must not start a team of its own.
 * Weak: a build against a oneDNN without OpenMP has no such symbols. */
extern void omp_set_num_threads(int n) __attribute__((weak));
extern int omp_get_max_threads(void) __attribute__((weak));

/* Looks at what another thread is about to change, before sleeping: about 50 us, what waking a
 * thread costs. */
#define PATIENCE 2000

typedef struct worker {
    eqi_pool *pool;
    int index;
    pthread_t thread;
    size_t end; /* of its share of the tasks */
    atomic_size_t next;
    char apart[128]; /* no two shares in a line of the cache */
} worker;

struct eqi_pool {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    atomic_uint_fast64_t generation;
    atomic_int running; /* workers still inside the current generation */
    atomic_bool stop;
    eqi_task_fn fn;
    void *arg;
    int size; /* asked for, the calling thread included */
    eqi_parallel_fn borrowed;
    void *borrowed_user;
    int started; /* threads in the process `owner` */
    pid_t owner;
    worker workers[]; /* the first is the calling thread */
};

static void relax(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#endif
}

/* Its own share first: the same part of the data as in the call before, which may lie in a cache
 * that others do not share. */
static void run_tasks(eqi_pool *p, int index)
{
    for (int k = 0; k < p->size; k++) {
        worker *of = &p->workers[(index + k) % p->size];
        size_t i;
        while ((i = atomic_fetch_add_explicit(&of->next, 1, memory_order_relaxed)) < of->end)
            p->fn(p->arg, i, index);
    }
}

static bool called(eqi_pool *p, uint64_t seen)
{
    return atomic_load(&p->generation) != seen || atomic_load(&p->stop);
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    eqi_pool *p = w->pool;
    if (omp_set_num_threads) omp_set_num_threads(1);
    (void)eqi_fpenv_default(); /* a thread is born with its creator's */
    for (uint64_t seen = 0;; seen++) {
        for (int i = 0; i < PATIENCE && !called(p, seen); i++) relax();
        if (!called(p, seen)) {
            pthread_mutex_lock(&p->lock);
            while (!called(p, seen)) pthread_cond_wait(&p->work, &p->lock);
            pthread_mutex_unlock(&p->lock);
        }
        if (atomic_load(&p->stop)) return NULL;
        run_tasks(p, w->index);
        if (atomic_fetch_sub(&p->running, 1) > 1) continue;
        pthread_mutex_lock(&p->lock);
        pthread_cond_signal(&p->done);
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
    atomic_store(&p->generation, 0);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    /* Signals stay the business of the threads that the host program made. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = 0;
    for (int i = 1; i < p->size && err == 0; i++) {
        p->workers[i] = (worker){.pool = p, .index = i};
        err = pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]);
        if (err == 0) p->started = i;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return err;
}

/* The child of a fork has the pool's memory and none of its threads: waiting for one would be for
 * ever. */
static bool inherited(const eqi_pool *p) { return !p->borrowed && p->owner != getpid(); }

eqat_status eqi_pool_create(eqi_ctx *ctx, eqi_pool **out, int threads, eqi_parallel_fn borrowed,
                            void *borrowed_user)
{
    *out = NULL;
    if (threads < 0 || threads > 1024)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "threads: found %d, expected 0 to 1024",
                        threads);
    if (threads == 0) threads = available_processors();
    eqi_pool *p =
        eqi_calloc(ctx, 1, sizeof *p + (size_t)threads * sizeof(worker), "the thread pool");
    if (!p) return EQAT_OUT_OF_MEMORY;
    p->size = threads;
    p->borrowed = borrowed;
    p->borrowed_user = borrowed_user;
    int err = borrowed ? 0 : start(p);
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
    if (!p->borrowed && !inherited(p)) {
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->stop, true);
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
        for (int i = 1; i <= p->started; i++) pthread_join(p->workers[i].thread, NULL);
        pthread_cond_destroy(&p->done);
        pthread_cond_destroy(&p->work);
        pthread_mutex_destroy(&p->lock);
    }
    eqi_free(ctx, p);
}

int eqi_pool_size(const eqi_pool *p) { return p->size; }

static void wait_for_workers(eqi_pool *p)
{
    for (int i = 0; i < PATIENCE && atomic_load(&p->running) > 0; i++) relax();
    if (atomic_load(&p->running) == 0) return;
    pthread_mutex_lock(&p->lock);
    while (atomic_load(&p->running) > 0) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

/* Returns what to put back: 0 for nothing. */
static int quiet_openmp(void)
{
    int before = omp_get_max_threads ? omp_get_max_threads() : 0;
    if (before > 1) omp_set_num_threads(1);
    return before;
}

static void restore_openmp(int before)
{
    if (before > 1) omp_set_num_threads(before);
}

static void deal(eqi_pool *p, size_t count, eqi_task_fn fn, void *arg)
{
    p->fn = fn;
    p->arg = arg;
    for (int i = 0; i < p->size; i++) {
        p->workers[i].end = count * (size_t)(i + 1) / (size_t)p->size;
        atomic_store_explicit(&p->workers[i].next, count * (size_t)i / (size_t)p->size,
                              memory_order_relaxed);
    }
}

static void run_own(eqi_pool *p)
{
    int before = quiet_openmp();
    atomic_store(&p->running, p->started);
    if (p->started) {
        pthread_mutex_lock(&p->lock);
        atomic_fetch_add(&p->generation, 1);
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
    }
    run_tasks(p, 0);
    wait_for_workers(p);
    restore_openmp(before);
}

static void borrowed_task(void *arg, size_t index)
{
    int before = quiet_openmp();
    EQI_FPENV_GUARD();
    run_tasks(arg, (int)index);
    restore_openmp(before);
}

void eqi_parallel(eqi_ctx *ctx, size_t count, eqi_task_fn fn, void *arg)
{
    if (count == 0) return;
    eqi_pool *p = ctx->pool;
    if (inherited(p)) (void)start(p); /* with fewer workers it is slower, and no less right */
    deal(p, count, fn, arg);
    if (p->borrowed)
        p->borrowed(p->borrowed_user, count < (size_t)p->size ? count : (size_t)p->size,
                    borrowed_task, p);
    else
        run_own(p);
}
