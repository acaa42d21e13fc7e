#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "public.h"

enum { BITS = 3 };

/* Linears of the pattern have bits of their own; 0: they stay dense. */
static bench set_up_mixed(const char *name, int64_t sequences, int bits, const char *pattern,
                          int apart)
{
    bench b = {.ctx = make_context(2, 1)};
    b.model = open_model(b.ctx, name, EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(b.ctx, bits, 32);
    OK(b.ctx, add_rule(quantizer, pattern, apart, 32));
    OK(b.ctx, eqat_model_quantize_rtn(b.model, quantizer, NULL));
    eqat_quantizer_free(quantizer);
    b.data = make_data(b.ctx, sequences, 0, true);
    return b;
}

static bench set_up_packed(int64_t sequences)
{
    return set_up_mixed("model", sequences, BITS, "*", BITS);
}

static eqat_e2e_qp_options own_options(void)
{
    eqat_e2e_qp_options o;
    eqat_e2e_qp_options_init(&o, sizeof o);
    o.batch_size = 4;
    o.lr = 2e-3;
    return o;
}

static eqat_tensor *parameter(bench *b, const char *name)
{
    eqat_tensor *t;
    OK(b->ctx, eqat_model_parameter(b->model, name, &t));
    return t;
}

static eqat_tensor *gradient(bench *b, const char *name)
{
    eqat_tensor *g = eqat_tensor_grad(parameter(b, name));
    ck_assert_ptr_nonnull(g);
    return g;
}

static const char Q0[] = "model.layers.0.self_attn.q_proj.scales",
                  DOWN2[] = "model.layers.2.mlp.down_proj.scales";

typedef struct seen {
    int64_t calls, cancel_at;
    double first, last, lr[8], norm;
} seen;

static int32_t watch(void *user, const eqat_progress *p)
{
    seen *s = user;
    ck_assert_str_eq(p->phase, "e2e-qp");
    ck_assert_int_eq(p->step, s->calls + 1);
    if (s->calls < 8) s->lr[s->calls] = p->lr;
    if (s->calls++ == 0) s->first = p->loss;
    s->last = p->loss;
    s->norm = p->grad_norm;
    return s->calls == s->cancel_at;
}

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

/* Before saving too: they are rounded to the BF16 of the file, which is coarser than what trains.
 */
START_TEST(gains_train_in_every_block_and_have_the_dtype_of_the_file)
{
    llama_shape half = small_shape;
    half.bf16 = true;
    write_llama("half", &half, NULL);
    bench b = set_up_mixed("half", 8, BITS, "model.layers.1.*", 0);
    eqat_e2e_qp_options o = own_options();
    o.train_norms = true;
    OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o));
    eqat_model *file = open_model(b.ctx, "half", EQAT_F32);
    for (int block = 0; block < BLOCKS; block++) {
        char name[64];
        int64_t n;
        eqat_tensor *original;
        snprintf(name, sizeof name, "model.layers.%d.input_layernorm.weight", block);
        OK(b.ctx, eqat_model_parameter(file, name, &original));
        float *before = read_floats(original, &n), *after = read_floats(parameter(&b, name), &n);
        ck_assert_msg(memcmp(before, after, (size_t)n * sizeof *before) != 0, "%s", name);
        free(before);
        free(after);
    }
    eqat_model_free(file);
    eqat_perplexity here = {.struct_size = sizeof here}, again = here;
    OK(b.ctx, eqat_eval_perplexity(b.model, b.data, NULL, &here));
    eqat_model *saved = open_model(b.ctx, save_as(b.ctx, b.model, "half-saved"), EQAT_F32);
    OK(b.ctx, eqat_eval_perplexity(saved, b.data, NULL, &again));
    ck_assert_double_eq(again.nll, here.nll);
    eqat_model_free(saved);
    tear_down(&b);
}
END_TEST

/* What trains is what was asked for, and nothing else moves. */
START_TEST(params_choose_what_trains)
{
    for (int params = 0; params < 3; params++)
        for (int norms = 0; norms < 2; norms++) {
            bench b = set_up_packed(8);
            const char *const names[] = {
                "model.layers.1.mlp.up_proj.scales", "model.layers.1.mlp.up_proj.zeros",
                "model.layers.1.input_layernorm.weight", "model.norm.weight"};
            const bool moves[] = {params != EQAT_E2E_Z, params != EQAT_E2E_S, norms, norms};
            char before[4][4096], after[4096];
            for (int i = 0; i < 4; i++) {
                eqat_tensor *t = parameter(&b, names[i]);
                size_t n = (size_t)eqat_tensor_count(t) * eqat_dtype_size(eqat_tensor_dtype(t));
                ck_assert_uint_le(n, sizeof after);
                OK(b.ctx, eqat_tensor_read(t, before[i], n));
            }
            eqat_e2e_qp_options o = own_options();
            o.params = params;
            o.train_norms = norms;
            o.lr = params == EQAT_E2E_S ? 2e-3 : 0.6; /* zero points move in whole steps */
            OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o));
            for (int i = 0; i < 4; i++) {
                eqat_tensor *t = parameter(&b, names[i]);
                size_t n = (size_t)eqat_tensor_count(t) * eqat_dtype_size(eqat_tensor_dtype(t));
                OK(b.ctx, eqat_tensor_read(t, after, n));
                ck_assert_msg((memcmp(before[i], after, n) != 0) == moves[i],
                              "params %d, norms %d: %s", params, norms, names[i]);
                for (size_t k = 0; k < n && i == 1; k++)
                    ck_assert_int_lt(((unsigned char *)after)[k], 1 << BITS);
            }
            tear_down(&b);
        }
}
END_TEST

START_TEST(zero_points_are_rounded_to_whole_ones_in_range)
{
    const char name[] = "model.layers.1.mlp.up_proj.zeros";
    bench b = set_up_packed(8);
    eqat_e2e_qp_options o = own_options();
    o.params = EQAT_E2E_Z;
    eqat_e2e_qp *job;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    int64_t n = eqat_tensor_count(parameter(&b, name));
    float trained[1024];
    unsigned char z[1024];
    ck_assert_int_le(n, EQI_COUNT(z));
    for (int64_t i = 0; i < n; i++)
        trained[i] = (float)(i % 64) / 4.0f - 3.0f; /* beyond both ends */
    OK(b.ctx, eqat_tensor_write(parameter(&b, name), trained, (size_t)n * sizeof *trained));
    OK(b.ctx, eqat_e2e_qp_finish(job));
    eqat_e2e_qp_free(job);
    OK(b.ctx, eqat_tensor_read(parameter(&b, name), z, (size_t)n));
    for (int64_t i = 0; i < n; i++)
        ck_assert_float_eq((float)z[i],
                           fminf(fmaxf(rintf(trained[i]), 0.0f), (float)((1 << BITS) - 1)));
    tear_down(&b);
}
END_TEST

START_TEST(training_starts_from_scales_that_a_file_can_hold)
{
    bench b = set_up_packed(8);
    eqat_e2e_qp_options o = own_options();
    eqat_e2e_qp *job;
    OK(b.ctx, eqat_tensor_fill(parameter(&b, Q0), 0.1));
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    int64_t n;
    float *s = read_floats(parameter(&b, Q0), &n);
    for (int64_t i = 0; i < n; i++) ck_assert_float_eq(s[i], 0x1.998p-4f); /* 0.1 in F16 */
    free(s);
    eqat_e2e_qp_free(job);
    tear_down(&b);
}
END_TEST

START_TEST(the_default_rate_is_that_of_the_fewest_bits)
{
    for (int first = 2; first <= 4; first++) {
        bench b = set_up_mixed("model", 8, first, "model.layers.2.*", first == 3 ? 4 : 6 - first);
        seen s = {0};
        eqat_e2e_qp_options o = own_options();
        o.lr = 0;
        o.progress = watch;
        o.progress_user = &s;
        OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o));
        ck_assert_double_eq(s.lr[1], first == 3 ? 1e-5 : 2e-5);
        tear_down(&b);
    }
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

/* ---- a loss of one's own ---- */

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

START_TEST(bad_input_is_refused)
{
    bench b = set_up_packed(4);
    eqat_e2e_qp_options o = own_options();
    o.micro_batch_size = 3;
    says(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o), EQAT_INVALID_ARGUMENT,
         "micro_batch_size: found 3");
    o = own_options();
    o.epochs = 0;
    says(b.ctx, eqat_e2e_qp_train(b.model, b.data, &o), EQAT_INVALID_ARGUMENT, "epochs");
    o = own_options();
    eqat_model *dense = open_model(b.ctx, "model", EQAT_F32);
    says(b.ctx, eqat_e2e_qp_train(dense, b.data, &o), EQAT_INVALID_ARGUMENT, "no quantized linear");
    eqat_model_free(dense);
    eqat_data_options d;
    eqat_data_options_init(&d, sizeof d);
    d.train_size = 2;
    d.val_size = 0;
    d.seq_len = 1;
    d.sampling = EQAT_SAMPLING_CONSECUTIVE;
    const int32_t ids[] = {1, 2, 3, 4};
    eqat_data *data;
    OK(b.ctx, eqat_data_from_tokens(b.ctx, &data, ids, 4, 0, &d));
    says(b.ctx, eqat_e2e_qp_train(b.model, data, &o), EQAT_INVALID_ARGUMENT, "seq_len");
    eqat_data_free(data);
    tear_down(&b);
}
END_TEST

/* check agrees with create, on a model that is not quantized yet, too, and changes nothing. */
START_TEST(check_refuses_what_create_would)
{
    bench b = set_up_packed(4);
    eqat_model *dense = open_model(b.ctx, "model", EQAT_F32);
    eqat_quantizer *all = make_quantizer(b.ctx, BITS, 32), *none = make_quantizer(b.ctx, BITS, 32);
    eqat_e2e_qp_options o = own_options();
    OK(b.ctx, add_rule(none, "*", 0, 32));
    OK(b.ctx, eqat_e2e_qp_check(b.model, NULL, b.data, &o));
    OK(b.ctx, eqat_e2e_qp_check(b.model, none, b.data, NULL));
    OK(b.ctx, eqat_e2e_qp_check(dense, all, b.data, &o));
    says(b.ctx, eqat_e2e_qp_check(dense, NULL, b.data, &o), EQAT_INVALID_ARGUMENT,
         "no quantized linear");
    says(b.ctx, eqat_e2e_qp_check(dense, none, b.data, &o), EQAT_INVALID_ARGUMENT,
         "no quantized linear");
    o.micro_batch_size = 3;
    says(b.ctx, eqat_e2e_qp_check(dense, all, b.data, &o), EQAT_INVALID_ARGUMENT,
         "micro_batch_size: found 3");
    o = own_options();
    o.params = 7;
    says(b.ctx, eqat_e2e_qp_check(dense, all, b.data, &o), EQAT_INVALID_ARGUMENT, "params");
    eqat_quantizer_free(all);
    eqat_quantizer_free(none);
    eqat_model_free(dense);
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, losses_fall_and_the_saved_model_is_the_one_in_memory);
    tcase_add_test(tc, gains_train_in_every_block_and_have_the_dtype_of_the_file);
    tcase_add_test(tc, params_choose_what_trains);
    tcase_add_test(tc, zero_points_are_rounded_to_whole_ones_in_range);
    tcase_add_test(tc, training_starts_from_scales_that_a_file_can_hold);
    tcase_add_test(tc, the_default_rate_is_that_of_the_fewest_bits);
    tcase_add_test(tc, unfinished_training_is_undone);
    tcase_add_test(tc, a_cancelled_run_goes_on_to_the_same_bytes);
    tcase_add_test(tc, a_save_changes_nothing);
    tcase_add_test(tc, kept_activations_give_the_same_bytes);
    tcase_add_test(tc, a_model_has_one_job_at_a_time);
    tcase_add_test(tc, micro_batches_add_up);
    tcase_add_test(tc, a_step_is_the_mean_over_its_sequences_in_the_order_of_the_epoch);
    tcase_add_test(tc, a_loss_of_ones_own_takes_the_place_of_the_cross_entropy);
    tcase_add_test(tc, a_loss_of_ones_own_is_one_number_or_an_error);
    tcase_add_test(tc, a_loss_that_is_not_finite_ends_the_run);
    tcase_add_test(tc, a_run_that_breaks_ends_with_its_last_good_state);
    tcase_add_test(tc, the_norm_is_clipped);
    tcase_add_test(tc, bad_input_is_refused);
    tcase_add_test(tc, check_refuses_what_create_would);
    return run_case("E2E-QP", tc, CK_NOFORK);
}
