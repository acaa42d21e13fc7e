#include "base/threads.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
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

/* Threads that take part in a job, for each processor: more than one, because the kernel may have
 * two of them on the same. */
#define CROWD 2

typedef struct worker {
    eqi_pool *pool;
    int index;
    pthread_t thread;
    sem_t call;
    atomic_bool asleep; /* or about to be: who sets it back posts `call` */
    size_t end;         /* of its share of the tasks */
    /* Of its share, 0 or less for none. Who takes one may read the job, which lasts until that task
     * is done; who has none does not, and may come late. */
    atomic_llong remaining;
    char apart[128]; /* no two shares in a line of the cache */
} worker;

struct eqi_pool {
    atomic_uint_fast64_t generation; /* counts jobs */
    atomic_bool stop;
    eqi_task_fn fn;
    void *arg;
    atomic_int shares; /* the first is the calling thread's */
    atomic_llong left; /* tasks that are not done */
    sem_t done;
    atomic_bool waiting; /* for it: who sets it back posts */
    int size;            /* asked for, the calling thread included */
    int most;            /* of these that a job is dealt to */
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

static void wait_for(sem_t *s)
{
    while (sem_wait(s) != 0) { /* interrupted by a debugger */
    }
}

static void call(worker *w)
{
    if (atomic_exchange(&w->asleep, false)) sem_post(&w->call);
}

/* Whoever joins a job wakes one more for it. A job that is over before a sleeper comes does not
 * wake the others, and none of them is waited for. */
static void call_another(eqi_pool *p, int index)
{
    int shares = atomic_load_explicit(&p->shares, memory_order_relaxed);
    for (int k = 1; k < shares; k++) {
        worker *w = &p->workers[(index + k) % shares];
        if (w->index == 0 || !atomic_load(&w->asleep)) continue;
        call(w);
        return;
    }
}

static bool take(worker *of, size_t *task)
{
    if (atomic_load_explicit(&of->remaining, memory_order_relaxed) <= 0) return false;
    long long remaining = atomic_fetch_sub(&of->remaining, 1);
    if (remaining <= 0) return false;
    *task = of->end - (size_t)remaining;
    return true;
}

/* Its own share first: the same part of the data as in the call before, which may lie in a cache
 * that others do not share. */
static void run_tasks(eqi_pool *p, int index)
{
    int shares = atomic_load_explicit(&p->shares, memory_order_relaxed);
    long long mine = 0;
    for (int k = 0; k < shares; k++) {
        worker *of = &p->workers[(index + k) % shares];
        for (size_t i; take(of, &i); mine++) {
            if (mine == 0 && index > 0) call_another(p, index);
            p->fn(p->arg, i, index);
        }
    }
    if (mine && atomic_fetch_sub(&p->left, mine) == mine && atomic_exchange(&p->waiting, false))
        sem_post(&p->done);
}

static bool called(eqi_pool *p, uint64_t seen)
{
    return atomic_load(&p->generation) != seen || atomic_load(&p->stop);
}

static void wait_for_call(worker *w, uint64_t seen)
{
    eqi_pool *p = w->pool;
    for (int i = 0; i < PATIENCE; i++) {
        if (called(p, seen)) return;
        relax();
    }
    atomic_store(&w->asleep, true);
    if (called(p, seen) && atomic_exchange(&w->asleep, false)) return;
    wait_for(&w->call);
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    eqi_pool *p = w->pool;
    if (omp_set_num_threads) omp_set_num_threads(1);
    (void)eqi_fpenv_default(); /* a thread is born with its creator's */
    for (uint64_t seen = 0; !atomic_load(&p->stop);) {
        wait_for_call(w, seen);
        seen = atomic_load(&p->generation);
        run_tasks(p, w->index);
    }
    return NULL;
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
    atomic_store(&p->waiting, false);
    sem_init(&p->done, 0, 0);
    /* Signals stay the business of the threads that the host program made. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int err = 0;
    for (int i = 0; i < p->size && err == 0; i++) {
        worker *w = &p->workers[i];
        *w = (worker){.pool = p, .index = i};
        sem_init(&w->call, 0, 0);
        if (i > 0) err = pthread_create(&w->thread, NULL, worker_main, w);
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
    p->most = borrowed ? threads : CROWD * available_processors();
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
        atomic_store(&p->stop, true);
        for (int i = 1; i <= p->started; i++) call(&p->workers[i]);
        for (int i = 1; i <= p->started; i++) pthread_join(p->workers[i].thread, NULL);
        for (int i = 0; i <= p->started; i++) sem_destroy(&p->workers[i].call);
        sem_destroy(&p->done);
    }
    eqi_free(ctx, p);
}

int eqi_pool_size(const eqi_pool *p) { return p->size; }

static void wait_for_tasks(eqi_pool *p)
{
    for (int i = 0; i < PATIENCE && atomic_load(&p->left) > 0; i++) relax();
    while (atomic_load(&p->left) > 0) {
        atomic_store(&p->waiting, true);
        if (atomic_load(&p->left) == 0 && atomic_exchange(&p->waiting, false)) return;
        wait_for(&p->done); /* a post may be of the job before: look again */
    }
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
    size_t shares = (size_t)(p->most < p->size ? p->most : p->size);
    if (shares > count) shares = count;
    p->fn = fn;
    p->arg = arg;
    atomic_store_explicit(&p->shares, (int)shares, memory_order_relaxed);
    atomic_store(&p->left, (long long)count);
    for (size_t i = 0; i < shares; i++) {
        size_t begin = count * i / shares, end = count * (i + 1) / shares;
        p->workers[i].end = end;
        atomic_store(&p->workers[i].remaining, (long long)(end - begin));
    }
}

static void run_own(eqi_pool *p)
{
    int before = quiet_openmp();
    if (p->started && atomic_load(&p->left) > 1) {
        atomic_fetch_add(&p->generation, 1);
        call_another(p, 0);
    }
    run_tasks(p, 0);
    wait_for_tasks(p);
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
        p->borrowed(p->borrowed_user, (size_t)p->shares, borrowed_task, p);
    else
        run_own(p);
}

typedef struct stoppable {
    eqi_stop *stop;
    eqi_task_fn fn;
    void *arg;
} stoppable;

static void unless_stopped(void *arg, size_t index, int number)
{
    const stoppable *s = arg;
    if (!eqi_stop_here(s->stop)) s->fn(s->arg, index, number);
}

eqat_status eqi_parallel_or_stop(eqi_ctx *ctx, eqi_stop *stop, size_t count, eqi_task_fn fn,
                                 void *arg)
{
    stoppable s = {.stop = stop, .fn = fn, .arg = arg};
    eqi_parallel(ctx, count, unless_stopped, &s);
    if (!atomic_load_explicit(&stop->heard, memory_order_relaxed)) return EQAT_OK;
    (void)eqi_check_cancel(ctx); /* the request is answered, unless it was taken back */
    return eqi_fail(ctx, EQAT_CANCELLED, "cancelled");
}
