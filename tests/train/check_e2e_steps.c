#include <math.h>
#include <stdlib.h>

#include "e2e.h"
#include "model/model.h"

static const char DOWN2[] = "model.layers.2.mlp.down_proj.scales";

/* The gradient of a step is that of the mean over all its tokens, however it is cut into
 * micro-batches. */
START_TEST(micro_batches_add_up)
{
    float *reference[2] = {NULL, NULL};
    double losses[3];
    for (int i = 0; i < 3; i++) {
        bench b = set_up_packed(7);
        eqat_e2e_qp_options o = own_options();
        o.micro_batch_size = 1 << i;
        eqat_e2e_qp *job;
        OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
        ck_assert_int_eq(eqat_e2e_qp_steps(job), 2);
        ck_assert_int_eq(eqat_e2e_qp_micro_steps(job, 0), 4 >> i);
        ck_assert_int_eq(eqat_e2e_qp_micro_steps(job, 1),
                         i == 0       ? 3
                             : i == 1 ? 2
                                      : 1); /* three are left */
        ck_assert_int_eq(eqat_e2e_qp_micro_steps(job, 2), 0);
        for (int64_t step = 0; step < 2; step++) {
            for (int64_t micro = 0; micro < eqat_e2e_qp_micro_steps(job, step); micro++)
                OK(b.ctx, eqat_e2e_qp_accumulate(job, step, micro, NULL));
            if (step == 0) OK(b.ctx, eqat_e2e_qp_step(job)); /* at rate 0: drops the gradients */
        }
        losses[i] = eqat_e2e_qp_loss(job, 1);
        ck_assert_double_eq_tol(losses[i], losses[0], 1e-5);
        for (int k = 0; k < 2; k++) {
            int64_t n;
            float *g = read_floats(gradient(&b, k ? DOWN2 : Q0), &n);
            double diff = 0, size = 0;
            for (int64_t j = 0; j < n && i; j++) {
                diff = fmax(diff, fabs((double)g[j] - (double)reference[k][j]));
                size = fmax(size, fabs((double)reference[k][j]));
            }
            ck_assert_double_le(diff, 1e-5 * size);
            if (i)
                free(g);
            else
                reference[k] = g;
        }
        says(b.ctx, eqat_e2e_qp_accumulate(job, 1, 4 >> i, NULL), EQAT_INVALID_ARGUMENT,
             "micro-batch");
        says(b.ctx, eqat_e2e_qp_accumulate(job, 2, 0, NULL), EQAT_INVALID_ARGUMENT, "step");
        eqat_e2e_qp_free(job);
        tear_down(&b);
    }
    free(reference[0]);
    free(reference[1]);
}
END_TEST

/* Mean loss of sequences by their place in the order of an epoch; its gradient is added to what is
 * there. */
static double add_loss_of(bench *b, int64_t epoch, int64_t first, int64_t n)
{
    int32_t ids[4 * TIME];
    float value;
    ck_assert_int_le(n, 4);
    for (int64_t i = 0; i < n; i++)
        read_ids(b->ctx, b->data, false, eqat_data_order(b->data, epoch, first + i),
                 ids + i * TIME);
    eqat_batch batch;
    eqat_batch_init(&batch, sizeof batch);
    batch.batch = n;
    batch.time = TIME;
    batch.ids = ids;
    eqat_tape *tape;
    eqat_tensor *loss;
    OK(b->ctx, eqat_tape_create(b->ctx, &tape));
    OK(b->ctx, eqat_model_loss(b->model, tape, &batch, &loss, NULL));
    OK(b->ctx, eqat_tensor_read(loss, &value, sizeof value));
    OK(b->ctx, eqat_tape_backward(tape, loss, 1));
    eqat_tensor_free(loss);
    eqat_tape_free(tape);
    return (double)value;
}

/* Two steps of 4 and 3 sequences in each of two epochs. */
START_TEST(a_step_is_the_mean_over_its_sequences_in_the_order_of_the_epoch)
{
    bench b = set_up_packed(7);
    eqat_e2e_qp_options o = own_options();
    o.epochs = 2;
    o.lr = 1e-30; /* nothing moves */
    eqat_e2e_qp *job;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    for (int64_t step = 0; step < 4; step++) {
        int64_t n, count = step % 2 ? 3 : 4;
        for (int64_t micro = 0; micro < count; micro++)
            OK(b.ctx, eqat_e2e_qp_accumulate(job, step, micro, NULL));
        float *once = read_floats(gradient(&b, Q0), &n);
        double loss = add_loss_of(&b, step / 2, step % 2 * 4, count), size = 0;
        float *twice = read_floats(gradient(&b, Q0), &n);
        ck_assert_double_eq_tol(eqat_e2e_qp_loss(job, step), loss, 1e-5);
        for (int64_t i = 0; i < n; i++) size = fmax(size, fabs((double)once[i]));
        for (int64_t i = 0; i < n; i++)
            ck_assert_double_le(fabs((double)twice[i] - 2 * (double)once[i]), 1e-5 * size);
        free(once);
        free(twice);
        OK(b.ctx, eqat_e2e_qp_step(job));
    }
    eqat_e2e_qp_free(job);
    tear_down(&b);
}
END_TEST

/* Steps 0 (at rate 0) and 1; how far the first scale moved, in units of the rate. */
static double movement(double max_grad_norm, double *norm, double *expected_norm)
{
    bench b = set_up_packed(8);
    eqat_e2e_qp_options o = own_options();
    o.max_grad_norm = max_grad_norm;
    eqat_e2e_qp *job;
    int64_t n;
    double sum = 0;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    float *before = read_floats(parameter(&b, Q0), &n);
    for (int64_t step = 0; step < 2; step++) {
        for (int64_t micro = 0; micro < 4; micro++)
            OK(b.ctx, eqat_e2e_qp_accumulate(job, step, micro, NULL));
        for (int64_t i = 0; i < BLOCKS * 7 && step == 1; i++) {
            float *g = read_floats(b.model->blocks[i / 7].linears[i % 7].weight.s->grad, &n);
            for (int64_t k = 0; k < n; k++) sum += (double)g[k] * (double)g[k];
            free(g);
        }
        OK(b.ctx, eqat_e2e_qp_step(job));
    }
    OK(b.ctx, eqat_optimizer_grad_norm(eqat_e2e_qp_optimizer(job), norm));
    *expected_norm = sqrt(sum);
    float *after = read_floats(parameter(&b, Q0), &n);
    double moved = fabs((double)after[0] - (double)before[0]) / o.lr;
    free(before);
    free(after);
    eqat_e2e_qp_free(job);
    tear_down(&b);
    return moved;
}

START_TEST(the_norm_is_clipped)
{
    double norm, expected;
    ck_assert_double_gt(movement(0.3, &norm, &expected), 0.01);
    ck_assert_double_eq_tol(norm, expected, 1e-5 * expected);
    /* far below AdamW's eps, the length of the gradient does matter */
    ck_assert_double_lt(movement(1e-13, &norm, &expected), 1e-3);
    ck_assert_double_eq_tol(norm, expected, 1e-5 * expected);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, micro_batches_add_up);
    tcase_add_test(tc, a_step_is_the_mean_over_its_sequences_in_the_order_of_the_epoch);
    tcase_add_test(tc, the_norm_is_clipped);
    return run_case("steps of E2E-QP", tc, CK_NOFORK);
}
