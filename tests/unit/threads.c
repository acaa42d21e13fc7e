#include "base/threads.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/engine.h"
#include "unit.h"

enum { TASKS = 1000 };

typedef struct work {
    atomic_int runs[TASKS];
    atomic_int workers[1024];
    int size;
} work;

static void task(void *arg, size_t index, int worker)
{
    work *w = arg;
    atomic_fetch_add(&w->runs[index], 1);
    if (worker >= 0 && worker < w->size) atomic_fetch_add(&w->workers[worker], 1);
}

static void run_all(int threads)
{
    eqi_ctx_config config = {.device = "ref", .threads = threads};
    eqi_ctx *ctx;
    ck_assert_int_eq(eqi_ctx_create(&ctx, &config, NULL, 0), EQAT_OK);
    if (threads) ck_assert_int_eq(eqi_pool_size(ctx->pool), threads);
    ck_assert_int_ge(eqi_pool_size(ctx->pool), 1);
    static work w;
    for (int round = 1; round <= 50; round++) {
        memset(&w, 0, sizeof w);
        w.size = eqi_pool_size(ctx->pool);
        eqi_parallel(ctx, TASKS, task, &w);
        int total = 0;
        for (int i = 0; i < TASKS; i++) ck_assert_int_eq(atomic_load(&w.runs[i]), 1);
        for (int i = 0; i < w.size; i++) total += atomic_load(&w.workers[i]);
        ck_assert_int_eq(total, TASKS);
    }
    eqi_parallel(ctx, 0, task, NULL);
    eqi_ctx_unref(ctx);
}

START_TEST(every_task_once)
{
    run_all(1);
    run_all(2);
    run_all(7);
    run_all(0);
    run_all(1024); /* most of them asleep from beginning to end */
}
END_TEST

/* Changes from job to job: a thread that comes late must not take one for the other. */
typedef struct round_job {
    int *values;
    int add;
} round_job;

static void add_task(void *arg, size_t index, int worker)
{
    (void)worker;
    const round_job *j = arg;
    j->values[index] += j->add;
}

START_TEST(jobs_of_any_size_in_turn)
{
    static int values[TASKS];
    eqi_ctx_config config = {.device = "ref", .threads = 4};
    eqi_ctx *ctx;
    ck_assert_int_eq(eqi_ctx_create(&ctx, &config, NULL, 0), EQAT_OK);
    for (int i = 0; i < 5000; i++) {
        round_job *j = calloc(1, sizeof *j);
        *j = (round_job){values, i};
        size_t count = (size_t)(i * 37 % 61);
        memset(values, 0, sizeof values);
        eqi_parallel(ctx, count, add_task, j);
        for (size_t k = 0; k < TASKS; k++) ck_assert_int_eq(values[k], k < count ? i : 0);
        free(j);
        if (i % 500 == 0) usleep(1000); /* all asleep */
    }
    eqi_ctx_unref(ctx);
}
END_TEST

static void use_and_free(eqi_ctx *ctx, bool use)
{
    static work w;
    w.size = eqi_pool_size(ctx->pool);
    if (use) eqi_parallel(ctx, TASKS, task, &w);
    for (int i = 0; use && i < TASKS; i++)
        if (atomic_load(&w.runs[i]) != 1) _exit(1);
    eqi_ctx_unref(ctx);
    _exit(0);
}

START_TEST(child_of_a_fork)
{
    static work w;
    eqi_ctx_config config = {.device = "ref", .threads = 3};
    eqi_ctx *ctx;
    ck_assert_int_eq(eqi_ctx_create(&ctx, &config, NULL, 0), EQAT_OK);
    w.size = 3;
    eqi_parallel(ctx, TASKS, task, &w);
    for (int use = 0; use < 2; use++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(60);
            use_and_free(ctx, use);
        }
        int status;
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_int_eq(status, 0);
    }
    eqi_ctx_unref(ctx);
}
END_TEST

START_TEST(numbers_out_of_range)
{
    char error[100];
    eqi_ctx *ctx;
    for (int i = 0; i < 2; i++) {
        eqi_ctx_config config = {.device = "ref", .threads = i ? 1025 : -1};
        ck_assert_int_eq(eqi_ctx_create(&ctx, &config, error, sizeof error), EQAT_INVALID_ARGUMENT);
        ck_assert_str_eq(error,
                         i ? "threads: found 1025, expected 0 to 1024"
                           : "threads: found -1, expected 0 to 1024");
    }
}
END_TEST

static void *one_context(void *arg)
{
    eqi_ctx_config config = {.device = "ref", .threads = 2};
    eqi_ctx *ctx;
    if (eqi_ctx_create(&ctx, &config, NULL, 0) != EQAT_OK) return arg;
    bool good = true;
    for (int round = 0; round < 20; round++) {
        work *w = calloc(1, sizeof *w);
        w->size = 2;
        eqi_parallel(ctx, TASKS, task, w);
        for (int i = 0; i < TASKS; i++) good = good && atomic_load(&w->runs[i]) == 1;
        free(w);
    }
    eqi_ctx_unref(ctx);
    return good ? NULL : arg;
}

START_TEST(contexts_side_by_side)
{
    pthread_t threads[4];
    int mark;
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, one_context, &mark), 0);
    for (int i = 0; i < 4; i++) {
        void *result = &mark;
        pthread_join(threads[i], &result);
        ck_assert_ptr_null(result);
    }
}
END_TEST

TCase *case_threads(void)
{
    TCase *t = tcase_create("threads");
    tcase_add_test(t, every_task_once);
    tcase_add_test(t, jobs_of_any_size_in_turn);
    tcase_add_test(t, numbers_out_of_range);
    tcase_add_test(t, contexts_side_by_side);
    tcase_add_test(t, child_of_a_fork);
    return t;
}
