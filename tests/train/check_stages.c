/* A few experts at a time: what trains in which stage, what that costs, and what a driver sees. */
#include "public.h"

enum { EXPERTS = 4, STEPS = 4, LAYERS = 2, LINEARS = 4 + 1 + 3 * EXPERTS };

static const setting moe = {
    .threads = 2, .seed = 3, .shuffle = true, .compute = EQAT_F32, .bits = 2, .model = "moe"};

static setting moe_in(eqat_dtype compute)
{
    setting s = moe;
    s.compute = compute;
    return s;
}

static eqat_block_ap_options at_a_time(int64_t experts)
{
    eqat_block_ap_options o = fast_options();
    o.experts_at_a_time = experts;
    return o;
}

static eqat_block_ap *create(bench *b, const eqat_block_ap_options *o)
{
    eqat_block_ap *job;
    OK(b->ctx, eqat_block_ap_create(b->model, &job, b->quantizer, b->data, o));
    return job;
}

static const char *run_and_save(const setting *s, const eqat_block_ap_options *o, const char *name)
{
    bench b = set_up(s);
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, o));
    const char *path = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return path;
}

static void forget(const char *const *names)
{
    for (; *names; names++) remove_dir(scratch(*names));
}

/* ---- how many ---- */

START_TEST(stages_follow_from_the_number_of_experts)
{
    static const int64_t expected[][2] = {{0, 1}, {1, 4}, {2, 2}, {3, 2}, {4, 1}, {9, 1}};
    setting s = moe;
    s.model = "mixed"; /* the second block is dense */
    for (size_t i = 0; i < EQI_COUNT(expected); i++) {
        bench b = set_up(&s);
        eqat_block_ap_options o = at_a_time(expected[i][0]);
        eqat_block_ap *job = create(&b, &o);
        ck_assert_int_eq(eqat_block_ap_stages(job, 0), expected[i][1]);
        ck_assert_int_eq(eqat_block_ap_stages(job, 1), 1);
        ck_assert_int_eq(eqat_block_ap_stages(job, 2), 0);
        ck_assert_int_eq(eqat_block_ap_stages(job, -1), 0);
        ck_assert_int_eq(eqat_block_ap_stage(job), 0);
        eqat_block_ap_free(job);
        o.experts_at_a_time = -1;
        says(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o),
             EQAT_INVALID_ARGUMENT, "experts_at_a_time: found -1");
        tear_down(&b);
    }
}
END_TEST

START_TEST(all_at_a_time_are_all_together)
{
    const setting s = moe_in(_i ? EQAT_BF16 : EQAT_F32);
    const eqat_block_ap_options together = at_a_time(0), all = at_a_time(EXPERTS),
                                one = at_a_time(1);
    const char *expected = run_and_save(&s, &together, "together");
    ck_assert(same_folders(run_and_save(&s, &all, "all"), expected));
    ck_assert(!same_folders(run_and_save(&s, &one, "one"), expected));
    forget((const char *[]){"together", "all", "one", NULL});
}
END_TEST

/* ---- what is trained ---- */

static void all_are_packed(bench *b)
{
    for (int64_t block = 0; block < LAYERS; block++) {
        ck_assert_int_eq(eqat_model_linear_count(b->model, block), LINEARS);
        for (int64_t i = 0; i < LINEARS; i++) {
            eqat_linear_info l = {.struct_size = sizeof l};
            OK(b->ctx, eqat_model_linear(b->model, block, i, &l));
            ck_assert_msg(l.bits == (strstr(l.name, "mlp.gate") ? 0 : 2), "%s", l.name);
        }
    }
}

static void loss_falls_in_every_stage(const eqat_block_ap *job, int64_t epochs)
{
    for (int64_t block = 0; block < LAYERS; block++)
        for (int64_t stage = 0; stage < eqat_block_ap_stages(job, block); stage++) {
            eqat_epoch_report first = {.struct_size = sizeof first}, last = first;
            ck_assert_int_eq(eqat_block_ap_epoch(job, block, stage * epochs, &first), EQAT_OK);
            ck_assert_int_eq(eqat_block_ap_epoch(job, block, (stage + 1) * epochs - 1, &last),
                             EQAT_OK);
            ck_assert_msg(last.train_loss < first.train_loss, "block %d, stage %d: %g, then %g",
                          (int)block, (int)stage, first.train_loss, last.train_loss);
        }
}

START_TEST(every_stage_trains)
{
    const setting s = moe_in(_i % 2 ? EQAT_BF16 : EQAT_F32);
    bench b = set_up(&s), full = set_up(&s), rounded = set_up(&s);
    eqat_block_ap_options o = at_a_time(1 + _i / 2);
    o.epochs = 6;
    eqat_block_ap *job = create(&b, &o);
    OK(b.ctx, eqat_block_ap_run(job));
    loss_falls_in_every_stage(job, o.epochs);
    eqat_block_ap_free(job);
    all_are_packed(&b);
    OK(rounded.ctx, eqat_model_quantize_rtn(rounded.model, rounded.quantizer, NULL));
    double trained = logits_distance(full.model, b.model),
           start = logits_distance(full.model, rounded.model);
    ck_assert_msg(trained < 0.9 * start, "%g rounded, %g trained", start, trained);
    double here = perplexity_of(b.ctx, b.model, b.data),
           plain = perplexity_of(b.ctx, full.model, b.data);
    ck_assert_msg(here < 2 * plain, "perplexity %g, %g in full precision", here, plain);
    const char *path = save_as(b.ctx, b.model, "trained");
    eqat_model *again = open_model(b.ctx, path, s.compute);
    same_logits(b.model, again, 17);
    eqat_model_free(again);
    remove_dir(path);
    tear_down(&b);
    tear_down(&full);
    tear_down(&rounded);
}
END_TEST

START_TEST(threads_change_nothing)
{
    setting s = moe_in(_i ? EQAT_BF16 : EQAT_F32);
    const eqat_block_ap_options o = at_a_time(1);
    const char *two = run_and_save(&s, &o, "two");
    s.threads = 1;
    ck_assert(same_folders(run_and_save(&s, &o, "one"), two));
    s.threads = 3;
    s.offload_dir = scratch_dir();
    ck_assert(same_folders(run_and_save(&s, &o, "three"), two));
    forget((const char *[]){"one", "two", "three", NULL});
}
END_TEST

/* All but expert 2 left as it is: until its stage the block is the full-precision block. */
START_TEST(later_stages_are_full_precision)
{
    const setting s = moe_in(_i ? EQAT_BF16 : EQAT_F32);
    bench b = set_up(&s);
    eqat_block_ap_options o = at_a_time(1);
    o.epochs = 1;
    o.weight_lr = -1;
    OK(b.ctx, eqat_quantizer_add_rule(b.quantizer, "*", NULL));
    OK(b.ctx, add_rule(b.quantizer, "*.experts.2.*", 2, 32));
    eqat_block_ap *job = create(&b, &o);
    OK(b.ctx, eqat_block_ap_begin(job));
    for (int64_t stage = 0; stage < EXPERTS; stage++) {
        double loss, val;
        OK(b.ctx, eqat_block_ap_step(job, stage, 0, &loss));
        ck_assert_int_eq(eqat_block_ap_stage(job), stage);
        OK(b.ctx, eqat_block_ap_validate(job, &val));
        ck_assert((loss > 0) == (stage >= 2));
        ck_assert((val > 0) == (stage >= 2));
    }
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

/* ---- which of them ---- */

static bool same_linear(bench *a, bench *b, const char *local)
{
    static const char *const parts[] = {"codes", "scales", "zeros"};
    bool same = true;
    for (int i = 0; i < 3; i++) {
        char name[128];
        snprintf(name, sizeof name, "model.layers.0.%s.%s", local, parts[i]);
        same = same_parameter(a, b, name) && same;
    }
    return same;
}

static int same_expert(bench *a, bench *b, int expert)
{
    static const char *const linears[] = {"gate_proj", "up_proj", "down_proj"};
    int same = 0;
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "mlp.experts.%d.%s", expert, linears[i]);
        same += same_linear(a, b, name);
    }
    return same;
}

static bool same_rest(bench *a, bench *b)
{
    static const char *const linears[] = {"self_attn.q_proj", "self_attn.k_proj",
                                          "self_attn.v_proj", "self_attn.o_proj"};
    static const char *const others[] = {"input_layernorm.weight",
                                         "post_attention_layernorm.weight",
                                         "self_attn.q_norm.weight", "mlp.gate.weight"};
    int same = 0;
    for (int i = 0; i < 4; i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.0.%s", others[i]);
        same += same_linear(a, b, linears[i]) + same_parameter(a, b, name);
    }
    ck_assert_msg(same == 0 || same == 8, "%d of 8", same);
    return same == 8;
}

static void step_by_step(bench *b, eqat_block_ap *job, int64_t epochs)
{
    for (int64_t e = 0; e < epochs; e++)
        for (int64_t step = 0; step < STEPS; step++)
            OK(b->ctx, eqat_block_ap_step(job, e, step, NULL));
}

/* Block 0 finished behind stage `last`, which is the last one to be trained. */
static bench finish_behind(int64_t last)
{
    bench b = set_up(&moe);
    const eqat_block_ap_options o = at_a_time(1);
    eqat_block_ap *job = create(&b, &o);
    OK(b.ctx, eqat_block_ap_begin(job));
    step_by_step(&b, job, (last + 1) * o.epochs);
    OK(b.ctx, eqat_block_ap_finish(job));
    ck_assert_int_eq(eqat_block_ap_block(job), 1);
    eqat_block_ap_free(job);
    return b;
}

/* Each expert moves in its own stage, all else in the first, and what has trained stays. */
START_TEST(a_stage_trains_what_is_its_own)
{
    bench rounded = set_up(&moe), behind[EXPERTS];
    OK(rounded.ctx, eqat_model_quantize_rtn(rounded.model, rounded.quantizer, NULL));
    for (int last = 0; last < EXPERTS; last++) behind[last] = finish_behind(last);
    ck_assert(!same_rest(&behind[0], &rounded));
    for (int last = 0; last < EXPERTS; last++) {
        ck_assert(same_rest(&behind[last], &behind[0]));
        for (int e = 0; e < EXPERTS; e++) {
            ck_assert_int_eq(same_expert(&behind[last], &behind[EXPERTS - 1], e),
                             e <= last ? 3 : 0);
            ck_assert_int_eq(same_expert(&behind[last], &rounded, e), e <= last ? 0 : 3);
        }
    }
    for (int last = 0; last < EXPERTS; last++) tear_down(&behind[last]);
    tear_down(&rounded);
}
END_TEST

START_TEST(stages_that_are_left_out_keep_their_rounding)
{
    bench b = set_up(&moe), rounded = set_up(&moe);
    OK(rounded.ctx, eqat_model_quantize_rtn(rounded.model, rounded.quantizer, NULL));
    eqat_block_ap_options o = at_a_time(1);
    eqat_block_ap *job = create(&b, &o);
    OK(b.ctx, eqat_block_ap_begin(job));
    for (int64_t step = 0; step < STEPS; step++)
        OK(b.ctx, eqat_block_ap_step(job, 2 * o.epochs, step, NULL));
    OK(b.ctx, eqat_block_ap_finish(job));
    ck_assert_int_eq(eqat_block_ap_stage(job), 0);
    for (int e = 0; e < EXPERTS; e++)
        ck_assert_int_eq(same_expert(&b, &rounded, e), e == 2 ? 0 : 3);
    ck_assert(same_linear(&b, &rounded, "self_attn.q_proj"));
    eqat_block_ap_free(job);
    tear_down(&b);
    tear_down(&rounded);
}
END_TEST

START_TEST(no_epochs_give_round_to_nearest)
{
    eqat_block_ap_options o = at_a_time(1);
    o.epochs = 0;
    bench b = set_up(&moe);
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    const char *path = save_as(b.ctx, b.model, "rtn");
    tear_down(&b);
    ck_assert(same_folders(run_and_save(&moe, &o, "start"), path));
    forget((const char *[]){"rtn", "start", NULL});
}
END_TEST

/* What a caller has changed in the model is what stages begin with, in whatever dtype. */
START_TEST(weights_that_the_caller_keeps_are_used)
{
    static const char *const changed[] = {"model.layers.0.mlp.experts.3.up_proj.weight",
                                          "model.layers.1.mlp.experts.0.down_proj.weight"};
    setting s = moe_in(_i ? EQAT_BF16 : EQAT_F32);
    const eqat_block_ap_options o = at_a_time(1);
    bench b = set_up(&s);
    for (int i = 0; i < 2; i++) {
        eqat_tensor *t;
        OK(b.ctx, eqat_model_parameter(b.model, changed[i], &t));
        OK(b.ctx, eqat_tensor_fill(t, 0.125));
    }
    save_as(b.ctx, b.model, "changed");
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    const char *kept = save_as(b.ctx, b.model, "kept");
    tear_down(&b);
    s.model = "changed";
    eqat_context *ctx = make_context(1, 0);
    eqat_model *x = open_model(ctx, kept, s.compute),
               *y = open_model(ctx, run_and_save(&s, &o, "opened"), s.compute);
    same_logits(x, y, 17);
    eqat_model_free(x);
    eqat_model_free(y);
    eqat_context_free(ctx);
    forget((const char *[]){"changed", "kept", "opened", NULL});
}
END_TEST

/* ---- the loop ---- */

typedef struct watcher {
    eqat_block_ap *job;
    int64_t calls, cancel_at, epochs;
} watcher;

/* Every stage has its own cosine over its own steps. */
static int32_t check_progress(void *user, const eqat_progress *p)
{
    watcher *w = user;
    int64_t steps = w->epochs * STEPS, step = w->calls++;
    ck_assert_int_eq(p->step, step + 1);
    ck_assert_int_eq(p->steps, LAYERS * EXPERTS * steps);
    ck_assert_int_eq(p->block, step / (EXPERTS * steps));
    ck_assert_int_eq(p->epoch, step % (EXPERTS * steps) / STEPS);
    ck_assert_int_eq(p->epochs, EXPERTS * w->epochs);
    ck_assert_int_eq(eqat_block_ap_stage(w->job), step / steps % EXPERTS);
    double share = (double)(step % steps) / (double)steps;
    ck_assert_double_eq_tol(p->lr, 1e-3 * (0.05 + 0.95 * 0.5 * (1 + cos(M_PI * share))), 1e-12);
    return w->calls == w->cancel_at;
}

START_TEST(progress_and_cancellation)
{
    eqat_block_ap_options o = at_a_time(1);
    o.epochs = 3;
    const char *whole = run_and_save(&moe, &o, "whole");
    const int64_t at[] = {0, 13, 48, 61}; /* 12 steps a stage, 48 a block */
    for (size_t i = 0; i < EQI_COUNT(at); i++) {
        bench b = set_up(&moe);
        watcher w = {.cancel_at = at[i], .epochs = o.epochs};
        o.progress = check_progress;
        o.progress_user = &w;
        eqat_block_ap *job = w.job = create(&b, &o);
        if (at[i]) {
            says(b.ctx, eqat_block_ap_run(job), EQAT_CANCELLED, "cancelled");
            ck_assert_int_eq(eqat_block_ap_block(job), (at[i] - 1) / 48);
            w = (watcher){.job = job, .epochs = o.epochs, .calls = (at[i] - 1) / 48 * 48};
        }
        OK(b.ctx, eqat_block_ap_run(job)); /* anew in the block */
        ck_assert_int_eq(w.calls, 96);
        eqat_block_ap_free(job);
        ck_assert(same_folders(save_as(b.ctx, b.model, "again"), whole));
        remove_dir(scratch("again"));
        tear_down(&b);
    }
    remove_dir(whole);
}
END_TEST

/* Where nothing gets better: the first epoch of a stage and early_stop more. */
START_TEST(early_stop_ends_a_stage)
{
    bench b = set_up(&moe);
    eqat_block_ap_options o = at_a_time(2);
    o.epochs = 5;
    o.early_stop = 2;
    o.quant_lr = 1e-30;
    o.weight_lr = -1;
    eqat_block_ap *job = create(&b, &o);
    OK(b.ctx, eqat_block_ap_run(job));
    for (int64_t e = 0; e < 2 * o.epochs; e++) {
        eqat_epoch_report r = {.struct_size = sizeof r};
        eqat_status st = eqat_block_ap_epoch(job, 1, e, &r);
        ck_assert_int_eq(st, e % o.epochs < 3 ? EQAT_OK : EQAT_NOT_FOUND);
    }
    eqat_epoch_report r = {.struct_size = sizeof r};
    says(b.ctx, eqat_block_ap_epoch(job, 1, 2 * o.epochs, &r), EQAT_NOT_FOUND, "epoch 10");
    says(b.ctx, eqat_block_ap_epoch(job, 2, 0, &r), EQAT_NOT_FOUND, "block 2");
    eqat_block_ap_free(job);
    all_are_packed(&b);
    tear_down(&b);
}
END_TEST

/* ---- drivers ---- */

/* With backward and update outside of the job. */
static void pass_by_pass(bench *b, eqat_block_ap *job, int64_t epochs)
{
    eqat_tape *tape;
    OK(b->ctx, eqat_tape_create(b->ctx, &tape));
    for (int64_t i = 0; i < epochs * STEPS; i++) {
        eqat_tensor *y, *target, *loss;
        OK(b->ctx, eqat_block_ap_forward(job, tape, i / STEPS, i % STEPS, &y, &target));
        OK(b->ctx, eqat_op_mse(tape, y, target, &loss));
        OK(b->ctx, eqat_optimizer_backward(eqat_block_ap_optimizer(job), tape, loss));
        eqat_tensor_free(y);
        eqat_tensor_free(target);
        eqat_tensor_free(loss);
    }
    eqat_tape_free(tape);
}

START_TEST(drivers_give_the_same_bytes)
{
    const eqat_block_ap_options o = at_a_time(1 + _i / 2);
    const char *whole = run_and_save(&moe, &o, "whole");
    bench b = set_up(&moe);
    eqat_block_ap *job = create(&b, &o);
    while (eqat_block_ap_block(job) < LAYERS) {
        int64_t epochs = o.epochs * eqat_block_ap_stages(job, eqat_block_ap_block(job));
        OK(b.ctx, eqat_block_ap_begin(job));
        (_i % 2 ? pass_by_pass : step_by_step)(&b, job, epochs);
        OK(b.ctx, eqat_block_ap_finish(job));
    }
    eqat_block_ap_free(job);
    ck_assert(same_folders(save_as(b.ctx, b.model, "driver"), whole));
    tear_down(&b);
    forget((const char *[]){"whole", "driver", NULL});
}
END_TEST

/* Trainable tensors are those of the stage, in the optimizer too. */
START_TEST(a_driver_sees_the_stage)
{
    static const char *const names[] = {
        "mlp.experts.0.up_proj.weight", "mlp.experts.1.up_proj.scales",
        "mlp.experts.2.down_proj.zeros", "mlp.experts.3.gate_proj.weight"};
    static const char *const rest[] = {"self_attn.q_proj.weight", "self_attn.q_proj.scales",
                                       "mlp.gate.weight", "self_attn.q_norm.weight"};
    bench b = set_up(&moe);
    const eqat_block_ap_options o = at_a_time(1);
    eqat_block_ap *job = create(&b, &o);
    OK(b.ctx, eqat_block_ap_begin(job));
    for (int stage = 0; stage < EXPERTS; stage++) {
        OK(b.ctx, eqat_block_ap_step(job, stage * o.epochs + 1, 0, NULL));
        ck_assert_int_eq(eqat_block_ap_stage(job), stage);
        ck_assert_int_eq(eqat_optimizer_steps(eqat_block_ap_optimizer(job)), 1);
        for (int e = 0; e < EXPERTS; e++)
            ck_assert((eqat_block_ap_parameter(job, names[e]) != NULL) == (e == stage));
        for (int i = 0; i < 4; i++)
            ck_assert((eqat_block_ap_parameter(job, rest[i]) != NULL) == (stage == 0));
        if (stage)
            says(b.ctx, eqat_block_ap_step(job, stage * o.epochs - 1, 0, NULL),
                 EQAT_INVALID_ARGUMENT, "which is frozen");
    }
    OK(b.ctx, eqat_block_ap_step(job, 1000, 0, NULL)); /* still the last */
    eqat_block_ap_abandon(job);
    ck_assert_int_eq(eqat_block_ap_stage(job), 0);
    ck_assert_ptr_null(eqat_block_ap_parameter(job, rest[0]));
    OK(b.ctx, eqat_block_ap_begin(job));
    ck_assert_ptr_nonnull(eqat_block_ap_parameter(job, rest[0]));
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

/* Stages that a driver has left behind are not trained again. */
START_TEST(the_loop_goes_on_in_the_stage_of_a_driver)
{
    bench b = set_up(&moe), whole = finish_behind(EXPERTS - 1);
    const eqat_block_ap_options o = at_a_time(1);
    eqat_block_ap *job = create(&b, &o);
    OK(b.ctx, eqat_block_ap_begin(job));
    pass_by_pass(&b, job, 2 * o.epochs);
    if (_i) OK(b.ctx, eqat_block_ap_step(job, 2 * o.epochs, 0, NULL));
    OK(b.ctx, eqat_block_ap_run(job));
    ck_assert(same_rest(&b, &whole));
    for (int e = 0; e < 1 + _i; e++) ck_assert_int_eq(same_expert(&b, &whole, e), 3);
    eqat_block_ap_free(job);
    all_are_packed(&b);
    tear_down(&b);
    tear_down(&whole);
}
END_TEST

/* ---- memory ---- */

enum { WIDE = 4096, EXPERT = 3 * HIDDEN * WIDE }; /* weights */

static size_t peak(int64_t experts)
{
    setting s = moe_in(EQAT_BF16);
    s.model = "wide";
    bench b = set_up(&s);
    eqat_data_free(b.data);
    b.data = make_data(b.ctx, 2, 0, false);
    eqat_block_ap_options o = at_a_time(experts);
    o.epochs = 1;
    eqat_block_ap *job = create(&b, &o);
    eqat_context_reset_peak(b.ctx);
    size_t before = eqat_context_bytes(b.ctx);
    OK(b.ctx, eqat_block_ap_run(job));
    size_t grown = eqat_context_bytes_peak(b.ctx) - before;
    eqat_block_ap_free(job);
    tear_down(&b);
    return grown;
}

/* A master and two moments of a weight take 12 bytes, a weight of another stage takes 2. */
START_TEST(memory_is_that_of_one_stage)
{
    size_t all = peak(0), one = peak(1), saved = (size_t)(EXPERTS - 1) * EXPERT * (12 - 2);
    ck_assert_uint_gt(all, (size_t)EXPERTS * EXPERT * 12);
    ck_assert_msg(all >= one + saved, "%zu together, %zu one at a time", all, one);
}
END_TEST

/* The way to the next stage, and that of the others on finishing, without memory now and then. */
START_TEST(every_request_may_be_refused)
{
    const eqat_block_ap_options o = at_a_time(1);
    bench whole = finish_behind(0);
    counter c = {0};
    bench b = {.ctx = open_counted("cpu", &c)};
    b.ctx->seed = moe.seed;
    b.model = open_model(b.ctx, "moe", EQAT_F32);
    b.quantizer = make_quantizer(b.ctx, 2, 32);
    b.data = make_data(b.ctx, 7, 3, true);
    eqat_block_ap *job = create(&b, &o);
    eqat_tape *tape;
    OK(b.ctx, eqat_tape_create(b.ctx, &tape));
    OK(b.ctx, eqat_block_ap_begin(job));
    step_by_step(&b, job, o.epochs);
    eqat_tensor *y, *target;
    eqat_status st = EQAT_OUT_OF_MEMORY;
    int refused[2] = {0};
    for (size_t n = 1; st != EQAT_OK; n++) {
        c.fail_at = c.requests + n;
        st = eqat_block_ap_forward(job, tape, o.epochs, 0, &y, &target);
        c.fail_at = 0;
        eqat_tape_clear(tape);
        ck_assert(st == EQAT_OK || st == EQAT_OUT_OF_MEMORY);
        refused[0] += st != EQAT_OK;
    }
    eqat_tensor_free(y);
    eqat_tensor_free(target);
    ck_assert_int_eq(eqat_block_ap_stage(job), 1);
    st = EQAT_OUT_OF_MEMORY;
    for (size_t n = 1; st != EQAT_OK; n++) {
        c.fail_at = c.requests + n;
        st = eqat_block_ap_finish(job);
        c.fail_at = 0;
        ck_assert(st == EQAT_OK || st == EQAT_OUT_OF_MEMORY);
        refused[1] += st != EQAT_OK;
    }
    ck_assert_int_gt(refused[0], 20);
    ck_assert_int_gt(refused[1], 20);
    ck_assert(same_rest(&b, &whole));
    for (int e = 0; e < EXPERTS; e++) ck_assert_int_eq(same_expert(&b, &whole, e), 3);
    eqat_tape_free(tape);
    eqat_block_ap_free(job);
    tear_down(&b);
    ck_assert_uint_eq(c.live, 0);
    tear_down(&whole);
}
END_TEST

static void write_models(void)
{
    make_family(EQI_STORED_F32, "moe", "qwen3_moe", "{", "{");
    make_family(EQI_STORED_F32, "mixed", "qwen3_moe-mixed", "{", "{");
    make_family(EQI_STORED_F32, "wide", "qwen3_moe", "\"moe_intermediate_size\": 32",
                "\"moe_intermediate_size\": 4096");
}

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 300);
    tcase_add_unchecked_fixture(tc, write_models, scratch_clean);
    tcase_add_test(tc, stages_follow_from_the_number_of_experts);
    tcase_add_loop_test(tc, all_at_a_time_are_all_together, 0, 2);
    tcase_add_loop_test(tc, every_stage_trains, 0, 4);
    tcase_add_loop_test(tc, threads_change_nothing, 0, 2);
    tcase_add_loop_test(tc, later_stages_are_full_precision, 0, 2);
    tcase_add_test(tc, a_stage_trains_what_is_its_own);
    tcase_add_test(tc, stages_that_are_left_out_keep_their_rounding);
    tcase_add_test(tc, no_epochs_give_round_to_nearest);
    tcase_add_loop_test(tc, weights_that_the_caller_keeps_are_used, 0, 2);
    tcase_add_test(tc, progress_and_cancellation);
    tcase_add_test(tc, early_stop_ends_a_stage);
    tcase_add_loop_test(tc, drivers_give_the_same_bytes, 0, 4);
    tcase_add_test(tc, a_driver_sees_the_stage);
    tcase_add_loop_test(tc, the_loop_goes_on_in_the_stage_of_a_driver, 0, 2);
    tcase_add_test(tc, memory_is_that_of_one_stage);
    tcase_add_test(tc, every_request_may_be_refused);
    return run_case("a few experts at a time", tc, CK_NOFORK);
}
