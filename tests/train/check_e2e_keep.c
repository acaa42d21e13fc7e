#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"

/* Validation of E2E-QP, and which state it keeps. */

enum { EPOCH = 4, STEPS = 8 }; /* two epochs of 7 sequences, two a step */

static const double EXACT = 1e-6; /* losses are F32, summed in another order */

static bench packed(void)
{
    bench b = set_up(&usual);
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    return b;
}

static eqat_e2e_qp_options own_options(void)
{
    eqat_e2e_qp_options o;
    eqat_e2e_qp_options_init(&o, sizeof o);
    o.batch_size = 2;
    o.epochs = 2;
    o.lr = 2e-3;
    o.params = EQAT_E2E_SZ;
    o.train_norms = true;
    return o;
}

typedef struct outcome {
    double losses[STEPS]; /* of validations */
    eqat_stage_report report;
    const char *path;
} outcome;

static void tell(eqat_context *ctx, const eqat_e2e_qp *job, outcome *out)
{
    out->report.struct_size = sizeof out->report;
    OK(ctx, eqat_e2e_qp_stage_report(job, &out->report));
    for (int64_t i = 0; i < STEPS; i++) out->losses[i] = eqat_e2e_qp_val_loss(job, i);
}

static outcome trained(const char *name, const eqat_e2e_qp_options *o)
{
    bench b = packed();
    outcome out = {0};
    eqat_e2e_qp *job;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, o));
    OK(b.ctx, eqat_e2e_qp_run(job));
    tell(b.ctx, job, &out);
    eqat_e2e_qp_free(job);
    out.path = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return out;
}

static const char *rounded(const char *name)
{
    bench b = packed();
    const char *path = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return path;
}

/* The validation samples as training samples of other data, in their order. */
static eqat_data *as_training(const bench *b)
{
    enum { N = 3 };
    const eqat_data_options o = consecutive(N, 0, TIME);
    eqat_data *data;
    int32_t ids[N * TIME];
    for (int i = 0; i < N; i++) read_ids(b->ctx, b->data, true, i, ids + i * TIME);
    OK(b->ctx, eqat_data_from_tokens(b->ctx, &data, ids, (size_t)N * TIME, VOCAB, &o));
    return data;
}

/* Mean loss of a saved model on the validation samples. */
static double evaluated(const char *path)
{
    bench b = set_up(&usual);
    eqat_model *saved = open_model(b.ctx, path, EQAT_F32);
    eqat_data *data = as_training(&b);
    double loss = log(perplexity_of(b.ctx, saved, data));
    eqat_data_free(data);
    eqat_model_free(saved);
    tear_down(&b);
    return loss;
}

START_TEST(a_validation_is_the_perplexity_of_what_is_saved)
{
    eqat_e2e_qp_options o = own_options();
    outcome out = trained("plain", &o);
    ck_assert_double_eq_tol(out.report.start_loss, evaluated(rounded("rtn")), EXACT);
    ck_assert_double_eq_tol(out.report.val_loss, evaluated(out.path), EXACT);
    ck_assert_double_lt(out.report.val_loss, out.report.start_loss - 0.01);
    ck_assert(out.report.epoch == 1 && out.report.step == STEPS && out.report.retries == 0);
    for (int i = 0; i < STEPS; i++) ck_assert_int_eq(isnan(out.losses[i]), i % EPOCH != EPOCH - 1);
    ck_assert_double_eq(out.losses[STEPS - 1], out.report.val_loss);
}
END_TEST

typedef struct heard {
    int64_t validations, batches;
} heard;

static int32_t hear(void *user, const eqat_progress *p)
{
    heard *h = user;
    if (!strcmp(p->work, "step") && isfinite(p->val_loss)) h->validations++;
    if (strcmp(p->work, "validate")) return 0;
    ck_assert_int_eq(p->batch, h->batches++ % 3);
    ck_assert_int_eq(p->batches, 3);
    return 0;
}

/* Training does not feel a validation. */
START_TEST(more_validations_change_nothing)
{
    eqat_e2e_qp_options o = own_options();
    heard h = {0};
    o.keep = EQAT_KEEP_LAST;
    outcome few = trained("few", &o);
    ck_assert(isnan(few.report.start_loss) && few.report.val_loss > 0);
    o.validate_steps = 3;
    o.progress = o.between = hear;
    o.progress_user = o.between_user = &h;
    outcome many = trained("many", &o);
    ck_assert(same_folders(few.path, many.path));
    const bool there[STEPS] = {false, false, true, true, false, true, false, true};
    for (int i = 0; i < STEPS; i++) ck_assert_int_eq(isfinite(many.losses[i]), there[i]);
    ck_assert(h.validations == 4 && h.batches == 4 * 3);
    bench b = packed(); /* without any */
    eqat_data *blind = make_data(b.ctx, 7, 0, usual.shuffle);
    o = own_options();
    OK(b.ctx, eqat_e2e_qp_train(b.model, blind, &o));
    ck_assert(same_folders(few.path, save_as(b.ctx, b.model, "blind")));
    eqat_data_free(blind);
    tear_down(&b);
}
END_TEST

/* Uphill all the way. */
START_TEST(what_ends_worse_than_it_began_is_its_start)
{
    spoiler s = {.last = INT64_MAX, .factor = -1};
    eqat_e2e_qp_options o = own_options();
    o.gradient = spoil_gradients;
    o.gradient_user = &s;
    o.lr = 0.02;
    const char *start = rounded("start");
    outcome out = trained("uphill", &o);
    ck_assert(same_folders(out.path, start));
    ck_assert(out.report.epoch == -1 && out.report.step == 0);
    ck_assert_double_eq(out.report.val_loss, out.report.start_loss);
    ck_assert_double_gt(out.losses[STEPS - 1], out.report.start_loss);
    o.keep = EQAT_KEEP_BEST;
    ck_assert(same_folders(trained("best-of-none", &o).path, start));
    o.keep = EQAT_KEEP_LAST;
    out = trained("garbage", &o);
    ck_assert(!same_folders(out.path, start) && out.report.step == STEPS);
}
END_TEST

static eqat_e2e_qp_options uphill_later(spoiler *s)
{
    eqat_e2e_qp_options o = own_options();
    *s = (spoiler){.first = EPOCH, .last = INT64_MAX, .factor = -100};
    o.gradient = spoil_gradients;
    o.gradient_user = s;
    o.max_grad_norm = 0;
    o.keep = EQAT_KEEP_BEST;
    o.lr = 0.02;
    return o;
}

/* So many steps of the whole schedule, by a driver. */
static const char *first_steps(const char *name, eqat_e2e_qp_options o, int64_t steps)
{
    bench b = packed();
    eqat_e2e_qp *job;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    for (int64_t step = 0; step < steps; step++) {
        for (int64_t micro = 0; micro < eqat_e2e_qp_micro_steps(job, step); micro++)
            OK(b.ctx, eqat_e2e_qp_accumulate(job, step, micro, NULL));
        OK(b.ctx, eqat_e2e_qp_step(job));
    }
    OK(b.ctx, eqat_e2e_qp_finish(job));
    eqat_e2e_qp_free(job);
    const char *path = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return path;
}

START_TEST(the_best_state_on_request)
{
    spoiler s;
    eqat_e2e_qp_options o = uphill_later(&s);
    outcome out = trained("best", &o);
    ck_assert(out.report.epoch == 0 && out.report.step == EPOCH);
    ck_assert_double_eq(out.report.val_loss, out.losses[EPOCH - 1]);
    ck_assert_double_lt(out.report.val_loss, out.losses[STEPS - 1]);
    ck_assert_double_eq_tol(out.report.val_loss, evaluated(out.path), EXACT);
    s = (spoiler){0};
    ck_assert(same_folders(first_steps("first-epoch", o, EPOCH), out.path));
}
END_TEST

/* ---- interrupted ---- */

/* Saved and cancelled behind a step, and gone on with by another job. */
static outcome interrupted(eqat_e2e_qp_options o, int64_t at)
{
    bench b = packed();
    saver s = {.ctx = b.ctx, .path = scratch("state"), .at = at};
    outcome out = {0};
    eqat_e2e_qp *job;
    o.progress = save_and_cancel;
    o.progress_user = &s;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &s.e2e_qp, b.data, &o));
    says(b.ctx, eqat_e2e_qp_run(s.e2e_qp), EQAT_CANCELLED, "cancelled");
    eqat_e2e_qp_free(s.e2e_qp);
    tear_down(&b);
    b = packed();
    o.progress = NULL;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    OK(b.ctx, eqat_e2e_qp_load(job, s.path));
    OK(b.ctx, eqat_e2e_qp_run(job));
    tell(b.ctx, job, &out);
    eqat_e2e_qp_free(job);
    out.path = save_as(b.ctx, b.model, "interrupted");
    tear_down(&b);
    return out;
}

START_TEST(a_state_knows_validations_and_the_best)
{
    spoiler s;
    eqat_e2e_qp_options o = uphill_later(&s);
    o.validate_steps = 3;
    outcome whole = trained("whole", &o);
    for (int64_t at = 1; at <= STEPS; at++) {
        s.calls = 0;
        outcome parts = interrupted(o, at);
        ck_assert(same_folders(parts.path, whole.path));
        ck_assert_int_eq(parts.report.step, whole.report.step);
        ck_assert_double_eq(parts.report.start_loss, whole.report.start_loss);
        for (int i = 0; i < STEPS; i++)
            ck_assert(memcmp(&parts.losses[i], &whole.losses[i], sizeof(double)) == 0);
        remove_dir(parts.path);
    }
}
END_TEST

typedef struct stopper {
    int64_t calls, at;
} stopper;

static int32_t stop_validation(void *user, const eqat_progress *p)
{
    stopper *s = user;
    return !strcmp(p->work, "validate") && s->calls++ == s->at;
}

START_TEST(a_cancelled_validation_is_taken_anew)
{
    spoiler bad;
    eqat_e2e_qp_options o = uphill_later(&bad);
    outcome whole = trained("uncut", &o);
    for (int64_t at = 1; at < 9; at += 3) { /* of the start, and behind each epoch */
        bench b = packed();
        stopper s = {.at = at};
        outcome out = {0};
        eqat_e2e_qp *job;
        o.between = stop_validation;
        o.between_user = &s;
        bad.calls = 0;
        OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
        says(b.ctx, eqat_e2e_qp_run(job), EQAT_CANCELLED, "cancelled");
        says(b.ctx, eqat_e2e_qp_stage_report(job, &(eqat_stage_report){.struct_size = 8}),
             EQAT_NOT_FOUND, "no report");
        OK(b.ctx, eqat_e2e_qp_run(job));
        tell(b.ctx, job, &out);
        eqat_e2e_qp_free(job);
        const char *path = save_as(b.ctx, b.model, "again");
        ck_assert(same_folders(path, whole.path));
        ck_assert_double_eq(out.losses[STEPS - 1], whole.losses[STEPS - 1]);
        remove_dir(path);
        tear_down(&b);
    }
}
END_TEST

/* ---- losses that are not finite ---- */

static int32_t stop_freeze(void *user, const eqat_progress *p)
{
    stopper *s = user;
    return !strcmp(p->work, "freeze") && s->calls++ == s->at;
}

/* What went back is saved where it freezes, and another job finishes it. */
static eqat_e2e_qp *in_another(bench *b, eqat_e2e_qp *job, const eqat_e2e_qp_options *o)
{
    says(b->ctx, eqat_e2e_qp_run(job), EQAT_CANCELLED, "cancelled");
    OK(b->ctx, eqat_e2e_qp_save(job, scratch("fallen")));
    eqat_e2e_qp_free(job);
    tear_down(b);
    *b = packed();
    OK(b->ctx, eqat_e2e_qp_create(b->model, &job, b->data, o));
    OK(b->ctx, eqat_e2e_qp_load(job, scratch("fallen")));
    return job;
}

/* Behind the first epoch; what trains then becomes NaN. With between, it is cut as it freezes. */
static outcome broken(const char *name, eqat_e2e_qp_options o)
{
    const bool cut = o.between != NULL;
    bench b = packed();
    saver s = {.ctx = b.ctx, .path = scratch("state"), .at = EPOCH};
    outcome out = {0};
    eqat_tensor *scales;
    o.progress = save_and_cancel;
    o.progress_user = &s;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &s.e2e_qp, b.data, &o));
    says(b.ctx, eqat_e2e_qp_run(s.e2e_qp), EQAT_CANCELLED, "cancelled");
    OK(b.ctx, eqat_model_parameter(b.model, "model.layers.0.mlp.up_proj.scales", &scales));
    OK(b.ctx, eqat_tensor_fill(scales, NAN));
    if (cut) s.e2e_qp = in_another(&b, s.e2e_qp, &o);
    OK(b.ctx, eqat_e2e_qp_run(s.e2e_qp));
    tell(b.ctx, s.e2e_qp, &out);
    eqat_e2e_qp_free(s.e2e_qp);
    out.path = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return out;
}

START_TEST(a_run_that_breaks_keeps_what_was_best)
{
    eqat_e2e_qp_options o = own_options();
    o.keep = EQAT_KEEP_BEST;
    outcome out = broken("broken", o);
    ck_assert(out.report.step == EPOCH && out.report.val_loss == out.losses[EPOCH - 1]);
    ck_assert(same_folders(out.path, first_steps("first", o, EPOCH)));
    o.keep = EQAT_KEEP_START_OR_LAST; /* the last that had a finite loss */
    out = broken("broken-last", o);
    ck_assert_int_eq(out.report.step, EPOCH - 1);
    ck_assert_double_eq_tol(out.report.val_loss, evaluated(out.path), EXACT);
    ck_assert(same_folders(out.path, first_steps("one-less", o, EPOCH - 1)));
    spoiler s = {.last = INT64_MAX, .factor = -1};
    o.gradient = spoil_gradients;
    o.gradient_user = &s;
    o.lr = 0.02;
    out = broken("broken-uphill", o);
    ck_assert(out.report.step == 0 && same_folders(out.path, rounded("rounded")));
}
END_TEST

START_TEST(what_went_back_trains_no_further)
{
    static const int32_t keeps[] = {EQAT_KEEP_BEST, EQAT_KEEP_START_OR_LAST};
    for (size_t i = 0; i < EQI_COUNT(keeps); i++) {
        eqat_e2e_qp_options o = own_options();
        stopper s = {.at = 1};
        o.keep = keeps[i];
        outcome whole = broken("fallen-whole", o);
        o.between = stop_freeze;
        o.between_user = &s;
        outcome cut = broken("fallen-cut", o);
        ck_assert(s.calls > s.at && same_folders(cut.path, whole.path));
        ck_assert_int_eq(cut.report.step, whole.report.step);
        remove_dir(whole.path);
        remove_dir(cut.path);
    }
}
END_TEST

/* There is nothing to go back to. */
START_TEST(a_load_that_fails_leaves_nothing)
{
    eqat_e2e_qp_options o = own_options();
    o.keep = EQAT_KEEP_LAST;
    remove_dir(interrupted(o, EPOCH).path);
    bench b = packed();
    eqat_e2e_qp *job;
    eqat_tensor *scales;
    size_t n;
    char *state = read_file(scratch("state"), &n);
    state[n - 1] ^= 1;
    write_file(scratch("damaged"), state, n);
    free(state);
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    says(b.ctx, eqat_e2e_qp_load(job, scratch("damaged")), EQAT_FORMAT, "damaged");
    OK(b.ctx, eqat_model_parameter(b.model, "model.layers.0.mlp.up_proj.scales", &scales));
    OK(b.ctx, eqat_tensor_fill(scales, NAN));
    says(b.ctx, eqat_e2e_qp_run(job), EQAT_NUMERIC, "loss is nan");
    says(b.ctx, eqat_e2e_qp_stage_report(job, &(eqat_stage_report){.struct_size = 8}),
         EQAT_NOT_FOUND, "no report");
    eqat_e2e_qp_free(job);
    tear_down(&b);
}
END_TEST

/* ---- losses of other kinds ---- */

/* The mean square of all logits. */
static eqat_status square(void *user, eqat_tape *tape, eqat_tensor *logits, const eqat_batch *batch,
                          eqat_tensor **loss)
{
    const bench *b = user;
    const int64_t shape[3] = {batch->batch, batch->time, VOCAB};
    eqat_tensor *zeros;
    OK(b->ctx, eqat_tensor_create(b->ctx, &zeros, EQAT_F32, 3, shape, NULL));
    OK(b->ctx, eqat_tensor_fill(zeros, 0));
    OK(b->ctx, eqat_op_mse(tape, logits, zeros, loss));
    eqat_tensor_free(zeros);
    return EQAT_OK;
}

/* The mean of what `accumulate` makes of the same samples, of which all are as long. */
static double accumulated(const bench *b, const eqat_e2e_qp_options *o)
{
    eqat_data *data = as_training(b);
    eqat_e2e_qp *job;
    double sum = 0, loss;
    OK(b->ctx, eqat_e2e_qp_create(b->model, &job, data, o));
    for (int64_t step = 0; step < 2; step++)
        for (int64_t micro = 0; micro < eqat_e2e_qp_micro_steps(job, step); micro++) {
            OK(b->ctx, eqat_e2e_qp_accumulate(job, step, micro, &loss));
            sum += loss;
        }
    eqat_e2e_qp_free(job);
    eqat_data_free(data);
    return sum / 3;
}

START_TEST(a_validation_has_the_loss_that_trains)
{
    for (int kind = 0; kind < 3; kind++) {
        bench b = packed();
        eqat_model *teacher = open_model(b.ctx, "model", EQAT_F32);
        eqat_e2e_qp_options o = own_options();
        eqat_e2e_qp *job;
        double loss, before;
        o.loss = kind == 1 ? square : NULL;
        o.loss_user = &b;
        o.teacher = kind == 2 ? teacher : NULL;
        o.teacher_share = 0.7;
        double expected = accumulated(&b, &o);
        OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
        OK(b.ctx, eqat_e2e_qp_accumulate(job, 0, 0, &before));
        OK(b.ctx, eqat_e2e_qp_validate(job, &loss)); /* while the teacher has another sample */
        ck_assert_double_eq_tol(loss, expected, EXACT);
        OK(b.ctx, eqat_e2e_qp_accumulate(job, 0, 0, &loss));
        ck_assert_double_eq(loss, before);
        eqat_e2e_qp_free(job);
        eqat_model_free(teacher);
        tear_down(&b);
    }
}
END_TEST

START_TEST(what_cannot_be_judged_is_refused)
{
    bench b = packed();
    eqat_data *blind = make_data(b.ctx, 7, 0, false);
    eqat_e2e_qp_options o = own_options();
    eqat_e2e_qp *job;
    double loss = 0;
    o.keep = EQAT_KEEP_BEST;
    says(b.ctx, eqat_e2e_qp_create(b.model, &job, blind, &o), EQAT_INVALID_ARGUMENT,
         "keep: found best without validation samples");
    o.keep = EQAT_KEEP_START_OR_LAST;
    o.validate_steps = 2;
    says(b.ctx, eqat_e2e_qp_create(b.model, &job, blind, &o), EQAT_INVALID_ARGUMENT,
         "validate_steps: found 2 without validation samples");
    o.validate_steps = 0;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, blind, &o));
    OK(b.ctx, eqat_e2e_qp_validate(job, &loss));
    ck_assert(isnan(loss));
    OK(b.ctx, eqat_e2e_qp_run(job));
    outcome out;
    tell(b.ctx, job, &out);
    ck_assert(isnan(out.report.start_loss) && isnan(out.report.val_loss));
    ck_assert_int_eq(out.report.step, STEPS);
    says(b.ctx, eqat_e2e_qp_validate(job, &loss), EQAT_INVALID_ARGUMENT, "finished");
    eqat_e2e_qp_free(job);
    eqat_data_free(blind);
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, a_validation_is_the_perplexity_of_what_is_saved);
    tcase_add_test(tc, more_validations_change_nothing);
    tcase_add_test(tc, what_ends_worse_than_it_began_is_its_start);
    tcase_add_test(tc, the_best_state_on_request);
    tcase_add_test(tc, a_state_knows_validations_and_the_best);
    tcase_add_test(tc, a_cancelled_validation_is_taken_anew);
    tcase_add_test(tc, a_run_that_breaks_keeps_what_was_best);
    tcase_add_test(tc, what_went_back_trains_no_further);
    tcase_add_test(tc, a_load_that_fails_leaves_nothing);
    tcase_add_test(tc, a_validation_has_the_loss_that_trains);
    tcase_add_test(tc, what_cannot_be_judged_is_refused);
    return run_case("what E2E-QP keeps", tc, CK_NOFORK);
}
