#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "public.h"

/* What eqat_progress_fn `between` is told, call by call, against the order of the work. */

enum { BATCH = 2, TRAIN = 7, VALIDATION = 3, EPOCHS = 2 };
enum { LINEARS = 7 };
enum { STEPS = (TRAIN + BATCH - 1) / BATCH };
/* Batches of a pass: it takes four steps' samples at once. */
enum { AT_ONCE = 4 * BATCH, PASS = (TRAIN + VALIDATION + AT_ONCE - 1) / AT_ONCE };

typedef struct call {
    const char *work;
    int64_t block, epoch, step, batch, batches;
} call;

typedef struct told {
    call calls[256];
    int64_t count, steps, at; /* at: the call to cancel in, from 1 on */
    bool between[256];        /* not a step */
} told;

static int32_t tell(void *user, const eqat_progress *p)
{
    told *t = user;
    bool step = !strcmp(p->work, "step");
    ck_assert_int_lt(t->count, 256);
    ck_assert(step == (p->batches == 0));
    ck_assert(step || (isnan(p->loss) && isnan(p->val_loss) && isnan(p->grad_norm)));
    t->steps = p->steps;
    t->between[t->count] = !step;
    t->calls[t->count++] = (call){p->work, p->block, p->epoch, p->step, p->batch, p->batches};
    return t->count == t->at;
}

static void expect(const told *t, int64_t *at, call c)
{
    const call *found = &t->calls[(*at)++];
    ck_assert_int_le(*at, t->count);
    ck_assert_str_eq(found->work, c.work);
    ck_assert_int_eq(found->block, c.block);
    ck_assert_int_eq(found->epoch, c.epoch);
    ck_assert_int_eq(found->step, c.step);
    ck_assert_int_eq(found->batch, c.batch);
    ck_assert_int_eq(found->batches, c.batches);
}

/* A pass: the same call for every batch. */
static void expect_pass(const told *t, int64_t *at, call c)
{
    for (c.batch = 0; c.batch < c.batches; c.batch++) expect(t, at, c);
}

static eqat_block_ap_options told_options(told *t)
{
    eqat_block_ap_options o = fast_options();
    o.batch_size = BATCH;
    o.epochs = EPOCHS;
    o.progress = o.between = tell;
    o.progress_user = o.between_user = t;
    return o;
}

START_TEST(every_batch_of_block_ap)
{
    bench b = set_up(&usual);
    told t = {0};
    eqat_block_ap_options o = told_options(&t);
    int64_t at = 0, step = 0;
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    expect_pass(&t, &at, (call){"embed", 0, 0, 0, 0, PASS});
    for (int64_t block = 0; block < BLOCKS; block++) {
        expect_pass(&t, &at, (call){"load", block, 0, step, 0, LINEARS});
        expect_pass(&t, &at, (call){"targets", block, 0, step, 0, PASS});
        expect_pass(&t, &at, (call){"start", block, 0, step, 0, LINEARS});
        expect_pass(&t, &at, (call){"validate", block, 0, step, 0, 2}); /* of the start */
        for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
            for (int i = 1; i < STEPS; i++)
                expect(&t, &at, (call){"step", block, epoch, ++step, 0, 0});
            expect_pass(&t, &at, (call){"validate", block, epoch, step + 1, 0, 2});
            expect(&t, &at, (call){"step", block, epoch, ++step, 0, 0});
        }
        if (block + 1 < BLOCKS) expect_pass(&t, &at, (call){"inputs", block, 0, step, 0, PASS});
    }
    ck_assert_int_eq(at, t.count);
    ck_assert_int_eq(step, t.steps);
    tear_down(&b);
}
END_TEST

/* Four steps' samples, but no more than 1024 tokens; at least those of a step. */
START_TEST(samples_of_a_pass)
{
    enum { MANY = 21, ALL = MANY + VALIDATION, LONGEST = 800 };
    static const int64_t times[] = {TIME, 128, 129, 256, 257, LONGEST};
    static const int64_t at_once[] = {AT_ONCE, AT_ONCE, 3 * BATCH, 2 * BATCH, BATCH, BATCH};
    static int32_t ids[ALL * LONGEST];
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        const eqat_data_options d = consecutive(MANY, VALIDATION, times[i]);
        bench b = set_up(&usual);
        told t = {0};
        eqat_block_ap_options o = told_options(&t);
        eqat_block_ap *job;
        eqat_data *data;
        int64_t at = 0, batches = (ALL + at_once[i] - 1) / at_once[i];
        OK(b.ctx, eqat_data_from_tokens(b.ctx, &data, ids, (size_t)(ALL * times[i]), VOCAB, &d));
        OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, data, &o));
        expect_pass(&t, &at, (call){"embed", 0, 0, 0, 0, batches});
        ck_assert_int_eq(at, t.count);
        eqat_block_ap_free(job);
        eqat_data_free(data);
        tear_down(&b);
    }
}
END_TEST

/* Cancelled in one call after the other, of a job that is there. */
START_TEST(cancelled_anywhere_it_goes_on_to_the_same_bytes)
{
    bench b = set_up(&usual);
    told t = {0};
    eqat_block_ap_options o = told_options(&t);
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    const char *whole = save_as(b.ctx, b.model, "whole");
    told first = t;
    tear_down(&b);
    for (int64_t at = 1; at <= first.count; at++) {
        if (!first.between[at - 1]) continue;
        eqat_block_ap *job;
        t = (told){.at = at};
        b = set_up(&usual);
        eqat_status st = eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o);
        ck_assert_int_eq(st, at <= PASS ? EQAT_CANCELLED : EQAT_OK);
        if (st == EQAT_OK) {
            says(b.ctx, eqat_block_ap_run(job), EQAT_CANCELLED, "cancelled by the progress");
            t.at = 0;
            t.count = 0;
            OK(b.ctx, eqat_block_ap_run(job));
            char name[32];
            snprintf(name, sizeof name, "went-on-%lld", (long long)at);
            ck_assert(same_folders(save_as(b.ctx, b.model, name), whole));
        }
        eqat_block_ap_free(job);
        tear_down(&b);
    }
}
END_TEST

START_TEST(streams_behind_a_load)
{
    bench b = set_up(&usual);
    told t = {0};
    eqat_block_ap_options o = told_options(&t);
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_begin(job));
    OK(b.ctx, eqat_block_ap_finish(job));
    OK(b.ctx, eqat_block_ap_save(job, scratch("state")));
    eqat_block_ap_free(job);
    tear_down(&b);
    b = set_up(&usual);
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    t.count = 0;
    OK(b.ctx, eqat_block_ap_load(job, scratch("state")));
    int64_t at = 0;
    for (int stream = 0; stream < 2; stream++)
        expect_pass(&t, &at, (call){"resume", 0, 0, EPOCHS * STEPS, 0, PASS});
    ck_assert_int_eq(at, t.count);
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

START_TEST(micro_batches_of_e2e_qp)
{
    bench b = set_up(&usual);
    eqat_e2e_qp_options o = fast_e2e_options();
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    const char *before = save_as(b.ctx, b.model, "before");
    int64_t calls = 0;
    for (int64_t cancel = 0; cancel <= calls; cancel++) {
        told t = {.at = cancel};
        o.batch_size = 4; /* steps of 4 and 3 */
        o.micro_batch_size = 1;
        o.epochs = 1;
        o.progress = o.between = tell;
        o.progress_user = o.between_user = &t;
        if (cancel) {
            says(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o), EQAT_CANCELLED, "cancelled");
            char name[32];
            snprintf(name, sizeof name, "cancelled-%lld", (long long)cancel);
            ck_assert(same_folders(save_as(b.ctx, b.model, name), before));
            continue;
        }
        OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o));
        int64_t at = 0;
        expect_pass(&t, &at, (call){"load", 0, 0, 0, 0, BLOCKS + 1});
        expect_pass(&t, &at, (call){"validate", 0, 0, 0, 0, VALIDATION}); /* of the start */
        for (int64_t step = 0; step < 2; step++) {
            int64_t micros = step ? 3 : 4;
            expect_pass(&t, &at, (call){"accumulate", 0, 0, step, 0, micros});
            if (step) expect_pass(&t, &at, (call){"validate", 0, 0, step + 1, 0, VALIDATION});
            expect(&t, &at, (call){"step", 0, 0, step + 1, 0, 0});
        }
        expect_pass(&t, &at, (call){"freeze", 0, 0, 2, 0, BLOCKS * LINEARS});
        ck_assert_int_eq(at, t.count);
        calls = t.count;
        before = save_as(b.ctx, b.model, "trained");
    }
    tear_down(&b);
}
END_TEST

/* The last calls, and none of them changes what comes out. */
START_TEST(a_freeze_goes_on)
{
    const char *whole = NULL;
    for (int64_t cancel = 0, calls = 0; cancel <= calls; cancel += cancel ? 1 : calls - 8) {
        bench b = set_up(&usual);
        told t = {.at = cancel};
        eqat_e2e_qp *job;
        eqat_e2e_qp_options o = fast_e2e_options();
        o.between = tell;
        o.between_user = &t;
        OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
        OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
        if (cancel) says(b.ctx, eqat_e2e_qp_run(job), EQAT_CANCELLED, "cancelled");
        if (cancel) ck_assert_str_eq(t.calls[cancel - 1].work, "freeze");
        t.at = 0;
        OK(b.ctx, eqat_e2e_qp_run(job));
        eqat_e2e_qp_free(job);
        if (!cancel) {
            calls = t.count;
            whole = save_as(b.ctx, b.model, "frozen");
        } else {
            char name[32];
            snprintf(name, sizeof name, "frozen-%lld", (long long)cancel);
            ck_assert(same_folders(save_as(b.ctx, b.model, name), whole));
        }
        tear_down(&b);
    }
}
END_TEST

/* Every linear, and the end; cancelled anywhere, what is rounded is whole blocks. */
START_TEST(linears_of_rounding)
{
    for (int64_t cancel = 0; cancel <= BLOCKS * LINEARS + 1; cancel++) {
        bench b = set_up(&usual);
        told t = {.at = cancel};
        eqat_rtn_options o;
        eqat_rtn_options_init(&o, sizeof o);
        o.progress = tell;
        o.progress_user = &t;
        if (!cancel) {
            OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, &o));
            int64_t at = 0;
            for (int64_t i = 0; i < BLOCKS * LINEARS; i++)
                expect(&t, &at, (call){"step", i / LINEARS, 0, i, 0, 0});
            expect(&t, &at, (call){"step", BLOCKS - 1, 0, BLOCKS * LINEARS, 0, 0});
            ck_assert_int_eq(at, t.count);
            ck_assert_int_eq(t.steps, BLOCKS * LINEARS);
        } else {
            says(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, &o), EQAT_CANCELLED,
                 "cancelled by the progress");
            for (int64_t i = 0; i < BLOCKS * LINEARS; i++) {
                eqat_linear_info l = {.struct_size = sizeof l};
                OK(b.ctx, eqat_model_linear(b.model, i / LINEARS, i % LINEARS, &l));
                ck_assert_int_eq(l.bits != 0, i / LINEARS < (cancel - 1) / LINEARS);
            }
        }
        tear_down(&b);
    }
}
END_TEST

/* Cancelled anywhere, nothing is there. */
static void expect_parts(const char *format, bool types)
{
    enum { PARTS = BLOCKS + 2 };
    const int64_t calls = PARTS + 2 + (types ? PARTS : 0);
    eqat_save_options o;
    for (int64_t cancel = 0; cancel <= calls; cancel++) {
        bench b = set_up(&usual);
        told t = {.at = cancel};
        char name[32];
        snprintf(name, sizeof name, "%s-%lld", format, (long long)cancel);
        eqat_save_options_init(&o, sizeof o);
        o.format = format;
        o.allow_lossy = true;
        o.progress = tell;
        o.progress_user = &t;
        OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
        if (cancel) {
            says(b.ctx, eqat_model_save(b.model, scratch(name), &o), EQAT_CANCELLED,
                 "cancelled by the progress");
            ck_assert(access(scratch(name), F_OK) != 0);
            ck_assert_int_eq(t.count, cancel);
        } else {
            int64_t at = 0;
            OK(b.ctx, eqat_model_check_save(b.model, NULL, &o));
            ck_assert_int_eq(t.count, 0);
            OK(b.ctx, eqat_model_save(b.model, scratch(name), &o));
            if (types) expect_pass(&t, &at, (call){"types", 0, 0, 0, 0, PARTS});
            for (int64_t i = 0; i <= PARTS; i++) expect(&t, &at, (call){"step", 0, 0, i, 0, 0});
            expect(&t, &at, (call){"sync", 0, 0, PARTS, 0, 1});
            ck_assert_int_eq(at, t.count);
            ck_assert_int_eq(t.steps, PARTS);
        }
        tear_down(&b);
    }
}

START_TEST(parts_of_saving)
{
    expect_parts("gptq_v2", false);
    expect_parts("gguf", true);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, every_batch_of_block_ap);
    tcase_add_test(tc, samples_of_a_pass);
    tcase_add_test(tc, cancelled_anywhere_it_goes_on_to_the_same_bytes);
    tcase_add_test(tc, streams_behind_a_load);
    tcase_add_test(tc, micro_batches_of_e2e_qp);
    tcase_add_test(tc, a_freeze_goes_on);
    tcase_add_test(tc, linears_of_rounding);
    tcase_add_test(tc, parts_of_saving);
    return run_case("between steps", tc, CK_NOFORK);
}
