#include <math.h>
#include <stdlib.h>

#include "e2e.h"

/* The divergence from certainty about the label is the cross-entropy. */
static eqat_status from_certainty(void *user, eqat_tape *tape, eqat_tensor *logits,
                                  const eqat_batch *batch, eqat_tensor **loss)
{
    eqat_context *ctx = *(eqat_context **)user;
    int64_t rows = batch->batch * batch->time, vocab = eqat_tensor_size(logits, 2);
    float *target = calloc((size_t)(rows * vocab), sizeof *target);
    for (int64_t r = 0; r < rows; r++)
        if (batch->labels[r] >= 0) target[r * vocab + batch->labels[r]] = 1000;
    const int64_t shape[3] = {batch->batch, batch->time, vocab};
    eqat_tensor *certain, *labels;
    OK(ctx, eqat_tensor_create(ctx, &certain, EQAT_F32, 3, shape, target));
    OK(ctx, eqat_tensor_create(ctx, &labels, EQAT_I32, 2, shape, batch->labels));
    OK(ctx, eqat_op_kl_divergence(tape, logits, certain, labels, loss));
    eqat_tensor_free(certain);
    eqat_tensor_free(labels);
    free(target);
    return EQAT_OK;
}

START_TEST(a_loss_of_ones_own_takes_the_place_of_the_cross_entropy)
{
    double losses[2][4];
    float *scales[2];
    int64_t n;
    for (int own = 0; own < 2; own++) {
        bench b = set_up_packed(7);
        eqat_e2e_qp_options o = own_options();
        o.micro_batch_size = 2;
        o.epochs = 2;
        o.keep_activations = own;
        o.loss = own ? from_certainty : NULL;
        o.loss_user = &b.ctx;
        eqat_e2e_qp *job;
        OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
        OK(b.ctx, eqat_e2e_qp_run(job));
        for (int64_t step = 0; step < 4; step++) losses[own][step] = eqat_e2e_qp_loss(job, step);
        scales[own] = read_floats(parameter(&b, Q0), &n);
        eqat_e2e_qp_free(job);
        tear_down(&b);
    }
    for (int step = 0; step < 4; step++)
        ck_assert_double_eq_tol(losses[1][step], losses[0][step], 1e-4);
    ck_assert_double_lt(losses[0][3], losses[0][0] - 1e-3);
    for (int64_t i = 0; i < n; i++) /* fp16 */
        ck_assert_double_eq_tol((double)scales[1][i], (double)scales[0][i],
                                0.01 * fabs((double)scales[0][i]));
    free(scales[0]);
    free(scales[1]);
}
END_TEST

static eqat_status fails(void *user, eqat_tape *tape, eqat_tensor *logits, const eqat_batch *batch,
                         eqat_tensor **loss)
{
    (void)batch;
    if (*(int *)user) return eqat_op_scale(tape, logits, 1, loss);
    return EQAT_IO;
}

START_TEST(a_loss_of_ones_own_is_one_number_or_an_error)
{
    bench b = set_up_packed(4);
    eqat_e2e_qp_options o = own_options();
    int many = 0;
    o.loss = fails;
    o.loss_user = &many;
    says(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o), EQAT_IO, "loss callback: failed: io");
    many = 1;
    says(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o), EQAT_INVALID_ARGUMENT,
         "loss callback: found something else, expected one f32");
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, a_loss_of_ones_own_takes_the_place_of_the_cross_entropy);
    tcase_add_test(tc, a_loss_of_ones_own_is_one_number_or_an_error);
    return run_case("a loss of one's own", tc, CK_NOFORK);
}
