#include <math.h>

#include "e2e.h"

START_TEST(losses_fall_and_the_saved_model_is_the_one_in_memory)
{
    bench b = set_up_packed(16);
    eqat_perplexity before = {.struct_size = sizeof before}, after = before, again = before;
    OK(b.ctx, eqat_eval_perplexity(b.model, b.data, NULL, &before));
    eqat_e2e_qp_options o = own_options();
    seen s = {0};
    o.epochs = 4;
    o.min_lr_factor = 0.2;
    o.train_norms = true;
    o.params = EQAT_E2E_SZ;
    o.progress = watch;
    o.progress_user = &s;
    eqat_e2e_qp *job;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    ck_assert_int_eq(eqat_e2e_qp_steps(job), 16);
    ck_assert(isnan(eqat_e2e_qp_loss(job, 0)));
    OK(b.ctx, eqat_e2e_qp_run(job));
    ck_assert_int_eq(s.calls, 16);
    ck_assert_double_eq(eqat_e2e_qp_loss(job, 0), s.first);
    ck_assert_double_eq(eqat_e2e_qp_loss(job, 15), s.last);
    ck_assert(isnan(eqat_e2e_qp_loss(job, 16)) && isnan(eqat_e2e_qp_loss(job, -1)));
    ck_assert_double_lt(s.last, s.first);
    ck_assert_double_eq(s.lr[0], 0); /* warm-up over ceil(0.03 * 16) = 1 step */
    ck_assert_double_eq(s.lr[1], o.lr);
    ck_assert_double_eq_tol(s.lr[6], 0.8 * o.lr, 1e-12); /* 5 of 15 steps down the cosine to 0.2 */
    ck_assert_double_gt(s.norm, 0);
    says(b.ctx, eqat_e2e_qp_step(job), EQAT_INVALID_ARGUMENT, "finished");
    says(b.ctx, eqat_e2e_qp_accumulate(job, 0, 0, NULL), EQAT_INVALID_ARGUMENT, "finished");
    says(b.ctx, eqat_e2e_qp_finish(job), EQAT_INVALID_ARGUMENT, "finished");
    eqat_e2e_qp_free(job);
    OK(b.ctx, eqat_eval_perplexity(b.model, b.data, NULL, &after));
    ck_assert_double_lt(after.nll, before.nll);
    ck_assert(!eqat_tensor_requires_grad(parameter(&b, Q0)));
    ck_assert_int_eq(eqat_tensor_dtype(parameter(&b, "model.layers.1.mlp.up_proj.zeros")), EQAT_U8);
    eqat_model *saved = open_model(b.ctx, save_as(b.ctx, b.model, "saved"), EQAT_F32);
    OK(b.ctx, eqat_eval_perplexity(saved, b.data, NULL, &again));
    ck_assert_double_eq(again.nll, after.nll);
    eqat_model_free(saved);
    tear_down(&b);
}
END_TEST

START_TEST(unfinished_training_is_undone)
{
    bench b = set_up_packed(8);
    const char *before = save_as(b.ctx, b.model, "before");
    eqat_e2e_qp_options o = own_options();
    seen s = {.cancel_at = 2};
    o.params = EQAT_E2E_SZ;
    o.train_norms = true;
    o.progress = watch;
    o.progress_user = &s;
    eqat_tensor *zeros = parameter(&b, "model.layers.0.mlp.up_proj.zeros");
    o.epochs = 2;
    says(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o), EQAT_CANCELLED, "cancelled");
    ck_assert(same_folders(save_as(b.ctx, b.model, "cancelled"), before));
    ck_assert_ptr_eq(parameter(&b, "model.layers.0.mlp.up_proj.zeros"), zeros);
    ck_assert(!eqat_tensor_requires_grad(parameter(&b, Q0)));
    ck_assert_ptr_null(eqat_tensor_grad(parameter(&b, Q0)));
    eqat_e2e_qp *job;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    OK(b.ctx, eqat_e2e_qp_accumulate(job, 0, 0, NULL));
    eqat_context_cancel(b.ctx);
    says(b.ctx, eqat_e2e_qp_accumulate(job, 0, 1, NULL), EQAT_CANCELLED, "cancelled");
    eqat_e2e_qp_free(job);
    ck_assert(same_folders(save_as(b.ctx, b.model, "freed"), before));
    tear_down(&b);
}
END_TEST

/* Cancelled behind step 0 and in the middle of step 1. */
START_TEST(a_cancelled_run_goes_on_to_the_same_bytes)
{
    const char *folders[2];
    for (int cancelled = 0; cancelled < 2; cancelled++) {
        bench b = set_up_packed(12);
        eqat_e2e_qp_options o = own_options();
        seen s = {.cancel_at = cancelled};
        o.progress = watch;
        o.progress_user = &s;
        eqat_e2e_qp *job;
        OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
        if (cancelled) {
            says(b.ctx, eqat_e2e_qp_run(job), EQAT_CANCELLED, "cancelled");
            OK(b.ctx, eqat_e2e_qp_accumulate(job, 1, 0, NULL));
            gradient(&b, Q0);
            eqat_context_cancel(b.ctx);
            says(b.ctx, eqat_e2e_qp_accumulate(job, 1, 1, NULL), EQAT_CANCELLED, "cancelled");
            ck_assert_ptr_null(eqat_tensor_grad(parameter(&b, Q0)));
            OK(b.ctx, eqat_e2e_qp_accumulate(job, 1, 2, NULL));
        }
        OK(b.ctx, eqat_e2e_qp_run(job));
        ck_assert_int_eq(s.calls, 3);
        says(b.ctx, eqat_e2e_qp_run(job), EQAT_INVALID_ARGUMENT, "finished");
        eqat_e2e_qp_free(job);
        folders[cancelled] = save_as(b.ctx, b.model, cancelled ? "went-on" : "went-through");
        tear_down(&b);
    }
    ck_assert(same_folders(folders[0], folders[1]));
}
END_TEST

/* The first `steps` steps of four, saved as `end`; behind step `save_at` (-1: never) as "middle".
 */
static void train_and_save(int64_t steps, int64_t save_at, const char *end)
{
    bench b = set_up_packed(16);
    eqat_e2e_qp_options o = own_options();
    o.params = EQAT_E2E_SZ;
    o.train_norms = true;
    eqat_e2e_qp *job;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    ck_assert_int_eq(eqat_e2e_qp_steps(job), 4);
    for (int64_t step = 0; step < steps; step++) {
        for (int64_t micro = 0; micro < eqat_e2e_qp_micro_steps(job, step); micro++)
            OK(b.ctx, eqat_e2e_qp_accumulate(job, step, micro, NULL));
        OK(b.ctx, eqat_e2e_qp_step(job));
        if (step == save_at) save_as(b.ctx, b.model, "middle");
    }
    OK(b.ctx, eqat_e2e_qp_finish(job));
    eqat_e2e_qp_free(job);
    save_as(b.ctx, b.model, end);
    tear_down(&b);
}

/* A save in the middle holds what finishing there would give, and the run goes on as if it had not
 * been. */
START_TEST(a_save_changes_nothing)
{
    train_and_save(4, -1, "straight");
    train_and_save(4, 1, "saving");
    ck_assert(same_folders(scratch("saving"), scratch("straight")));
    train_and_save(2, -1, "half-way");
    ck_assert(same_folders(scratch("middle"), scratch("half-way")));
    ck_assert(!same_folders(scratch("half-way"), scratch("straight")));
}
END_TEST

/* With a block that stays dense, is in memory only while it is computed, and whose gains train
 * nevertheless. */
START_TEST(kept_activations_give_the_same_bytes)
{
    const char *folders[2];
    size_t peak[2];
    for (int keep = 0; keep < 2; keep++) {
        bench b = set_up_mixed("model", 8, BITS, "model.layers.1.*", 0);
        eqat_e2e_qp_options o = own_options();
        o.params = EQAT_E2E_SZ;
        o.train_norms = true;
        o.keep_activations = keep;
        eqat_context_reset_peak(b.ctx);
        OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o));
        peak[keep] = eqat_context_device_bytes_peak(b.ctx);
        folders[keep] = save_as(b.ctx, b.model, keep ? "kept" : "recomputed");
        tear_down(&b);
    }
    ck_assert(same_folders(folders[0], folders[1]));
    ck_assert_uint_gt(peak[1], peak[0] + peak[0] / 10);
}
END_TEST

/* Two jobs would undo each other. */
START_TEST(a_model_has_one_job_at_a_time)
{
    bench b = set_up_packed(4);
    const char *before = save_as(b.ctx, b.model, "alone");
    eqat_e2e_qp_options o = own_options();
    o.params = EQAT_E2E_SZ;
    eqat_e2e_qp *job, *other;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    says(b.ctx, eqat_e2e_qp_create(b.model, &other, b.data, &o), EQAT_INVALID_ARGUMENT,
         "in training");
    ck_assert_ptr_null(other);
    OK(b.ctx, eqat_e2e_qp_accumulate(job, 0, 0, NULL));
    eqat_e2e_qp_free(job);
    ck_assert(same_folders(save_as(b.ctx, b.model, "after-the-first"), before));
    OK(b.ctx, eqat_e2e_qp_create(b.model, &other, b.data, &o));
    OK(b.ctx, eqat_e2e_qp_finish(other));
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    eqat_e2e_qp_free(job);
    eqat_e2e_qp_free(other);
    tear_down(&b);
}
END_TEST

START_TEST(a_loss_that_is_not_finite_ends_the_run)
{
    bench b = set_up_packed(8);
    eqat_e2e_qp_options o = own_options();
    OK(b.ctx, eqat_tensor_fill(parameter(&b, "model.norm.weight"), NAN));
    says(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o), EQAT_NUMERIC, "step 0: loss is nan");
    tear_down(&b);
}
END_TEST

/* The parameters of one step become NaN, which the loss of the next one shows. */
static eqat_status break_values(void *user, eqat_tensor *const *parameters, size_t count)
{
    int *calls = user;
    (void)count;
    return ++*calls == 4 ? eqat_tensor_fill(parameters[0], NAN) : EQAT_OK;
}

START_TEST(a_run_that_breaks_ends_with_its_last_good_state)
{
    bench broken = set_up_packed(8), whole = set_up_packed(8);
    eqat_e2e_qp_options o = fast_e2e_options();
    eqat_e2e_qp *job;
    int calls = 0;
    o.epochs = 4;
    o.gradient = break_values;
    o.gradient_user = &calls;
    OK(broken.ctx, eqat_e2e_qp_train(broken.model, broken.data, &o));
    ck_assert_int_eq(calls, 4); /* the fifth loss is nan */
    calls = 10;
    OK(whole.ctx, eqat_e2e_qp_create(whole.model, &job, whole.data, &o));
    ck_assert_int_gt(eqat_e2e_qp_steps(job), 4);
    for (int64_t step = 0; step < 3; step++) {
        for (int64_t micro = 0; micro < eqat_e2e_qp_micro_steps(job, step); micro++)
            OK(whole.ctx, eqat_e2e_qp_accumulate(job, step, micro, NULL));
        OK(whole.ctx, eqat_e2e_qp_step(job));
    }
    OK(whole.ctx, eqat_e2e_qp_finish(job));
    eqat_e2e_qp_free(job);
    same_logits(broken.model, whole.model, TIME);
    tear_down(&broken);
    tear_down(&whole);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, losses_fall_and_the_saved_model_is_the_one_in_memory);
    tcase_add_test(tc, unfinished_training_is_undone);
    tcase_add_test(tc, a_cancelled_run_goes_on_to_the_same_bytes);
    tcase_add_test(tc, a_save_changes_nothing);
    tcase_add_test(tc, kept_activations_give_the_same_bytes);
    tcase_add_test(tc, a_model_has_one_job_at_a_time);
    tcase_add_test(tc, a_loss_that_is_not_finite_ends_the_run);
    tcase_add_test(tc, a_run_that_breaks_ends_with_its_last_good_state);
    return run_case("runs of E2E-QP", tc, CK_NOFORK);
}
