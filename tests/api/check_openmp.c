#include <omp.h>
#include <stdio.h>

#include "public.h"

/* A host that is an OpenMP program: the library is called between its parallel regions, within
 * them, from a task, and with OpenMP's threads in place of its own. */

enum { TEAM = 3 };

typedef struct settings {
    int threads, dynamic, levels, chunk;
    omp_sched_t schedule;
} settings;

static settings settings_now(void)
{
    settings s = {.threads = omp_get_max_threads(),
                  .dynamic = omp_get_dynamic(),
                  .levels = omp_get_max_active_levels()};
    omp_get_schedule(&s.schedule, &s.chunk);
    return s;
}

static int team_size(void)
{
    int n = 0;
#pragma omp parallel
#pragma omp single
    n = omp_get_num_threads();
    return n;
}

static void choose_settings(void)
{
    omp_set_dynamic(0);
    omp_set_num_threads(TEAM);
    omp_set_max_active_levels(2);
    omp_set_schedule(omp_sched_guided, 7);
}

START_TEST(settings_and_teams_are_the_hosts)
{
    choose_settings();
    const settings before = settings_now();
    ck_assert(same_folders(one_call(&usual, "between-regions"), reference_folder()));
    const settings after = settings_now();
    ck_assert_int_eq(after.threads, before.threads);
    ck_assert_int_eq(after.dynamic, before.dynamic);
    ck_assert_int_eq(after.levels, before.levels);
    ck_assert_int_eq(after.schedule, before.schedule);
    ck_assert_int_eq(after.chunk, before.chunk);
    ck_assert_int_eq(team_size(), TEAM);
}
END_TEST

/* A run on an OpenMP thread, which must not end the test; paths are handed out before. */
typedef struct run {
    bench b;
    const char *folder;
    eqat_status status;
    int threads; /* of OpenMP's settings there, afterwards */
} run;

static void train(run *r)
{
    eqat_block_ap_options o = fast_options();
    eqat_e2e_qp_options e = fast_e2e_options();
    bench *b = &r->b;
    omp_set_num_threads(TEAM + 1);
    r->status = eqat_block_ap_quantize(b->model, b->quantizer, b->data, &o);
    if (r->status == EQAT_OK) r->status = eqat_e2e_qp_train(b->model, b->data, &e);
    if (r->status == EQAT_OK) r->status = eqat_model_save(b->model, r->folder, NULL);
    r->threads = omp_get_max_threads();
}

static void begin(run r[TEAM], const char *name)
{
    choose_settings();
    for (int i = 0; i < TEAM; i++) {
        char folder[64];
        snprintf(folder, sizeof folder, "%s-%d", name, i);
        r[i] = (run){.b = set_up(&usual), .folder = scratch(folder)};
    }
}

static void end(run r[TEAM])
{
    for (int i = 0; i < TEAM; i++) {
        ck_assert_msg(r[i].status == EQAT_OK, "%s", eqat_context_error(r[i].b.ctx));
        ck_assert_int_eq(r[i].threads, TEAM + 1);
        ck_assert(same_folders(r[i].folder, reference_folder()));
        tear_down(&r[i].b);
    }
    ck_assert_int_eq(team_size(), TEAM);
}

START_TEST(every_thread_of_a_region_has_a_context)
{
    run r[TEAM];
    begin(r, "region");
#pragma omp parallel for num_threads(TEAM) schedule(static, 1)
    for (int i = 0; i < TEAM; i++) train(&r[i]);
    end(r);
}
END_TEST

/* A task may be run by any thread of the team, its context's maker or not. */
START_TEST(calls_from_tasks)
{
    run r[TEAM];
    begin(r, "task");
#pragma omp parallel num_threads(TEAM)
#pragma omp single
    for (int i = 0; i < TEAM; i++) {
#pragma omp task firstprivate(i) shared(r)
        train(&r[i]);
    }
    end(r);
}
END_TEST

typedef void (*task_fn)(void *arg, size_t index);

static void by_openmp(void *user, size_t count, task_fn task, void *arg)
{
    int *most = user;
#pragma omp parallel for num_threads(TEAM) schedule(dynamic, 1)
    for (size_t i = 0; i < count; i++) {
        task(arg, i);
        if (i == 0 && omp_get_num_threads() > *most) *most = omp_get_num_threads();
    }
}

START_TEST(openmps_threads_in_place_of_the_contexts)
{
    int most = 0;
    eqat_context_options c;
    eqat_context_options_init(&c, sizeof c);
    c.threads = TEAM;
    c.log_level = EQAT_LOG_ERROR;
    c.seed = usual.seed;
    c.parallel = by_openmp;
    c.parallel_user = &most;
    choose_settings();
    bench b = {0};
    ck_assert_int_eq(eqat_context_create(&b.ctx, &c, NULL, 0), EQAT_OK);
    b.model = open_model(b.ctx, "model", usual.compute);
    b.quantizer = make_quantizer(b.ctx, usual.bits, 32);
    b.data = make_data(b.ctx, 7, 3, usual.shuffle);
    eqat_block_ap_options o = fast_options();
    eqat_e2e_qp_options e = fast_e2e_options();
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &e));
    ck_assert(same_folders(save_as(b.ctx, b.model, "by-openmp"), reference_folder()));
    ck_assert_int_eq(most, TEAM);
    ck_assert_int_eq(team_size(), TEAM);
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, settings_and_teams_are_the_hosts);
    tcase_add_test(tc, every_thread_of_a_region_has_a_context);
    tcase_add_test(tc, calls_from_tasks);
    tcase_add_test(tc, openmps_threads_in_place_of_the_contexts);
    return run_case("a host with OpenMP", tc, CK_NOFORK);
}
