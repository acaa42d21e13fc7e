/* Two contexts that train at once on two threads, and a third thread that cancels one of them. For
 * ThreadSanitizer (tests/tsan.sh), and in every build for its results. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "public.h"

typedef struct trainer {
    pthread_t thread;
    const char *model, *offload_dir, *folder; /* paths are handed out by one thread alone */
    eqat_context *ctx;                        /* set before the thread starts */
    atomic_long steps;
    eqat_status first; /* of the run that may be cancelled */
    eqat_status last;
} trainer;

static int32_t count_step(void *user, const eqat_progress *p)
{
    trainer *t = user;
    (void)p;
    atomic_fetch_add(&t->steps, 1);
    return 0;
}

static eqat_status run(trainer *t, eqat_model *model, eqat_quantizer *q, eqat_data *data)
{
    eqat_block_ap_options o = fast_options();
    eqat_e2e_qp_options e = fast_e2e_options();
    o.offload_dir = t->offload_dir;
    o.progress = e.progress = count_step;
    o.progress_user = e.progress_user = t;
    eqat_block_ap *job = NULL;
    t->last = eqat_block_ap_create(model, &job, q, data, &o);
    if (t->last == EQAT_OK) t->last = t->first = eqat_block_ap_run(job);
    if (t->first == EQAT_CANCELLED) {
        eqat_context_reset_cancel(t->ctx);
        t->last = eqat_block_ap_run(job);
    }
    eqat_block_ap_free(job);
    if (t->last == EQAT_OK) t->last = eqat_e2e_qp_train(model, data, &e);
    if (t->last == EQAT_OK) t->last = eqat_model_save(model, t->folder, NULL);
    return t->last;
}

static void *train(void *user)
{
    trainer *t = user;
    setting s = usual;
    bench b = {.ctx = t->ctx};
    b.model = open_model(b.ctx, t->model, s.compute);
    b.quantizer = make_quantizer(b.ctx, s.bits, 32);
    b.data = make_data(b.ctx, 7, 3, s.shuffle);
    run(t, b.model, b.quantizer, b.data);
    eqat_data_free(b.data);
    eqat_quantizer_free(b.quantizer);
    eqat_model_free(b.model);
    return NULL;
}

START_TEST(two_train_and_one_is_cancelled)
{
    const char *model = scratch("model"), *expected = reference_folder();
    trainer t[2] = {
        {.model = model, .folder = scratch("one"), .offload_dir = scratch_dir()},
        {.model = model, .folder = scratch("two")},
    };
    for (int i = 0; i < 2; i++) t[i].ctx = make_context(2, usual.seed);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&t[i].thread, NULL, train, &t[i]), 0);
    while (atomic_load(&t[1].steps) < 2) usleep(100);
    eqat_context_cancel(t[1].ctx);
    for (int i = 0; i < 2; i++) pthread_join(t[i].thread, NULL);
    ck_assert_int_eq(t[0].first, EQAT_OK);
    ck_assert_int_eq(t[1].first, EQAT_CANCELLED);
    for (int i = 0; i < 2; i++) {
        ck_assert_msg(t[i].last == EQAT_OK, "%s", eqat_context_error(t[i].ctx));
        eqat_context_free(t[i].ctx);
    }
    ck_assert(same_folders(t[0].folder, expected));
    ck_assert(same_folders(t[1].folder, expected));
}
END_TEST

/* Sizes that no number of threads divides, and more of them than a task takes. */
static void write_odd_model(void)
{
    static const llama_shape odd = {VOCAB + 1, 160, 224, 2, 5, 1, false};
    write_llama("odd", &odd, NULL);
}

START_TEST(any_number_of_threads)
{
    static const eqat_dtype dtypes[] = {EQAT_F32, EQAT_BF16};
    setting s = usual;
    char name[32];
    const char *expected = NULL;
    s.model = "odd";
    s.compute = dtypes[_i];
    for (s.threads = 1; s.threads <= 4; s.threads++)
        for (int offload = 0; offload < 2; offload++) {
            s.offload_dir = offload ? scratch_dir() : NULL;
            snprintf(name, sizeof name, "odd-%d-%d-%d", _i, s.threads, offload);
            const char *folder = one_call(&s, name);
            if (!expected) expected = folder;
            ck_assert_msg(same_folders(folder, expected), "%d threads, offload %d", s.threads,
                          offload);
        }
}
END_TEST

static void write_models(void)
{
    write_small_model();
    write_odd_model();
}

int main(void)
{
    TCase *t = tcase_create("together");
    tcase_add_unchecked_fixture(t, write_models, scratch_clean);
    tcase_add_test(t, two_train_and_one_is_cancelled);
    tcase_add_loop_test(t, any_number_of_threads, 0, 2);
    return run_case("together", t, CK_NOFORK);
}
