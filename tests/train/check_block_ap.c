#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/weights.h"
#include "public.h"
#include "train/block_ap.h"

/* ---- the same bytes ---- */

static eqat_status all_gradients_are_there(void *user, eqat_tensor *const *parameters, size_t count)
{
    for (size_t i = 0; i < count; i++) ck_assert_ptr_nonnull(eqat_tensor_grad(parameters[i]));
    ++*(int *)user;
    return EQAT_OK;
}

/* Block 0 with backward and update in one, the others with all gradients side by side. */
START_TEST(a_driver_made_of_steps_gives_the_same_bytes)
{
    int calls = 0;
    bench b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    ck_assert_int_eq(eqat_block_ap_steps(job), 4); /* 7 samples in twos */
    while (eqat_block_ap_block(job) < BLOCKS) {
        OK(b.ctx, eqat_block_ap_begin(job));
        if (eqat_block_ap_block(job))
            eqat_optimizer_set_grad_callback(eqat_block_ap_optimizer(job), all_gradients_are_there,
                                             &calls);
        for (int64_t epoch = 0; epoch < o.epochs; epoch++)
            for (int64_t step = 0; step < eqat_block_ap_steps(job); step++) {
                double loss;
                OK(b.ctx, eqat_block_ap_step(job, epoch, step, step % 2 ? &loss : NULL));
            }
        OK(b.ctx, eqat_block_ap_finish(job));
    }
    eqat_block_ap_free(job);
    ck_assert_int_eq(calls, (BLOCKS - 1) * o.epochs * 4);
    eqat_e2e_qp_options e = fast_e2e_options();
    eqat_e2e_qp *e2e;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &e2e, b.data, &e));
    for (int64_t step = 0; step < eqat_e2e_qp_steps(e2e); step++) {
        for (int64_t micro = 0; micro < eqat_e2e_qp_micro_steps(e2e, step); micro++)
            OK(b.ctx, eqat_e2e_qp_accumulate(e2e, step, micro, NULL));
        OK(b.ctx, eqat_e2e_qp_step(e2e));
    }
    OK(b.ctx, eqat_e2e_qp_finish(e2e));
    eqat_e2e_qp_free(e2e);
    const char *path = save_as(b.ctx, b.model, "driver");
    tear_down(&b);
    ck_assert(same_folders(path, reference_folder()));
}
END_TEST

/* One that an earlier backward left, with backward and update in one and apart. */
START_TEST(a_gradient_that_is_there_already_counts_once)
{
    float *found[2];
    int64_t n = 0;
    for (int apart = 0; apart < 2; apart++) {
        int calls = 0;
        bench b = set_up(&usual);
        eqat_block_ap_options o = fast_options();
        eqat_block_ap *job;
        OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
        OK(b.ctx, eqat_block_ap_begin(job));
        if (apart)
            eqat_optimizer_set_grad_callback(eqat_block_ap_optimizer(job), all_gradients_are_there,
                                             &calls);
        const int64_t dims[2] = {HIDDEN, HIDDEN};
        eqat_tensor *w = eqat_block_ap_parameter(job, "self_attn.q_proj.weight"), *target, *loss;
        eqat_tape *tape;
        OK(b.ctx, eqat_tape_create(b.ctx, &tape));
        OK(b.ctx, eqat_tensor_create(b.ctx, &target, EQAT_F32, 2, dims, NULL));
        OK(b.ctx, eqat_tensor_fill(target, 1));
        OK(b.ctx, eqat_op_mse(tape, w, target, &loss));
        OK(b.ctx, eqat_tape_backward(tape, loss, 1));
        eqat_tensor_free(loss);
        eqat_tensor_free(target);
        eqat_tape_free(tape);
        OK(b.ctx, eqat_block_ap_step(job, 0, 0, NULL));
        ck_assert_ptr_null(eqat_tensor_grad(w));
        found[apart] = read_floats(w, &n);
        eqat_block_ap_free(job);
        tear_down(&b);
    }
    ck_assert(same_floats(found[0], found[1], n));
    free(found[0]);
    free(found[1]);
}
END_TEST

START_TEST(threads_and_offload_change_nothing_and_the_seed_does)
{
    setting s = usual;
    s.threads = 1;
    ck_assert(same_folders(one_call(&s, "threads-1"), reference_folder()));
    s = usual;
    s.offload_dir = scratch_dir();
    ck_assert(same_folders(one_call(&s, "offload"), reference_folder()));
    const uint64_t memory[] = {1, 7 * 2 * TIME * HIDDEN * 4, 1 << 30}; /* none, 7 samples, all */
    for (size_t i = 0; i < EQI_COUNT(memory); i++) {
        char name[32];
        snprintf(name, sizeof name, "offload-%zu", i);
        s.offload_memory = memory[i];
        ck_assert(same_folders(one_call(&s, name), reference_folder()));
    }
    s = usual;
    s.seed++; /* shuffles otherwise */
    ck_assert(!same_folders(one_call(&s, "seed"), reference_folder()));
    s.shuffle = false; /* and without that nothing is random */
    const char *a = one_call(&s, "ordered-a");
    s.seed++;
    ck_assert(same_folders(one_call(&s, "ordered-b"), a));
}
END_TEST

START_TEST(memory_beside_no_files_is_refused)
{
    bench b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    o.offload_memory = 5000;
    says(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o), EQAT_INVALID_ARGUMENT,
         "offload_memory: found 5000 without offload_dir");
    tear_down(&b);
}
END_TEST

START_TEST(bf16_too)
{
    setting s = usual;
    s.compute = EQAT_BF16;
    const char *a = one_call(&s, "bf16-a");
    s.threads = 3;
    s.offload_dir = scratch_dir();
    ck_assert(same_folders(one_call(&s, "bf16-b"), a));
    ck_assert(!same_folders(a, reference_folder()));
}
END_TEST

START_TEST(no_epochs_give_round_to_nearest)
{
    const int bits[] = {2, 3, 4, 8}; /* no engine reads others: not saved */
    for (int i = 0; i < 8; i++) {
        setting s = usual;
        s.bits = bits[i / 2];
        s.init = i % 2 ? EQAT_INIT_MSE : EQAT_INIT_MINMAX;
        bench b = set_up(&s);
        eqat_block_ap_options o = fast_options();
        o.epochs = 0;
        OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
        char name[32];
        snprintf(name, sizeof name, "start-%d", i);
        const char *a = save_as(b.ctx, b.model, name);
        tear_down(&b);
        b = set_up(&s);
        OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
        snprintf(name, sizeof name, "rtn-%d", i);
        const char *r = save_as(b.ctx, b.model, name);
        tear_down(&b);
        ck_assert_msg(same_folders(a, r), "%d bits, start %d", s.bits, (int)s.init);
    }
}
END_TEST

/* ---- the streams ---- */

static eqat_tensor *embedded(bench *b, bool validation, int64_t sample)
{
    const int64_t dims[2] = {1, TIME};
    int32_t ids[TIME];
    eqat_tensor *t, *x;
    eqat_tape *tape;
    read_ids(b->ctx, b->data, validation, sample, ids);
    OK(b->ctx, eqat_tensor_create(b->ctx, &t, EQAT_I32, 2, dims, ids));
    OK(b->ctx, eqat_tape_create(b->ctx, &tape));
    OK(b->ctx, eqi_model_embed(tape, b->model, t, &x));
    eqat_tape_free(tape);
    eqat_tensor_free(t);
    return x;
}

/* x through block `index` of the model, or through the copy of it that a job has in work; gives x
 * up. */
static eqat_tensor *through(bench *b, int64_t index, const eqi_block *work, eqat_tensor *x)
{
    eqat_tensor *y;
    eqat_tape *tape;
    OK(b->ctx, eqat_tape_create(b->ctx, &tape));
    eqat_tape_set_recording(tape, false);
    const eqi_block *block;
    OK(b->ctx, eqi_block_acquire(b->model, index, &block));
    OK(b->ctx, eqi_model_prepare(b->model, TIME));
    const eqi_block_input in = eqi_model_input(b->model, x);
    OK(b->ctx, eqi_block_forward(tape, work ? work : block, &in, &y));
    eqi_block_release(b->model, index);
    eqat_tape_free(tape);
    eqat_tensor_free(x);
    return y;
}

/* The loss of a sample at block `index`, from the embeddings on: target through the full-precision
 * model, input through packed blocks. */
static double loss_of(bench *dense, bench *b, const eqat_block_ap *job, bool validation,
                      int64_t sample)
{
    eqat_tensor *full = embedded(dense, validation, sample),
                *quantized = embedded(b, validation, sample);
    for (int64_t i = 0; i <= job->block; i++) {
        full = through(dense, i, NULL, full);
        quantized = through(b, i, i == job->block ? &job->work : NULL, quantized);
    }
    int64_t n;
    float *x = read_floats(full, &n), *y = read_floats(quantized, &n);
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    free(x);
    free(y);
    eqat_tensor_free(full);
    eqat_tensor_free(quantized);
    return sum / (double)n;
}

START_TEST(every_block_sees_both_streams_in_order)
{
    bench dense = set_up(&usual), b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    o.quant_lr = 1e-30;
    o.weight_lr = -1; /* nothing moves: losses can be had afterwards */
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    for (int64_t block = 0; block < BLOCKS; block++) {
        double loss, expected = 0;
        OK(b.ctx, eqat_block_ap_begin(job));
        for (int64_t i = 0; i < 3; i++) expected += loss_of(&dense, &b, job, true, i) / 3;
        OK(b.ctx, eqat_block_ap_validate(job, &loss));
        ck_assert_double_eq_tol(loss, expected, 1e-5 * expected);
        for (int64_t epoch = 0; epoch < 2; epoch++)
            for (int64_t step = 0; step < 4; step++) {
                int64_t n = step < 3 ? 2 : 1;
                expected = 0;
                for (int64_t i = 0; i < n; i++)
                    expected += loss_of(&dense, &b, job, false,
                                        eqat_data_order(b.data, epoch, 2 * step + i)) /
                        (double)n;
                OK(b.ctx, eqat_block_ap_step(job, epoch, step, &loss));
                ck_assert_double_eq_tol(loss, expected, 1e-5 * expected);
            }
        OK(b.ctx, eqat_block_ap_finish(job));
    }
    eqat_block_ap_free(job);
    tear_down(&b);
    tear_down(&dense);
}
END_TEST

/* ---- what training does ---- */

START_TEST(losses_fall_and_are_reported)
{
    bench b = set_up(&usual);
    double full = perplexity_of(b.ctx, b.model, b.data);
    eqat_block_ap_options o = fast_options();
    watched s = {0};
    o.epochs = 4;
    o.progress = watch_block_ap;
    o.progress_user = &s;
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_run(job));
    ck_assert_int_eq(s.calls, BLOCKS * 4 * 4);
    ck_assert_int_eq(s.step, s.steps);
    ck_assert_int_eq(s.validated, BLOCKS * 4);
    ck_assert_double_eq(s.first_lr, o.quant_lr);
    ck_assert_double_lt(s.last_lr, 0.1 * o.quant_lr);
    eqat_epoch_report first = {.struct_size = sizeof first}, last = first,
                      shorter = {.struct_size = offsetof(eqat_epoch_report, val_loss),
                                 .val_loss = 5};
    for (int64_t block = 0; block < BLOCKS; block++) {
        OK(b.ctx, eqat_block_ap_epoch(job, block, 0, &first));
        OK(b.ctx, eqat_block_ap_epoch(job, block, 3, &last));
        ck_assert_double_lt(last.train_loss, 0.9 * first.train_loss);
        ck_assert_double_lt(last.val_loss, first.val_loss);
        ck_assert_double_gt(last.val_loss, 0);
    }
    OK(b.ctx, eqat_block_ap_epoch(job, 0, 0, &shorter));
    ck_assert_double_eq(shorter.val_loss, 5);
    says(b.ctx, eqat_block_ap_epoch(job, 0, 4, &first), EQAT_NOT_FOUND, "epoch 4");
    says(b.ctx, eqat_block_ap_begin(job), EQAT_INVALID_ARGUMENT, "all done");
    eqat_block_ap_free(job);
    double trained = perplexity_of(b.ctx, b.model, b.data);
    const char *path = save_as(b.ctx, b.model, "trained");
    tear_down(&b);
    /* better than rounding, and the same from disk */
    b = set_up(&usual);
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    ck_assert_double_gt(fabs(log(perplexity_of(b.ctx, b.model, b.data) / full)),
                        fabs(log(trained / full)));
    eqat_model *again = open_model(b.ctx, path, EQAT_F32);
    ck_assert_double_eq(perplexity_of(b.ctx, again, b.data), trained);
    eqat_model_free(again);
    tear_down(&b);
}
END_TEST

START_TEST(reported_losses_are_those_of_the_steps)
{
    bench b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    o.epochs = 1;
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_run(job));
    eqat_epoch_report r = {.struct_size = sizeof r};
    OK(b.ctx, eqat_block_ap_epoch(job, 0, 0, &r));
    eqat_block_ap_free(job);
    tear_down(&b);
    b = set_up(&usual);
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_begin(job));
    double sum = 0, loss, val_loss;
    for (int64_t step = 0; step < 4; step++) {
        OK(b.ctx, eqat_block_ap_step(job, 0, step, &loss));
        sum += loss * (step < 3 ? 2 : 1); /* 7 samples in twos */
    }
    ck_assert_double_eq(sum / 7, r.train_loss);
    OK(b.ctx, eqat_block_ap_validate(job, &val_loss));
    ck_assert_double_eq(val_loss, r.val_loss);
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

static int64_t epochs_of(const eqat_block_ap *job, int64_t block)
{
    eqat_epoch_report r = {.struct_size = sizeof r};
    int64_t epoch = 0;
    while (eqat_block_ap_epoch(job, block, epoch, &r) == EQAT_OK) epoch++;
    return epoch;
}

START_TEST(early_stop_counts_epochs_without_improvement)
{
    bench b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    o.epochs = 5;
    o.early_stop = 2;
    o.quant_lr = o.weight_lr = 3e-4; /* every epoch is better */
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_run(job));
    for (int64_t block = 0; block < BLOCKS; block++) ck_assert_int_eq(epochs_of(job, block), 5);
    eqat_block_ap_free(job);
    tear_down(&b);
    b = set_up(&usual);
    o.quant_lr = 1e-30;
    o.weight_lr = -1; /* nothing ever changes: the first epoch is the best one */
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_run(job));
    for (int64_t block = 0; block < BLOCKS; block++) ck_assert_int_eq(epochs_of(job, block), 3);
    eqat_block_ap_free(job);
    tear_down(&b);
    b = set_up(&usual);
    eqat_data *none = make_data(b.ctx, 4, 0, false);
    says(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, none, &o), EQAT_INVALID_ARGUMENT,
         "early_stop");
    eqat_data_free(none);
    tear_down(&b);
}
END_TEST

/* Gains of 1 fit best, of 3 worst: what an epoch's validation finds. */
static const double gains[] = {2, 3, 1, 3, 2, 3, 3};

static int32_t set_gains(void *user, const eqat_progress *p)
{
    eqat_tensor *t =
        eqat_block_ap_parameter(*(eqat_block_ap **)user, "post_attention_layernorm.weight");
    ck_assert_int_eq(eqat_tensor_fill(t, isnan(p->val_loss) ? gains[p->epoch] : 1), EQAT_OK);
    return 0;
}

START_TEST(early_stop_counts_in_a_row_and_against_the_best)
{
    bench b = set_up(&usual);
    eqat_block_ap *job;
    eqat_block_ap_options o = fast_options();
    o.epochs = EQI_COUNT(gains);
    o.early_stop = 2;
    o.quant_lr = 1e-30;
    o.weight_lr = -1;
    o.progress = set_gains;
    o.progress_user = &job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_run(job));
    for (int64_t block = 0; block < BLOCKS; block++) ck_assert_int_eq(epochs_of(job, block), 5);
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

START_TEST(biases_stay_and_rates_choose_what_trains)
{
    bench b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    o.weight_lr = -1; /* s and z alone */
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_begin(job));
    const char *const names[] = {"self_attn.q_proj.weight", "input_layernorm.weight",
                                 "self_attn.q_proj.scales", "mlp.down_proj.zeros"};
    float *before[4];
    int64_t n[4], m;
    for (int i = 0; i < 4; i++)
        before[i] = read_floats(eqat_block_ap_parameter(job, names[i]), &n[i]);
    ck_assert_ptr_null(eqat_block_ap_parameter(job, "self_attn.q_proj"));
    ck_assert_ptr_null(eqat_block_ap_parameter(job, "mlp.down_proj.bias"));
    for (int64_t step = 0; step < 3; step++) OK(b.ctx, eqat_block_ap_step(job, 0, step, NULL));
    for (int i = 0; i < 4; i++) {
        eqat_tensor *t = eqat_block_ap_parameter(job, names[i]);
        float *after = read_floats(t, &m);
        ck_assert_msg(same_floats(before[i], after, m) == (i < 2), "%s", names[i]);
        ck_assert_ptr_null(eqat_tensor_grad(t)); /* gone with the step */
        free(before[i]);
        free(after);
    }
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

START_TEST(default_rates_depend_on_the_bits)
{
    /* The first step of AdamW moves by the rate. Of mixed bits the fewest count. */
    const struct {
        int bits, down_proj;
        double rate;
    } cases[] = {{2, 2, 2e-5}, {3, 3, 1e-5}, {2, 4, 2e-5}, {4, 2, 2e-5}, {3, 4, 1e-5}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        setting s = usual;
        s.bits = cases[c].bits;
        bench b = set_up(&s);
        OK(b.ctx, add_rule(b.quantizer, "*.down_proj", cases[c].down_proj, 32));
        eqat_block_ap *job;
        OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, NULL));
        OK(b.ctx, eqat_block_ap_begin(job));
        int64_t n;
        float *before =
            read_floats(eqat_block_ap_parameter(job, "post_attention_layernorm.weight"), &n);
        OK(b.ctx, eqat_block_ap_step(job, 0, 0, NULL));
        float *after =
            read_floats(eqat_block_ap_parameter(job, "post_attention_layernorm.weight"), &n);
        for (int64_t i = 0; i < n; i++)
            ck_assert_double_eq_tol(fabs((double)after[i] - (double)before[i]), cases[c].rate,
                                    1e-6);
        free(before);
        free(after);
        eqat_block_ap_free(job);
        tear_down(&b);
    }
}
END_TEST

static void fill_periodically(bench *b, eqat_tensor *t, const float *values)
{
    int64_t n;
    float *x = read_floats(t, &n);
    for (int64_t i = 0; i < n; i++) x[i] = values[i % 4];
    OK(b->ctx, eqat_tensor_write(t, x, (size_t)n * sizeof *x));
    free(x);
}

START_TEST(what_is_frozen_is_clamped)
{
    const float s[] = {0x1p-30f, 0.25f, -1, 70000}, stored[] = {0x1p-24f, 0.25f, 0x1p-24f, 65504};
    const float z[] = {-3, 0.5f, 2.5f, 300}, whole[] = {0, 0, 2, 300};
    for (int bits = 2; bits <= 8; bits++) {
        setting chosen = usual;
        chosen.bits = bits;
        bench b = set_up(&chosen);
        eqat_block_ap *job;
        OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, NULL));
        OK(b.ctx, eqat_block_ap_begin(job));
        fill_periodically(&b, eqat_block_ap_parameter(job, "self_attn.q_proj.scales"), s);
        fill_periodically(&b, eqat_block_ap_parameter(job, "self_attn.q_proj.zeros"), z);
        OK(b.ctx, eqat_block_ap_finish(job));
        eqat_block_ap_free(job);
        int64_t n;
        unsigned char zeros[256];
        eqat_tensor *t;
        float *steps =
            parameter_floats(b.ctx, b.model, "model.layers.0.self_attn.q_proj.scales", &n);
        ck_assert_int_le(n, (int64_t)sizeof zeros);
        OK(b.ctx, eqat_model_parameter(b.model, "model.layers.0.self_attn.q_proj.zeros", &t));
        OK(b.ctx, eqat_tensor_read(t, zeros, (size_t)n));
        for (int64_t i = 0; i < n; i++) {
            ck_assert_float_eq(steps[i], stored[i % 4]);
            ck_assert_float_eq((float)zeros[i], fminf(whole[i % 4], (float)((1 << bits) - 1)));
        }
        free(steps);
        tear_down(&b);
    }
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, a_driver_made_of_steps_gives_the_same_bytes);
    tcase_add_test(tc, a_gradient_that_is_there_already_counts_once);
    tcase_add_test(tc, threads_and_offload_change_nothing_and_the_seed_does);
    tcase_add_test(tc, memory_beside_no_files_is_refused);
    tcase_add_test(tc, bf16_too);
    tcase_add_test(tc, no_epochs_give_round_to_nearest);
    tcase_add_test(tc, every_block_sees_both_streams_in_order);
    tcase_add_test(tc, losses_fall_and_are_reported);
    tcase_add_test(tc, reported_losses_are_those_of_the_steps);
    tcase_add_test(tc, early_stop_counts_epochs_without_improvement);
    tcase_add_test(tc, early_stop_counts_in_a_row_and_against_the_best);
    tcase_add_test(tc, biases_stay_and_rates_choose_what_trains);
    tcase_add_test(tc, default_rates_depend_on_the_bits);
    tcase_add_test(tc, what_is_frozen_is_clamped);
    return run_case("Block-AP", tc, CK_NOFORK);
}
