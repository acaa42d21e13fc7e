/* The loss of the last block, against its formula in doubles. */
#include <math.h>

#include "public.h"

static eqat_block_ap_options logits_options(void)
{
    eqat_block_ap_options o = fast_options();
    o.last_loss = EQAT_LAST_LOSS_LOGITS;
    return o;
}

static double mean_square(const float *y, const float *target, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += pow((double)y[i] - (double)target[i], 2);
    return sum / (double)n;
}

static double log_sum(const float *logits)
{
    double sum = 0;
    for (int v = 0; v < VOCAB; v++) sum += exp((double)logits[v]);
    return log(sum);
}

static double mean_divergence(const float *student, const float *teacher, int64_t rows)
{
    double sum = 0;
    for (int64_t r = 0; r < rows; r++, student += VOCAB, teacher += VOCAB) {
        double q = log_sum(student), p = log_sum(teacher);
        for (int v = 0; v < VOCAB; v++) {
            double ln_p = (double)teacher[v] - p;
            sum += exp(ln_p) * (ln_p - (double)student[v] + q);
        }
    }
    return sum / (double)rows;
}

static float *logits_behind(bench *b, eqat_tape *tape, eqat_tensor *x, int64_t *n)
{
    eqat_tensor *logits;
    OK(b->ctx, eqat_model_logits(b->model, tape, x, 0, &logits));
    float *values = read_floats(logits, n);
    eqat_tensor_free(logits);
    return values;
}

/* What the first step's loss should be, of the block in work. */
static double loss_by_hand(bench *b, eqat_block_ap *job, bool divergence)
{
    eqat_tape *tape;
    eqat_tensor *y, *target;
    int64_t n;
    OK(b->ctx, eqat_tape_create(b->ctx, &tape));
    eqat_tape_set_recording(tape, false);
    OK(b->ctx, eqat_block_ap_forward(job, tape, 0, 0, &y, &target));
    float *ours = divergence ? logits_behind(b, tape, y, &n) : read_floats(y, &n),
          *theirs = divergence ? logits_behind(b, tape, target, &n) : read_floats(target, &n);
    double loss =
        divergence ? mean_divergence(ours, theirs, n / VOCAB) : mean_square(ours, theirs, n);
    free(ours);
    free(theirs);
    eqat_tensor_free(y);
    eqat_tensor_free(target);
    eqat_tape_free(tape);
    return loss;
}

START_TEST(the_last_block_is_held_to_logits)
{
    setting s = usual;
    s.compute = EQAT_F32;
    bench b = set_up(&s);
    eqat_block_ap_options o = logits_options();
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    for (int64_t block = 0; block < BLOCKS; block++) {
        double loss, first = NAN;
        OK(b.ctx, eqat_block_ap_begin(job));
        const double expected = loss_by_hand(&b, job, block == BLOCKS - 1);
        for (int64_t step = 0; step < o.epochs * eqat_block_ap_steps(job); step++) {
            int64_t steps = eqat_block_ap_steps(job);
            OK(b.ctx, eqat_block_ap_step(job, step / steps, step % steps, &loss));
            if (!step) first = loss;
        }
        ck_assert_double_eq_tol(first, expected, 1e-4 * expected);
        ck_assert_double_lt(loss_by_hand(&b, job, block == BLOCKS - 1), expected);
        OK(b.ctx, eqat_block_ap_finish(job));
    }
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

static const char *trained(const char *name, const eqat_block_ap_options *o)
{
    bench b = set_up(&usual);
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, o));
    const char *path = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return path;
}

static eqat_status squares(void *user, eqat_tape *tape, eqat_tensor *y, eqat_tensor *target,
                           eqat_tensor **loss)
{
    (void)user;
    return eqat_op_mse(tape, y, target, loss);
}

START_TEST(a_loss_of_the_callers_takes_its_place)
{
    eqat_block_ap_options o = fast_options(), last = logits_options();
    const char *plain = trained("plain", &o), *other = trained("logits", &last);
    ck_assert(!same_folders(plain, other));
    last.loss = squares;
    ck_assert(same_folders(plain, trained("own", &last)));
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("last loss");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, the_last_block_is_held_to_logits);
    tcase_add_test(tc, a_loss_of_the_callers_takes_its_place);
    return run_case("loss of the last block", tc, CK_NOFORK);
}
