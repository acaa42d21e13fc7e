#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "public.h"

/* Two ranks, each a thread with a context and a model of its own, train one model. */

enum { WORLD = 2, EPOCHS = 4, STAGES = 16 };

typedef struct shared {
    pthread_barrier_t barrier;
    const void *given[WORLD]; /* between two barriers */
} shared;

typedef struct plan {
    int64_t train, val, batch, early_stop;
    const char *model; /* NULL: "model" */
    int64_t experts_at_a_time;
    double lr;
    bool shuffle;
    eqat_init init;
    const char *name; /* of what rank r saves: name-r */
    bool keeps;       /* its state at every step, and begins where all ranks have one */
} plan;

typedef struct rank {
    shared *all;
    int number;
    const plan *plan;
    eqat_status status;
    char error[512];
    const char *saved;
    double epochs[BLOCKS][STAGES * EPOCHS][2]; /* NaN: no report */
    double steps[8], validations[8];           /* of E2E-QP */
    float *gradients; /* that its updates were made of, one after the other */
    size_t n_gradients;
    eqat_block_ap *block_ap; /* in work */
    eqat_e2e_qp *e2e_qp;
} rank;

/* Every rank sees what all have given, between two calls of meet. */
static void meet(rank *r, const void *given)
{
    if (given) r->all->given[r->number] = given;
    pthread_barrier_wait(&r->all->barrier);
}

static eqat_status add_up(void *user, double *sums, size_t count)
{
    rank *r = user;
    enum { MOST = 256 }; /* inputs of a linear */
    double total[MOST] = {0};
    ck_assert_uint_le(count, MOST);
    meet(r, sums);
    for (int i = 0; i < WORLD; i++)
        for (size_t k = 0; k < count; k++) total[k] += ((const double *)r->all->given[i])[k];
    meet(r, NULL);
    memcpy(sums, total, count * sizeof *sums);
    return EQAT_OK;
}

static eqat_status average(void *user, eqat_tensor *const *parameters, size_t count)
{
    rank *r = user;
    for (size_t p = 0; p < count; p++) {
        eqat_tensor *grad = eqat_tensor_grad(parameters[p]);
        size_t n = (size_t)eqat_tensor_count(grad), bytes = n * sizeof(float);
        float *own = malloc(bytes), *mean = calloc(n, sizeof *mean);
        eqat_status st = eqat_tensor_read(grad, own, bytes);
        meet(r, own);
        for (int i = 0; i < WORLD; i++)
            for (size_t k = 0; k < n; k++) mean[k] += ((const float *)r->all->given[i])[k] / WORLD;
        meet(r, NULL);
        if (st == EQAT_OK) st = eqat_tensor_write(grad, mean, bytes);
        free(own);
        free(mean);
        if (st != EQAT_OK) return st;
    }
    return EQAT_OK;
}

/* ---- states ---- */

static void state_path(char path[512], const char *phase, int number, int64_t step)
{
    snprintf(path, 512, "%s/%s-%d-%d", scratch_dir(), phase, number, (int)step);
}

static int32_t keep_state(void *user, const eqat_progress *p)
{
    rank *r = user;
    char path[512];
    state_path(path, p->phase, r->number, p->step);
    return (r->block_ap ? eqat_block_ap_save(r->block_ap, path)
                        : eqat_e2e_qp_save(r->e2e_qp, path)) != EQAT_OK;
}

/* The last step of which all ranks have a state: they are killed between two of them. */
static bool last_state(char path[512], const char *phase, int number)
{
    bool found = false;
    char own[512];
    for (int64_t step = 1; step < 1000; step++) {
        int there = 0;
        for (int i = 0; i < WORLD; i++) {
            state_path(own, phase, i, step);
            there += access(own, F_OK) == 0;
        }
        if (there < WORLD) continue;
        state_path(path, phase, number, step);
        found = true;
    }
    return found;
}

/* ---- one rank ---- */

static eqat_data *data_of(eqat_context *ctx, const plan *p, int number, int world)
{
    enum { TOKENS = 16 * TIME };
    int32_t ids[TOKENS];
    eqat_data_options o = consecutive(p->train, p->val, TIME);
    eqat_data *data;
    o.shuffle = p->shuffle;
    o.rank = number;
    o.world = world;
    for (int i = 0; i < TOKENS; i++) ids[i] = i ? (ids[i - 1] * 5 + 7 + i * i % 4) % VOCAB : 1;
    OK(ctx, eqat_data_from_tokens(ctx, &data, ids, TOKENS, VOCAB, &o));
    return data;
}

static eqat_status train_blocks(rank *r, bench *b)
{
    const plan *p = r->plan;
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    o.epochs = EPOCHS;
    o.batch_size = p->batch;
    o.early_stop = p->early_stop;
    o.experts_at_a_time = p->experts_at_a_time;
    o.quant_lr = o.weight_lr = p->lr;
    if (r->all) {
        o.gradient = average;
        o.reduce = add_up;
        o.gradient_user = o.reduce_user = r;
    }
    if (p->keeps) {
        o.progress = keep_state;
        o.progress_user = r;
    }
    char state[512];
    eqat_status st = eqat_block_ap_create(b->model, &job, b->quantizer, b->data, &o);
    if (st != EQAT_OK) return st;
    r->block_ap = job;
    if (p->keeps && last_state(state, "block-ap", r->number)) st = eqat_block_ap_load(job, state);
    if (st == EQAT_OK) st = eqat_block_ap_run(job);
    r->block_ap = NULL;
    for (int64_t k = 0; k < BLOCKS; k++)
        for (int64_t e = 0; e < STAGES * EPOCHS; e++) {
            eqat_epoch_report one = {.struct_size = sizeof one};
            bool there = st == EQAT_OK && eqat_block_ap_epoch(job, k, e, &one) == EQAT_OK;
            r->epochs[k][e][0] = there ? one.train_loss : (double)NAN;
            r->epochs[k][e][1] = there ? one.val_loss : (double)NAN;
        }
    eqat_block_ap_free(job);
    return st;
}

static eqat_status train_steps(rank *r, bench *b)
{
    eqat_e2e_qp_options o = fast_e2e_options();
    eqat_e2e_qp *job;
    o.batch_size = r->plan->batch;
    o.micro_batch_size = 1;
    o.epochs = 2;
    if (r->all) {
        o.gradient = average;
        o.reduce = add_up;
        o.gradient_user = o.reduce_user = r;
    }
    if (r->plan->keeps) {
        o.progress = keep_state;
        o.progress_user = r;
    }
    char state[512];
    eqat_status st = eqat_e2e_qp_create(b->model, &job, b->data, &o);
    if (st != EQAT_OK) return st;
    r->e2e_qp = job;
    if (r->plan->keeps && last_state(state, "e2e-qp", r->number)) st = eqat_e2e_qp_load(job, state);
    if (st == EQAT_OK) st = eqat_e2e_qp_run(job);
    r->e2e_qp = NULL;
    for (int64_t i = 0; i < 8; i++) {
        r->steps[i] = eqat_e2e_qp_loss(job, i);
        r->validations[i] = eqat_e2e_qp_val_loss(job, i);
    }
    eqat_e2e_qp_free(job);
    return st;
}

/* Of the list of scratch paths. */
static pthread_mutex_t scratch_lock = PTHREAD_MUTEX_INITIALIZER;

static void *work(void *user)
{
    rank *r = user;
    char name[64];
    pthread_mutex_lock(&scratch_lock);
    setting s = usual;
    s.model = r->plan->model;
    s.init = r->plan->init;
    bench b = set_up(&s);
    pthread_mutex_unlock(&scratch_lock);
    eqat_data_free(b.data);
    b.data = data_of(b.ctx, r->plan, r->number, r->all ? WORLD : 1);
    r->status = train_blocks(r, &b);
    if (r->status == EQAT_OK) r->status = train_steps(r, &b);
    snprintf(r->error, sizeof r->error, "%s", eqat_context_error(b.ctx));
    snprintf(name, sizeof name, "%s-%d", r->plan->name, r->number);
    pthread_mutex_lock(&scratch_lock);
    if (r->status == EQAT_OK) r->saved = save_as(b.ctx, b.model, name);
    pthread_mutex_unlock(&scratch_lock);
    tear_down(&b);
    return NULL;
}

static void run_ranks(void *(*one)(void *), const plan *p, rank *ranks)
{
    shared all;
    pthread_t threads[WORLD];
    ck_assert_int_eq(pthread_barrier_init(&all.barrier, NULL, WORLD), 0);
    for (int i = 0; i < WORLD; i++) {
        ranks[i] = (rank){.all = &all, .number = i, .plan = p};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, one, &ranks[i]), 0);
    }
    for (int i = 0; i < WORLD; i++) pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&all.barrier);
}

/* ---- tests ---- */

START_TEST(ranks_decide_alike_and_end_with_the_same_bytes)
{
    /* 7 samples and 3: one of each is left out; rates at which validation gets worse */
    const plan p = {.train = 7,
                    .val = 3,
                    .batch = 2,
                    .early_stop = 1,
                    .lr = 1,
                    .shuffle = true,
                    .name = "ranks"};
    rank r[WORLD];
    run_ranks(work, &p, r);
    for (int i = 0; i < WORLD; i++) ck_assert_msg(r[i].status == EQAT_OK, "%s", r[i].error);
    ck_assert_mem_eq(r[0].epochs, r[1].epochs, sizeof r[0].epochs);
    ck_assert_mem_eq(r[0].steps, r[1].steps, sizeof r[0].steps);
    ck_assert_mem_eq(r[0].validations, r[1].validations, sizeof r[0].validations);
    ck_assert(isfinite(r[0].validations[1]));
    int stopped = 0;
    for (int64_t k = 0; k < BLOCKS; k++) stopped += isnan(r[0].epochs[k][EPOCHS - 1][0]);
    ck_assert_int_gt(stopped, 0);
    ck_assert(same_folders(r[0].saved, r[1].saved));
}
END_TEST

/* In a process of their own, which is killed when a state of this step is there; 0: which ends by
 * itself. */
static void run_in_process(const plan *p, const char *phase, int64_t step)
{
    char path[512];
    int status;
    scratch_dir();
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        rank r[WORLD];
        run_ranks(work, p, r);
        for (int i = 0; i < WORLD; i++)
            if (r[i].status != EQAT_OK) fprintf(stderr, "rank %d: %s\n", i, r[i].error);
        _exit(r[0].status != EQAT_OK || r[1].status != EQAT_OK);
    }
    state_path(path, phase, (int)(step % WORLD), step);
    while (step && access(path, F_OK) != 0) usleep(50);
    if (step) kill(child, SIGKILL);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, step ? SIGKILL : 0);
}

START_TEST(ranks_that_are_killed_go_on)
{
    plan p = {.train = 8, .val = 4, .batch = 2, .lr = 1e-3, .shuffle = true, .name = "undisturbed"};
    rank r[WORLD];
    run_ranks(work, &p, r);
    for (int i = 0; i < WORLD; i++) ck_assert_msg(r[i].status == EQAT_OK, "%s", r[i].error);
    p.name = "killed";
    p.keeps = true;
    run_in_process(&p, "block-ap", 1);
    run_in_process(&p, "block-ap", 7);
    run_in_process(&p, "block-ap", 18);
    run_in_process(&p, "e2e-qp", 1);
    run_in_process(&p, "e2e-qp", 3);
    run_in_process(&p, "e2e-qp", 0);
    ck_assert(same_folders(scratch("killed-0"), r[0].saved));
    ck_assert(same_folders(scratch("killed-1"), r[0].saved));
}
END_TEST

static void close_to(double a, double b, double share)
{
    ck_assert_double_le(fabs(a - b), share * fabs(b));
}

START_TEST(two_ranks_are_one_with_twice_the_batch)
{
    plan p = {.train = 8,
              .val = 4,
              .batch = 2,
              .lr = 1e-4,
              .init = _i ? EQAT_INIT_WMSE : EQAT_INIT_MINMAX,
              .name = _i ? "weighted-halves" : "halves"};
    rank r[WORLD], whole = {.plan = &p};
    run_ranks(work, &p, r);
    for (int i = 0; i < WORLD; i++) ck_assert_msg(r[i].status == EQAT_OK, "%s", r[i].error);
    p.batch *= WORLD;
    p.name = _i ? "weighted-whole" : "whole";
    work(&whole);
    ck_assert_msg(whole.status == EQAT_OK, "%s", whole.error);
    for (int64_t e = 0; e < EPOCHS; e++)
        for (int i = 0; i < 2; i++) close_to(r[1].epochs[0][e][i], whole.epochs[0][e][i], 1e-4);
    for (int64_t k = 1; k < BLOCKS; k++)
        close_to(r[0].epochs[k][EPOCHS - 1][1], whole.epochs[k][EPOCHS - 1][1], 0.02);
    for (int64_t step = 0; step < 4; step++) close_to(r[0].steps[step], whole.steps[step], 1e-3);
}
END_TEST

/* ---- labels that are not the same on all ranks ---- */

/* Few labels in the samples of rank 0, none at all in those of its second step. */
static eqat_status sparse(void *user, bool validation, int64_t index, const eqat_sample *sample)
{
    (void)user;
    (void)validation;
    for (int t = 0; t < TIME; t++) sample->ids[t] = (int32_t)((index * 31 + t * t * 7) % VOCAB);
    for (int t = 0; t < TIME; t++)
        sample->labels[t] =
            t + 1 == TIME || (index % 2 == 0 && (t != 3 || index >= 4)) ? -1 : sample->ids[t + 1];
    return EQAT_OK;
}

static eqat_data *sparse_data(eqat_context *ctx, const plan *p, int number, int world)
{
    eqat_data_options o;
    eqat_data *data;
    eqat_data_options_init(&o, sizeof o);
    o.train_size = p->train;
    o.val_size = 0;
    o.seq_len = TIME;
    o.shuffle = false;
    o.rank = number;
    o.world = world;
    OK(ctx,
       eqat_data_from_records(ctx, &data, sparse, NULL, EQAT_SAMPLE_IDS | EQAT_SAMPLE_LABELS, VOCAB,
                              0, &o));
    return data;
}

static eqat_status keep_gradients(void *user, eqat_tensor *const *parameters, size_t count)
{
    rank *r = user;
    eqat_status st = r->all ? average(r, parameters, count) : EQAT_OK;
    for (size_t p = 0; p < count && st == EQAT_OK; p++) {
        eqat_tensor *grad = eqat_tensor_grad(parameters[p]);
        size_t n = (size_t)eqat_tensor_count(grad);
        r->gradients = realloc(r->gradients, (r->n_gradients + n) * sizeof(float));
        st = eqat_tensor_read(grad, r->gradients + r->n_gradients, n * sizeof(float));
        r->n_gradients += n;
    }
    return st;
}

/* A rounded model, end to end. */
static void *work_on_labels(void *user)
{
    rank *r = user;
    pthread_mutex_lock(&scratch_lock);
    bench b = set_up(&usual);
    pthread_mutex_unlock(&scratch_lock);
    eqat_data *data = sparse_data(b.ctx, r->plan, r->number, r->all ? WORLD : 1);
    eqat_e2e_qp_options o = fast_e2e_options();
    eqat_e2e_qp *job;
    o.batch_size = r->plan->batch;
    o.micro_batch_size = 1;
    o.gradient = keep_gradients;
    o.gradient_user = o.reduce_user = r;
    if (r->all) o.reduce = add_up;
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, data, &o));
    OK(b.ctx, eqat_e2e_qp_run(job));
    for (int64_t i = 0; i < 2; i++) r->steps[i] = eqat_e2e_qp_loss(job, i);
    eqat_e2e_qp_free(job);
    eqat_data_free(data);
    tear_down(&b);
    return NULL;
}

START_TEST(every_label_weighs_the_same_whichever_rank_has_it)
{
    plan p = {.train = 8, .batch = 2};
    rank r[WORLD], whole = {.plan = &p};
    run_ranks(work_on_labels, &p, r);
    p.batch *= WORLD;
    work_on_labels(&whole);
    ck_assert_uint_eq(r[0].n_gradients, whole.n_gradients);
    ck_assert_mem_eq(r[0].gradients, r[1].gradients, r[0].n_gradients * sizeof(float));
    double most = 0, apart = 0;
    for (size_t i = 0; i < whole.n_gradients; i++) {
        most = fmax(most, fabs((double)whole.gradients[i]));
        apart = fmax(apart, fabs((double)r[0].gradients[i] - (double)whole.gradients[i]));
    }
    ck_assert_double_gt(most, 0);
    ck_assert_double_le(apart, 1e-5 * most);
    for (int i = 0; i < 2; i++) close_to(r[0].steps[i], whole.steps[i], 1e-6);
    for (int i = 0; i < WORLD; i++) free(r[i].gradients);
    free(whole.gradients);
}
END_TEST

/* One expert a stage and one sample a step, on which it need not work on every rank. */
START_TEST(ranks_train_the_same_experts)
{
    const plan p = {.train = 4,
                    .val = 2,
                    .batch = 1,
                    .early_stop = 1,
                    .model = make_family(EQI_STORED_F32, "moe", "qwen3_moe", "\"num_experts\": 4",
                                         "\"num_experts\": 16"),
                    .experts_at_a_time = 1,
                    .lr = 1e-2,
                    .shuffle = true,
                    .name = "experts"};
    rank r[WORLD];
    run_ranks(work, &p, r);
    for (int i = 0; i < WORLD; i++) ck_assert_msg(r[i].status == EQAT_OK, "%s", r[i].error);
    ck_assert_mem_eq(r[0].epochs, r[1].epochs, sizeof r[0].epochs);
    ck_assert(!isnan(r[0].epochs[1][(STAGES - 1) * EPOCHS][0]));
    ck_assert(same_folders(r[0].saved, r[1].saved));
}
END_TEST

/* ---- failures ---- */

static eqat_status lose(void *user, double *sums, size_t count)
{
    (void)user;
    (void)sums;
    ck_assert_uint_eq(count, 2);
    return EQAT_IO;
}

START_TEST(a_failing_reduction_ends_the_run)
{
    bench b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    o.reduce = lose;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    says(b.ctx, eqat_block_ap_run(job), EQAT_IO, "reduce callback: failed");
    eqat_block_ap_free(job);
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    eqat_e2e_qp_options e = fast_e2e_options();
    e.reduce = lose;
    says(b.ctx, eqat_e2e_qp_train(b.model, b.data, &e), EQAT_IO, "reduce callback: failed");
    tear_down(&b);
}
END_TEST

/* The other rank's loss is not a number. */
static eqat_status spoil(void *user, double *sums, size_t count)
{
    (void)count;
    if (--*(int *)user == 0) sums[0] = NAN;
    return EQAT_OK;
}

START_TEST(all_ranks_learn_of_a_loss_that_is_not_finite)
{
    bench b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    int calls;
    o.reduce = spoil;
    o.reduce_user = &calls;
    /* validation of the start, then training and validation of two epochs */
    for (int at = 4; at <= 5; at++) {
        eqat_stage_report r = {.struct_size = sizeof r};
        calls = at;
        OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
        OK(b.ctx, eqat_block_ap_run(job));
        OK(b.ctx, eqat_block_ap_stage_report(job, 0, 0, &r));
        ck_assert_int_eq(r.retries, 1);
        ck_assert_int_eq(calls, -4 - (BLOCKS - 1) * 5); /* the second try has no start */
        eqat_block_ap_free(job);
        tear_down(&b);
        b = set_up(&usual);
    }
    calls = 1;
    says(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o), EQAT_NUMERIC,
         "block 0: validation loss is nan");
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 300);
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, ranks_decide_alike_and_end_with_the_same_bytes);
    tcase_add_test(tc, ranks_that_are_killed_go_on);
    tcase_add_loop_test(tc, two_ranks_are_one_with_twice_the_batch, 0, 2);
    tcase_add_test(tc, every_label_weighs_the_same_whichever_rank_has_it);
    tcase_add_test(tc, ranks_train_the_same_experts);
    tcase_add_test(tc, a_failing_reduction_ends_the_run);
    tcase_add_test(tc, all_ranks_learn_of_a_loss_that_is_not_finite);
    return run_case("several ranks", tc, CK_NOFORK);
}
