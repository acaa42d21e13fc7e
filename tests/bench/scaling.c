/* What more processors would bring: the jobs of a step of Block-AP as one thread does them, every
 * task timed, dealt to more threads on paper by the rules of the pool. The least of `rounds` steps
 * counts for each task. What processors share, memory above all, is not in it.
 *   bench_scaling model=DIR tokens=FILE dtype=bf16 time=512 batch=2 group=64 rounds=8 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/threads.h"
#include "measure.h"

/* Weak: a oneDNN without OpenMP has no such symbol. */
extern void omp_set_num_threads(int n) __attribute__((weak));

/* What it takes a thread that waits to see that there is a job, or that it is done. */
#define HANDOVER 1e-6
#define MOST_THREADS 64

typedef struct job {
    size_t first, count; /* of its tasks */
    double alone;        /* seconds of the calling thread before it */
} job;

/* What a step did, in order. */
static struct record {
    bool on;
    double since; /* the end of the job before */
    size_t jobs, tasks, most_jobs, most_tasks;
    job *job;
    double *task, after; /* seconds; behind the last job */
} now, least;

static void *grown(void *list, size_t count, size_t *most, size_t size)
{
    if (count < *most) return list;
    *most = *most ? 2 * *most : 1024;
    list = realloc(list, *most * size);
    if (!list) abort();
    return list;
}

static void run(size_t count, eqi_task_fn fn, void *arg)
{
    double t = bench_seconds();
    if (now.on) {
        now.job = grown(now.job, now.jobs, &now.most_jobs, sizeof *now.job);
        now.job[now.jobs++] = (job){now.tasks, count, t - now.since};
    }
    for (size_t i = 0; i < count; i++) {
        fn(arg, i, 0);
        double end = bench_seconds();
        if (now.on) {
            now.task = grown(now.task, now.tasks, &now.most_tasks, sizeof *now.task);
            now.task[now.tasks++] = end - t;
        }
        t = end;
    }
    now.since = t;
}

/* The linker puts these in place of the pool's. */
void __wrap_eqi_parallel(eqi_ctx *ctx, size_t count, eqi_task_fn fn, void *arg);
eqat_status __wrap_eqi_parallel_or_stop(eqi_ctx *ctx, eqi_stop *stop, size_t count, eqi_task_fn fn,
                                        void *arg);

void __wrap_eqi_parallel(eqi_ctx *ctx, size_t count, eqi_task_fn fn, void *arg)
{
    (void)ctx;
    run(count, fn, arg);
}

eqat_status __wrap_eqi_parallel_or_stop(eqi_ctx *ctx, eqi_stop *stop, size_t count, eqi_task_fn fn,
                                        void *arg)
{
    (void)ctx;
    (void)stop;
    run(count, fn, arg);
    return EQAT_OK;
}

static void keep_least(bool first)
{
    if (first) {
        least = now;
        least.job = malloc(now.jobs * sizeof *now.job);
        least.task = malloc(now.tasks * sizeof *now.task);
        if (!least.job || !least.task) abort();
        memcpy(least.job, now.job, now.jobs * sizeof *now.job);
        memcpy(least.task, now.task, now.tasks * sizeof *now.task);
        return;
    }
    if (now.jobs != least.jobs || now.tasks != least.tasks) abort(); /* all steps do the same */
    for (size_t i = 0; i < now.jobs; i++)
        if (now.job[i].alone < least.job[i].alone) least.job[i].alone = now.job[i].alone;
    for (size_t i = 0; i < now.tasks; i++)
        if (now.task[i] < least.task[i]) least.task[i] = now.task[i];
    if (now.after < least.after) least.after = now.after;
}

/* A thread takes its own share of consecutive tasks, then the first one left of the next thread
 * that has any; see run_tasks in lib/base/threads.c. */
static double seconds_of(const double *task, size_t count, size_t threads)
{
    double free_at[MOST_THREADS], end = 0;
    size_t next[MOST_THREADS], last[MOST_THREADS], shares = threads < count ? threads : count;
    for (size_t k = 0; k < shares; k++) {
        free_at[k] = k ? HANDOVER : 0;
        next[k] = count * k / shares;
        last[k] = count * (k + 1) / shares;
    }
    for (size_t done = 0; done < count; done++) {
        size_t who = 0, of = 0;
        for (size_t k = 1; k < shares; k++)
            if (free_at[k] < free_at[who]) who = k;
        while (next[(who + of) % shares] == last[(who + of) % shares]) of++;
        free_at[who] += task[next[(who + of) % shares]++];
        if (free_at[who] > end) end = free_at[who];
    }
    return shares > 1 ? end + HANDOVER : end;
}

static double step_on(size_t threads, double *alone)
{
    double sum = 0;
    *alone = least.after;
    for (size_t i = 0; i < least.jobs; i++) {
        const job *j = &least.job[i];
        *alone += j->alone;
        sum += seconds_of(least.task + j->first, j->count, threads);
    }
    return sum + *alone;
}

int main(int argc, char **argv)
{
    bench_begin(argc, argv);
    if (omp_set_num_threads) omp_set_num_threads(1); /* as the pool does */
    bench_setting s;
    bench_open(&s);
    eqat_quantizer *quantizer;
    eqat_block_ap *training = bench_block_ap(&s, &quantizer);
    double loss, whole = 0;
    for (int64_t i = -1; i < bench_int("rounds", 8); i++) { /* the first makes the products */
        now.jobs = now.tasks = 0;
        now.on = i >= 0;
        double began = now.since = bench_seconds();
        bench_ok(eqat_block_ap_step(training, 0, (i + 1) % eqat_block_ap_steps(training), &loss));
        double end = bench_seconds();
        now.after = end - now.since;
        if (i == 0 || (i > 0 && end - began < whole)) whole = end - began;
        if (i >= 0) keep_least(i == 0);
    }
    bench_print_int("jobs", (int64_t)least.jobs);
    bench_print_int("tasks", (int64_t)least.tasks);
    bench_print_real("step", whole);
    for (size_t threads = 1; threads <= MOST_THREADS; threads *= 2) {
        char name[32];
        double alone, seconds = step_on(threads, &alone);
        if (threads == 1) bench_print_real("alone", alone);
        snprintf(name, sizeof name, "threads_%zu", threads);
        bench_print_real(name, seconds);
    }
    bench_end();
    eqat_block_ap_free(training);
    eqat_quantizer_free(quantizer);
    bench_close(&s);
    free(now.job);
    free(now.task);
    free(least.job);
    free(least.task);
    return 0;
}
