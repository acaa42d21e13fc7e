#include "rate.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "measure.h"

/* Weak: a oneDNN without OpenMP has no such symbol. */
extern void omp_set_num_threads(int n) __attribute__((weak));

typedef struct team {
    pthread_barrier_t start;
    bench_share_fn fn;
    void *arg;
    int threads;
} team;

typedef struct member {
    team *team;
    int index;
    double begin, end;
    pthread_t thread;
} member;

static void *member_main(void *arg)
{
    member *m = arg;
    if (omp_set_num_threads) omp_set_num_threads(1);
    pthread_barrier_wait(&m->team->start);
    m->begin = bench_seconds();
    m->team->fn(m->team->arg, m->index, m->team->threads);
    m->end = bench_seconds();
    return NULL;
}

double bench_together(int threads, bench_share_fn fn, void *arg)
{
    team t = {.fn = fn, .arg = arg, .threads = threads};
    member *m = calloc((size_t)threads, sizeof *m);
    if (!m || pthread_barrier_init(&t.start, NULL, (unsigned)threads)) exit(1);
    for (int i = 0; i < threads; i++) {
        m[i].team = &t;
        m[i].index = i;
        if (pthread_create(&m[i].thread, NULL, member_main, &m[i])) exit(1);
    }
    double begin = 1e300, end = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(m[i].thread, NULL);
        if (m[i].begin < begin) begin = m[i].begin;
        if (m[i].end > end) end = m[i].end;
    }
    pthread_barrier_destroy(&t.start);
    free(m);
    return end - begin;
}

int bench_processors(void)
{
    cpu_set_t set;
    int64_t n = bench_int("threads", 0);
    if (n > 0) return (int)n;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}
