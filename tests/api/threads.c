#include <dirent.h>
#include <fenv.h>
#include <pthread.h>

#include "api.h"

/* The caller's threads instead of the context's. */

typedef void (*task_fn)(void *arg, size_t index);

typedef struct pool {
    int calls;
    size_t most; /* tasks of a call */
} pool;

static void note(pool *p, size_t count)
{
    p->calls++;
    if (count > p->most) p->most = count;
}

static void backwards(void *user, size_t count, task_fn task, void *arg)
{
    note(user, count);
    while (count) task(arg, --count);
}

typedef struct errand {
    task_fn task;
    void *arg;
    size_t index;
} errand;

static void *run_errand(void *user)
{
    const errand *e = user;
    fesetround(FE_DOWNWARD); /* the host's business, and no result's */
    e->task(e->arg, e->index);
    ck_assert_int_eq(fegetround(), FE_DOWNWARD);
    return NULL;
}

static void at_once(void *user, size_t count, task_fn task, void *arg)
{
    pthread_t threads[8];
    errand errands[8];
    note(user, count);
    ck_assert_uint_le(count, 8);
    for (size_t i = 0; i < count; i++) {
        errands[i] = (errand){task, arg, i};
        pthread_create(&threads[i], NULL, run_errand, &errands[i]);
    }
    for (size_t i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

static int threads_now(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/task");
    while (readdir(dir)) n++;
    closedir(dir);
    return n;
}

enum { N = 96 };

static void product(eqat_context *ctx, float *out)
{
    static float values[N * N];
    for (int i = 0; i < N * N; i++) values[i] = (float)(i % 97) * 0.01f;
    eqat_tape *tape;
    eqat_tensor *x, *y;
    OK(eqat_tape_create(ctx, &tape));
    OK(eqat_tensor_create(ctx, &x, EQAT_F32, 2, (int64_t[]){N, N}, values));
    OK(eqat_op_linear(tape, x, x, NULL, &y));
    OK(eqat_tensor_read(y, out, N * N * sizeof *out));
    eqat_tensor_free(x);
    eqat_tensor_free(y);
    eqat_tape_free(tape);
}

START_TEST(borrowed_threads_give_the_same)
{
    static const eqat_parallel_fn hosts[] = {backwards, at_once};
    static float expected[N * N], found[N * N];
    eqat_context_options o = defaults();
    eqat_context *ctx = open_context(&o);
    product(ctx, expected);
    eqat_context_free(ctx);
    for (int i = 0; i < 2; i++) {
        pool p = {0};
        int before = threads_now();
        o.parallel = hosts[i];
        o.parallel_user = &p;
        o.threads = 3;
        ctx = open_context(&o);
        ck_assert_int_eq(threads_now(), before);
        ck_assert_int_eq(eqat_context_threads(ctx), 3);
        product(ctx, found);
        ck_assert_mem_eq(found, expected, sizeof found);
        eqat_context_free(ctx);
        ck_assert(p.calls > 0 && p.most > 1 && p.most <= 3);
    }
}
END_TEST

/* ---- arguments ---- */

static eqat_status one(void *user, bool validation, int64_t index, const eqat_sample *sample)
{
    (void)user;
    (void)validation;
    (void)index;
    sample->ids[0] = 1;
    return EQAT_OK;
}

START_TEST(null_is_an_answer)
{
    eqat_tensor *out = (eqat_tensor *)&out;
    eqat_tape *tape;
    eqat_context *ctx = open_context(NULL);
    eqat_tensor *x = vector(ctx, 4, 1);
    OK(eqat_tape_create(ctx, &tape));
    ck_assert_int_eq(eqat_op_add(tape, x, NULL, &out), EQAT_INVALID_ARGUMENT);
    ck_assert_str_eq(eqat_context_error(ctx), "b: found NULL");
    ck_assert_ptr_null(out);
    ck_assert_int_eq(eqat_op_mse(tape, x, x, NULL), EQAT_INVALID_ARGUMENT);
    ck_assert_str_eq(eqat_context_error(ctx), "loss: found NULL");
    out = x;
    ck_assert_int_eq(eqat_op_add(NULL, x, x, &out), EQAT_INVALID_ARGUMENT);
    ck_assert_ptr_null(out);
    eqat_data *data;
    ck_assert_int_eq(eqat_data_from_records(ctx, &data, NULL, NULL, EQAT_SAMPLE_IDS, 1, 0, NULL),
                     EQAT_INVALID_ARGUMENT);
    ck_assert_str_eq(eqat_context_error(ctx), "fill: found NULL");
    OK(eqat_data_from_records(ctx, &data, one, NULL, EQAT_SAMPLE_IDS, 2, 0, NULL));
    eqat_data_free(data);
    eqat_tape_free(tape);
    eqat_tensor_free(x);
    eqat_context_free(ctx);
}
END_TEST

TCase *threads_case(void)
{
    TCase *c = tcase_create("threads");
    tcase_add_test(c, borrowed_threads_give_the_same);
    tcase_add_test(c, null_is_an_answer);
    return c;
}
