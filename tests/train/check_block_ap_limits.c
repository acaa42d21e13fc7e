#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"

/* ---- interruptions ---- */

START_TEST(cancelled_jobs_go_on_to_the_same_bytes)
{
    /* In the middle of block 1 by the callback; in a later run by eqat_context_cancel before its
     * first step, then in the middle of a pass. */
    bench b = set_up(&usual);
    int64_t n, m;
    float *original = parameter_floats(b.ctx, b.model, "model.layers.1.mlp.up_proj.weight", &n);
    tear_down(&b);
    b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    watched s = {.cancel_at = 8 + 3};
    o.progress = watch_block_ap;
    o.progress_user = &s;
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    says(b.ctx, eqat_block_ap_run(job), EQAT_CANCELLED, "cancelled");
    ck_assert_int_eq(s.block, 1);
    ck_assert_int_eq(eqat_block_ap_block(job), 1);
    eqat_linear_info info = {.struct_size = sizeof info};
    for (int64_t block = 0; block < BLOCKS; block++) {
        OK(b.ctx, eqat_model_linear(b.model, block, 0, &info));
        ck_assert_int_eq(info.bits, block == 0 ? 2 : 0);
    }
    says(b.ctx, eqat_block_ap_step(job, 0, 0, NULL), EQAT_INVALID_ARGUMENT, "expected begin");
    says(b.ctx, eqat_block_ap_finish(job), EQAT_INVALID_ARGUMENT, "expected begin");
    ck_assert_ptr_null(eqat_block_ap_optimizer(job));
    for (int i = 0; i < 3; i++) {
        eqat_context_cancel(b.ctx);
        says(b.ctx, eqat_block_ap_run(job), EQAT_CANCELLED, "cancelled");
        ck_assert_int_eq(eqat_block_ap_block(job), 1);
    }
    s.cancel_at = 0;
    s.calls = 8;
    OK(b.ctx, eqat_block_ap_run(job));
    eqat_block_ap_free(job);
    eqat_e2e_qp_options e = fast_e2e_options();
    OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, &e));
    ck_assert(same_folders(save_as(b.ctx, b.model, "cancelled"), reference_folder()));
    tear_down(&b);
    /* and given up for good, the block in work is what the file says */
    b = set_up(&usual);
    s = (watched){.cancel_at = 8 + 3};
    says(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o), EQAT_CANCELLED,
         "cancelled");
    float *after = parameter_floats(b.ctx, b.model, "model.layers.1.mlp.up_proj.weight", &m);
    ck_assert_int_eq(n, m);
    ck_assert(same_floats(original, after, n));
    free(original);
    free(after);
    tear_down(&b);
}
END_TEST

START_TEST(a_pass_that_was_interrupted_goes_on_where_it_stopped)
{
    bench b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    for (int64_t block = 0; block < BLOCKS; block++) {
        eqat_context_cancel(b.ctx);
        says(b.ctx, eqat_block_ap_begin(job), EQAT_CANCELLED, "cancelled");
        OK(b.ctx, eqat_block_ap_begin(job));
        eqat_block_ap_abandon(job); /* and given up once: targets are made only once */
        OK(b.ctx, eqat_block_ap_begin(job));
        says(b.ctx, eqat_block_ap_begin(job), EQAT_INVALID_ARGUMENT, "in work");
        for (int64_t epoch = 0; epoch < 2; epoch++)
            for (int64_t step = 0; step < 4; step++) {
                eqat_context_cancel(b.ctx);
                says(b.ctx, eqat_block_ap_step(job, epoch, step, NULL), EQAT_CANCELLED,
                     "cancelled");
                OK(b.ctx, eqat_block_ap_step(job, epoch, step, NULL));
            }
        if (block + 1 < BLOCKS) {
            eqat_context_cancel(b.ctx);
            says(b.ctx, eqat_block_ap_finish(job), EQAT_CANCELLED, "cancelled");
            eqat_block_ap_abandon(job); /* too late: it is packed */
            ck_assert_int_eq(eqat_block_ap_block(job), block);
        }
        OK(b.ctx, eqat_block_ap_finish(job));
    }
    eqat_block_ap_free(job);
    const char *a = save_as(b.ctx, b.model, "interrupted");
    tear_down(&b);
    b = set_up(&usual);
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    ck_assert(same_folders(save_as(b.ctx, b.model, "uninterrupted"), a));
    tear_down(&b);
}
END_TEST

START_TEST(tensors_that_the_caller_asked_for_stay_the_callers)
{
    bench b = set_up(&usual);
    eqat_tensor *pinned;
    OK(b.ctx, eqat_model_parameter(b.model, "model.layers.0.self_attn.k_proj.weight", &pinned));
    int64_t n;
    float *before = read_floats(pinned, &n);
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_begin(job));
    OK(b.ctx, eqat_block_ap_step(job, 0, 0, NULL));
    ck_assert_ptr_ne(eqat_block_ap_parameter(job, "self_attn.k_proj.weight"), pinned);
    eqat_block_ap_abandon(job);
    eqat_tensor *same;
    OK(b.ctx, eqat_model_parameter(b.model, "model.layers.0.self_attn.k_proj.weight", &same));
    ck_assert_ptr_eq(same, pinned);
    float *after = read_floats(pinned, &n);
    ck_assert(same_floats(before, after, n));
    ck_assert(!eqat_tensor_requires_grad(pinned));
    free(before);
    free(after);
    OK(b.ctx, eqat_block_ap_run(job));
    eqat_block_ap_free(job);
    const char *a = save_as(b.ctx, b.model, "pinned");
    tear_down(&b);
    b = set_up(&usual);
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    ck_assert(same_folders(save_as(b.ctx, b.model, "not-pinned"), a));
    tear_down(&b);
}
END_TEST

/* ---- bad numbers ---- */

static eqat_status spoil_gradient(void *user, eqat_tensor *const *parameters, size_t count)
{
    (void)user;
    ck_assert_uint_gt(count, 0);
    return eqat_tensor_fill(eqat_tensor_grad(parameters[0]), NAN);
}

START_TEST(numbers_that_are_not_finite_are_told_and_not_learned)
{
    bench b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_begin(job));
    OK(b.ctx, eqat_block_ap_finish(job));
    OK(b.ctx, eqat_block_ap_begin(job));
    int64_t n;
    double loss, norm;
    float *before = read_floats(eqat_block_ap_parameter(job, "mlp.gate_proj.weight"), &n);
    eqat_optimizer_set_grad_callback(eqat_block_ap_optimizer(job), spoil_gradient, NULL);
    OK(b.ctx, eqat_block_ap_step(job, 0, 0, &loss));
    OK(b.ctx, eqat_optimizer_grad_norm(eqat_block_ap_optimizer(job), &norm));
    ck_assert(isnan(norm));
    float *after = read_floats(eqat_block_ap_parameter(job, "mlp.gate_proj.weight"), &n);
    ck_assert(same_floats(before, after, n));
    free(after);
    eqat_optimizer_set_grad_callback(eqat_block_ap_optimizer(job), NULL, NULL);
    OK(b.ctx, eqat_tensor_fill(eqat_block_ap_parameter(job, "input_layernorm.weight"), NAN));
    says(b.ctx, eqat_block_ap_step(job, 0, 2, &loss), EQAT_NUMERIC, "block 1, step 2: loss is nan");
    says(b.ctx, eqat_block_ap_validate(job, &loss), EQAT_NUMERIC,
         "block 1: validation loss is nan");
    after = read_floats(eqat_block_ap_parameter(job, "mlp.gate_proj.weight"), &n);
    ck_assert(same_floats(before, after, n));
    free(before);
    free(after);
    eqat_block_ap_abandon(job);
    OK(b.ctx, eqat_block_ap_run(job)); /* from the file again: all is well */
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

static eqat_status spoil_norm(void *user, eqat_tensor *const *parameters, size_t count)
{
    int64_t *calls = user;
    for (size_t i = 0; i < count && *calls == 2; i++)
        if (eqat_tensor_count(parameters[i]) == HIDDEN)
            ck_assert_int_eq(eqat_tensor_fill(parameters[i], NAN), EQAT_OK);
    ++*calls;
    return EQAT_OK;
}

static void keep_warning(void *user, int32_t level, const char *line)
{
    char *told = user;
    if (level == EQAT_LOG_WARN) snprintf(told, 512, "%s", line);
}

START_TEST(the_loop_tells_the_step_even_when_nobody_watches)
{
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    int64_t calls = 0;
    char told[512] = "";
    eqat_context_options c;
    eqat_context_options_init(&c, sizeof c);
    c.log = keep_warning;
    c.log_user = told;
    c.log_level = EQAT_LOG_WARN;
    eqat_context *ctx;
    ck_assert_int_eq(eqat_context_create(&ctx, &c, NULL, 0), EQAT_OK);
    eqat_model *model = open_model(ctx, "model", EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(ctx, 2, 32);
    eqat_data *data = make_data(ctx, 7, 3, true);
    o.gradient = spoil_norm;
    o.gradient_user = &calls;
    OK(ctx, eqat_block_ap_create(model, &job, quantizer, data, &o));
    OK(ctx, eqat_block_ap_run(job));
    ck_assert_str_eq(told,
                     "block 0, step 3: loss is nan, expected a finite number (epoch 0); block 0 "
                     "goes back to its start, at half the rates (1 of 3)");
    eqat_block_ap_free(job);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_model_free(model);
    eqat_context_free(ctx);
}
END_TEST

static eqat_status refuse_once(void *user, eqat_tensor *const *parameters, size_t count)
{
    int *calls = user;
    (void)parameters;
    (void)count;
    return ++*calls == 1 ? EQAT_BACKEND : EQAT_OK;
}

START_TEST(half_a_step_leaves_nothing)
{
    float *after[2];
    int64_t n;
    for (int i = 0; i < 2; i++) {
        bench b = set_up(&usual);
        eqat_block_ap_options o = fast_options();
        eqat_block_ap *job;
        int calls = i; /* the first one is refused */
        OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
        OK(b.ctx, eqat_block_ap_begin(job));
        eqat_optimizer_set_grad_callback(eqat_block_ap_optimizer(job), refuse_once, &calls);
        if (i == 0)
            says(b.ctx, eqat_block_ap_step(job, 0, 0, NULL), EQAT_BACKEND, "gradient callback");
        for (int64_t step = 1; step < 4; step++) OK(b.ctx, eqat_block_ap_step(job, 0, step, NULL));
        after[i] = read_floats(eqat_block_ap_parameter(job, "mlp.gate_proj.weight"), &n);
        eqat_block_ap_free(job);
        tear_down(&b);
    }
    ck_assert(same_floats(after[0], after[1], n));
    free(after[0]);
    free(after[1]);
}
END_TEST

/* Until finish the model is as it was before begin, whatever the job does with its own copy. */
START_TEST(a_block_in_work_belongs_to_its_job)
{
    bench b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    eqat_e2e_qp_options e = fast_e2e_options();
    eqat_block_ap *job, *other;
    eqat_e2e_qp *e2e;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_create(b.model, &other, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_begin(job));
    says(b.ctx, eqat_block_ap_begin(other), EQAT_INVALID_ARGUMENT, "block 0: found it in work");
    says(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL), EQAT_INVALID_ARGUMENT,
         "block 0: found it in work");
    says(b.ctx, eqat_e2e_qp_create(b.model, &e2e, b.data, &e), EQAT_INVALID_ARGUMENT,
         "block 0: found it in work");
    eqat_perplexity before = {.struct_size = sizeof before}, p = before;
    eqat_model *same = open_model(b.ctx, "model", EQAT_F32), *saved;
    OK(b.ctx, eqat_eval_perplexity(same, b.data, NULL, &before));
    for (int64_t step = 0; step < eqat_block_ap_steps(job); step++)
        OK(b.ctx, eqat_block_ap_step(job, 0, step, NULL));
    OK(b.ctx, eqat_eval_perplexity(b.model, b.data, NULL, &p));
    ck_assert_double_eq(p.nll, before.nll);
    OK(b.ctx, eqat_model_save(b.model, scratch("before"), NULL));
    saved = open_model(b.ctx, "before", EQAT_F32);
    OK(b.ctx, eqat_eval_perplexity(saved, b.data, NULL, &p));
    ck_assert_double_eq(p.nll, before.nll);
    eqat_tensor *mine, *its = eqat_block_ap_parameter(job, "self_attn.q_proj.weight");
    OK(b.ctx, eqat_model_parameter(b.model, "model.layers.0.self_attn.q_proj.weight", &mine));
    ck_assert(its && its != mine);
    eqat_block_ap_abandon(job);
    eqat_model_free(same);
    eqat_model_free(saved);
    OK(b.ctx, eqat_block_ap_begin(other));
    OK(b.ctx, eqat_block_ap_finish(other));
    OK(b.ctx, eqat_model_save(b.model, scratch("in-work"), NULL));
    eqat_block_ap_free(job);
    eqat_block_ap_free(other);
    tear_down(&b);
}
END_TEST

START_TEST(bad_input_is_refused)
{
    write_llama("nan", &small_shape, "model.layers.2.mlp.down_proj.weight");
    eqat_context *ctx = make_context(1, 0);
    eqat_model *model = open_model(ctx, "nan", EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(ctx, 2, 32), *odd = make_quantizer(ctx, 2, 256);
    eqat_data *data = make_data(ctx, 4, 0, false);
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job; /* told before anything is trained */
    for (int again = 0; again < 2; again++)
        says(ctx, eqat_block_ap_create(model, &job, quantizer, data, &o), EQAT_NUMERIC,
             "model.safetensors: tensor model.layers.2.mlp.down_proj.weight: found NaN at element");
    eqat_model_free(model);
    model = open_model(ctx, "model", EQAT_F32);
    says(ctx, eqat_block_ap_quantize(model, odd, data, &o), EQAT_INVALID_ARGUMENT,
         "model.layers.0.self_attn.q_proj");
    OK(ctx, add_rule(quantizer, "model.layers.2.mlp.down_proj", 2, 64));
    says(ctx, eqat_block_ap_create(model, &job, quantizer, data, &o), EQAT_INVALID_ARGUMENT,
         "model.layers.2.mlp.down_proj");
    OK(ctx, add_rule(quantizer, "*", 2, 32));
    o.batch_size = 0;
    says(ctx, eqat_block_ap_quantize(model, quantizer, data, &o), EQAT_INVALID_ARGUMENT,
         "batch_size");
    o = fast_options();
    o.quant_lr = NAN;
    says(ctx, eqat_block_ap_quantize(model, quantizer, data, &o), EQAT_INVALID_ARGUMENT,
         "quant_lr");
    o = fast_options();
    o.offload_dir = scratch("missing");
    says(ctx, eqat_block_ap_quantize(model, quantizer, data, &o), EQAT_IO, "missing");
    eqat_data_options d;
    eqat_data_options_init(&d, sizeof d);
    d.train_size = d.seq_len = 2;
    d.val_size = 0;
    d.sampling = EQAT_SAMPLING_CONSECUTIVE;
    const int32_t ids[] = {1, 2, 3, VOCAB};
    eqat_data *foreign;
    OK(ctx, eqat_data_from_tokens(ctx, &foreign, ids, 4, 0, &d));
    o = fast_options();
    says(ctx, eqat_block_ap_quantize(model, quantizer, foreign, &o), EQAT_INVALID_ARGUMENT,
         "found 96");
    OK(ctx, eqat_block_ap_quantize(model, quantizer, data, &o));
    says(ctx, eqat_block_ap_quantize(model, quantizer, data, &o), EQAT_INVALID_ARGUMENT,
         "packed codes");
    eqat_data_free(foreign);
    eqat_data_free(data);
    eqat_quantizer_free(quantizer);
    eqat_quantizer_free(odd);
    eqat_model_free(model);
    eqat_context_free(ctx);
}
END_TEST

/* ---- mixed precision, memory ---- */

START_TEST(linears_that_are_left_out_train_dense)
{
    bench b = set_up(&usual);
    OK(b.ctx, eqat_quantizer_add_rule(b.quantizer, "*.down_proj", NULL));
    OK(b.ctx, add_rule(b.quantizer, "model.layers.1.*_proj", 4, 16));
    int64_t n, m;
    float *before = parameter_floats(b.ctx, b.model, "model.layers.0.mlp.down_proj.weight", &n);
    eqat_block_ap_options o = fast_options();
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    float *after = parameter_floats(b.ctx, b.model, "model.layers.0.mlp.down_proj.weight", &m);
    ck_assert_int_eq(n, m);
    ck_assert(!same_floats(before, after, n));
    const char *const trained[] = {"model.layers.0.mlp.down_proj.weight",
                                   "model.layers.0.input_layernorm.weight"};
    for (int i = 0; i < 2; i++) {
        eqat_tensor *t;
        OK(b.ctx, eqat_model_parameter(b.model, trained[i], &t));
        ck_assert_msg(!eqat_tensor_requires_grad(t), "%s", trained[i]); /* any more */
    }
    double here = perplexity_of(b.ctx, b.model, b.data);
    eqat_model *again = open_model(b.ctx, save_as(b.ctx, b.model, "mixed"), EQAT_F32);
    ck_assert_double_eq(perplexity_of(b.ctx, again, b.data), here);
    eqat_linear_info info = {.struct_size = sizeof info};
    OK(b.ctx, eqat_model_linear(again, 0, 6, &info));
    ck_assert_int_eq(info.bits, 0);
    OK(b.ctx, eqat_model_linear(again, 1, 6, &info));
    ck_assert_int_eq(info.bits, 4);
    eqat_model_free(again);
    free(before);
    free(after);
    tear_down(&b);
}
END_TEST

/* What trains is rounded to the file's own dtype before the quantized stream goes on, and is what
 * the saved model holds. */
START_TEST(trained_gains_and_dense_weights_keep_the_dtype_of_the_file)
{
    llama_shape half = small_shape;
    half.bf16 = true;
    write_llama("half", &half, NULL);
    for (int compute = 0; compute < 2; compute++) {
        eqat_context *ctx = make_context(2, 0);
        eqat_model *model = open_model(ctx, "half", compute ? EQAT_BF16 : EQAT_F32);
        eqat_quantizer *quantizer = make_quantizer(ctx, 2, 32);
        eqat_data *data = make_data(ctx, 4, 2, false);
        OK(ctx, eqat_quantizer_add_rule(quantizer, "*.down_proj", NULL));
        eqat_block_ap_options o = fast_options();
        OK(ctx, eqat_block_ap_quantize(model, quantizer, data, &o));
        double here = perplexity_of(ctx, model, data);
        eqat_model *file = open_model(ctx, "half", EQAT_F32);
        eqat_model *again = open_model(ctx, save_as(ctx, model, compute ? "half-bf16" : "half-f32"),
                                       compute ? EQAT_BF16 : EQAT_F32);
        ck_assert_double_eq(perplexity_of(ctx, again, data), here);
        const char *const names[] = {"model.layers.1.input_layernorm.weight",
                                     "model.layers.1.mlp.down_proj.weight"};
        for (int i = 0; i < 2; i++) {
            int64_t n;
            float *trained = parameter_floats(ctx, model, names[i], &n),
                  *saved = parameter_floats(ctx, again, names[i], &n);
            float *original = parameter_floats(ctx, file, names[i], &n);
            ck_assert_msg(same_floats(trained, saved, n) && !same_floats(trained, original, n),
                          "%s", names[i]);
            free(trained);
            free(saved);
            free(original);
        }
        eqat_model_free(again);
        eqat_model_free(file);
        eqat_data_free(data);
        eqat_quantizer_free(quantizer);
        eqat_model_free(model);
        eqat_context_free(ctx);
    }
}
END_TEST

/* Weights, gradients, two moments of the block, activations of one batch, streams: and not the
 * embeddings (here larger than the block), nor a second copy of anything. */
START_TEST(peak_memory)
{
    const llama_shape large = {20000, 256, 1024, 2, 4, 4, false};
    const int64_t linears = 4 * 256 * 256 + 3 * 256 * 1024, samples = 6;
    write_llama("large", &large, NULL);
    for (int offload = 0; offload < 2; offload++) {
        eqat_context *ctx = make_context(2, 0);
        eqat_model *model = open_model(ctx, "large", EQAT_F32);
        eqat_quantizer *quantizer = make_quantizer(ctx, 2, 64);
        eqat_data *data = make_data(ctx, samples, 0, false);
        eqat_block_ap_options o = fast_options();
        o.offload_dir = offload ? scratch_dir() : NULL;
        o.epochs = 1;
        eqat_block_ap *job;
        OK(ctx, eqat_block_ap_create(model, &job, quantizer, data, &o));
        eqat_context_reset_peak(ctx);
        size_t before = eqat_context_bytes(ctx);
        ck_assert_uint_lt(before, 2 << 20); /* the table of 20 MB is gone */
        OK(ctx, eqat_block_ap_run(job));
        size_t grown = eqat_context_bytes_peak(ctx) - before;
        size_t masters = (size_t)linears * 16, scales = (size_t)linears / 64 * 2 * 16;
        ck_assert_uint_lt(grown,
                          masters + scales + (4 << 20) +
                              ((size_t)16 << 20)); /* the last: storages kept for reuse */
        ck_assert_uint_gt(grown, masters);
        eqat_block_ap_free(job);
        eqat_data_free(data);
        eqat_quantizer_free(quantizer);
        eqat_model_free(model);
        ck_assert_uint_lt(eqat_context_bytes(ctx),
                          masters / 2); /* scratch of the backend; no weights */
        eqat_context_free(ctx);
    }
}
END_TEST

START_TEST(offloaded_memory_does_not_grow_with_samples)
{
    size_t peak[3]; /* of two batches of a pass, eight, and ten */
    for (int i = 0; i < 3; i++) {
        eqat_context *ctx = make_context(2, 0);
        eqat_model *model = open_model(ctx, "model", EQAT_F32);
        eqat_quantizer *quantizer = make_quantizer(ctx, 2, 32);
        eqat_data *data = make_data(ctx, i == 1 ? 62 : 14, i == 2 ? 66 : 2, false);
        eqat_block_ap_options o = fast_options();
        o.offload_dir = scratch_dir();
        o.epochs = 1;
        eqat_context_reset_peak(ctx);
        size_t before = eqat_context_bytes(ctx);
        OK(ctx, eqat_block_ap_quantize(model, quantizer, data, &o));
        peak[i] = eqat_context_bytes_peak(ctx) - before;
        eqat_data_free(data);
        eqat_quantizer_free(quantizer);
        eqat_model_free(model);
        eqat_context_free(ctx);
    }
    for (int i = 1; i < 3; i++)
        ck_assert_uint_lt(peak[i], peak[0] + 4096); /* a few bytes of order and losses */
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, cancelled_jobs_go_on_to_the_same_bytes);
    tcase_add_test(tc, a_pass_that_was_interrupted_goes_on_where_it_stopped);
    tcase_add_test(tc, tensors_that_the_caller_asked_for_stay_the_callers);
    tcase_add_test(tc, numbers_that_are_not_finite_are_told_and_not_learned);
    tcase_add_test(tc, the_loop_tells_the_step_even_when_nobody_watches);
    tcase_add_test(tc, half_a_step_leaves_nothing);
    tcase_add_test(tc, a_block_in_work_belongs_to_its_job);
    tcase_add_test(tc, bad_input_is_refused);
    tcase_add_test(tc, linears_that_are_left_out_train_dense);
    tcase_add_test(tc, trained_gains_and_dense_weights_keep_the_dtype_of_the_file);
    tcase_add_test(tc, peak_memory);
    tcase_add_test(tc, offloaded_memory_does_not_grow_with_samples);
    return run_case("Block-AP: interruptions, bad input, memory", tc, CK_NOFORK);
}
