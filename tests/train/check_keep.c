#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"

/* Which state of a block is kept, and numbers that stop being finite. */

enum { STEPS = 4 }; /* of an epoch of two */

static eqat_block_ap_options options_with(spoiler *s)
{
    eqat_block_ap_options o = fast_options();
    o.gradient = s ? spoil_gradients : NULL;
    o.gradient_user = s;
    return o;
}

/* Of every block's one stage. */
static const char *trained(const char *name, const eqat_block_ap_options *o,
                           eqat_stage_report reports[BLOCKS])
{
    bench b = set_up(&usual);
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, o));
    OK(b.ctx, eqat_block_ap_run(job));
    for (int64_t i = 0; i < BLOCKS && reports; i++) {
        reports[i] = (eqat_stage_report){.struct_size = sizeof *reports};
        OK(b.ctx, eqat_block_ap_stage_report(job, i, 0, &reports[i]));
    }
    eqat_block_ap_free(job);
    const char *path = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return path;
}

static const char *rounded(const char *name)
{
    bench b = set_up(&usual);
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    const char *path = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return path;
}

START_TEST(what_ends_better_than_it_began_is_kept)
{
    eqat_block_ap_options o = fast_options();
    eqat_stage_report r[BLOCKS];
    const char *path = trained("usual", &o, r);
    for (int i = 0; i < BLOCKS; i++) {
        ck_assert_double_lt(r[i].val_loss, r[i].start_loss);
        ck_assert_int_eq(r[i].epoch, o.epochs - 1);
        ck_assert_int_eq(r[i].retries, 0);
    }
    o.keep = EQAT_KEEP_LAST;
    ck_assert(same_folders(trained("last", &o, r), path));
    ck_assert(isnan(r[0].start_loss) && r[0].val_loss > 0);
}
END_TEST

/* Steps never fall, also where the start is made again. */
static int32_t steps_rise(void *user, const eqat_progress *p)
{
    int64_t *last = user;
    ck_assert_int_ge(p->step, *last);
    *last = p->step;
    return 0;
}

/* Uphill all the way. */
START_TEST(what_ends_worse_than_it_began_is_its_rounding)
{
    spoiler s = {.last = INT64_MAX, .factor = -1};
    eqat_block_ap_options o = options_with(&s);
    eqat_stage_report r[BLOCKS];
    int64_t step = 0;
    o.quant_lr = o.weight_lr = 0.02;
    o.between = steps_rise;
    o.between_user = &step;
    const char *path = trained("uphill", &o, r), *rtn = rounded("rtn");
    ck_assert(same_folders(path, rtn));
    o.between = NULL;
    ck_assert_int_eq(step, BLOCKS * o.epochs * STEPS);
    for (int i = 0; i < BLOCKS; i++) {
        ck_assert_int_eq(r[i].epoch, -1);
        ck_assert_double_eq(r[i].val_loss, r[i].start_loss);
    }
    o.keep = EQAT_KEEP_BEST;
    ck_assert(same_folders(trained("best-of-none", &o, r), rtn));
    o.keep = EQAT_KEEP_LAST;
    ck_assert(!same_folders(trained("garbage", &o, r), rtn));
    ck_assert_int_eq(r[0].epoch, o.epochs - 1);
}
END_TEST

/* The first epoch of the schedule's two, by a driver. */
static const char *first_epochs(const char *name, eqat_block_ap_options o)
{
    bench b = set_up(&usual);
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    for (int64_t block = 0; block < BLOCKS; block++) {
        OK(b.ctx, eqat_block_ap_begin(job));
        for (int64_t step = 0; step < STEPS; step++)
            OK(b.ctx, eqat_block_ap_step(job, 0, step, NULL));
        OK(b.ctx, eqat_block_ap_finish(job));
    }
    eqat_block_ap_free(job);
    const char *path = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return path;
}

/* Uphill in every second epoch. */
static eqat_status uphill_later(void *user, eqat_tensor *const *parameters, size_t count)
{
    int64_t *calls = user;
    spoiler s = {.last = *calls / STEPS % 2, .factor = -100};
    ++*calls;
    return spoil_gradients(&s, parameters, count);
}

START_TEST(the_best_epoch_on_request)
{
    int64_t calls = 0;
    eqat_block_ap_options o = fast_options();
    eqat_stage_report r[BLOCKS];
    o.gradient = uphill_later;
    o.gradient_user = &calls;
    o.quant_lr = o.weight_lr = 2e-3;
    o.keep = EQAT_KEEP_BEST;
    const char *path = trained("best", &o, r);
    for (int i = 0; i < BLOCKS; i++) ck_assert_int_eq(r[i].epoch, 0);
    o.gradient = NULL;
    ck_assert(same_folders(first_epochs("first", o), path));
}
END_TEST

typedef struct rates {
    int64_t steps;
    double lr[2]; /* of the first step of block 0, as it began and when it began again */
} rates;

static int32_t see_rate(void *user, const eqat_progress *p)
{
    rates *r = user;
    if (p->step == 1) r->lr[r->steps++ > 0] = p->lr;
    return 0;
}

/* At half the rates from the start again, as if they had been asked for. */
START_TEST(numbers_that_are_not_finite_are_tried_again)
{
    spoiler s = {.first = 1, .last = 2, .factor = NAN};
    eqat_block_ap_options o = options_with(&s);
    eqat_stage_report r[BLOCKS];
    rates seen = {0};
    o.progress = see_rate;
    o.progress_user = &seen;
    const char *path = trained("retried", &o, r);
    ck_assert(seen.steps == 2 && seen.lr[0] == o.quant_lr && seen.lr[1] == o.quant_lr / 2);
    ck_assert_int_eq(r[0].retries, 1);
    ck_assert_int_eq(r[0].epoch, o.epochs - 1);
    ck_assert_int_eq(r[1].retries, 0);
    /* block 0 at half the rates, the others at the whole ones */
    bench b = set_up(&usual);
    eqat_block_ap *job;
    s = (spoiler){0};
    eqat_block_ap_options slow = options_with(&s);
    slow.quant_lr /= 2;
    slow.weight_lr /= 2;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &slow));
    OK(b.ctx, eqat_block_ap_begin(job));
    for (int64_t i = 0; i < slow.epochs * STEPS; i++)
        OK(b.ctx, eqat_block_ap_step(job, i / STEPS, i % STEPS, NULL));
    OK(b.ctx, eqat_block_ap_finish(job));
    eqat_block_ap_free(job);
    int64_t n;
    float *wanted = parameter_floats(b.ctx, b.model, "model.layers.0.mlp.up_proj.scales", &n);
    eqat_model *found = open_model(b.ctx, path, EQAT_F32);
    float *scales = parameter_floats(b.ctx, found, "model.layers.0.mlp.up_proj.scales", &n);
    for (int64_t i = 0; i < n; i++) /* a file may turn a group round */
        ck_assert_float_eq(fabsf(scales[i]), wanted[i]);
    free(wanted);
    free(scales);
    eqat_model_free(found);
    tear_down(&b);
}
END_TEST

static const char *const trains[] = {
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
    "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
    "mlp.down_proj",    "input_layernorm",  "post_attention_layernorm"};

/* All that trains in the block in work, from one job to another. */
static void hand_over(eqat_block_ap *a, bench *to, eqat_block_ap *b)
{
    static const char *const parts[] = {"weight", "scales", "zeros"};
    for (size_t i = 0; i < 7 * 3 + 2; i++) {
        char name[64];
        int64_t n;
        snprintf(name, sizeof name, "%s.%s", trains[i < 21 ? i / 3 : i - 14],
                 parts[i < 21 ? i % 3 : 0]);
        float *x = read_floats(eqat_block_ap_parameter(a, name), &n);
        OK(to->ctx, eqat_tensor_write(eqat_block_ap_parameter(b, name), x, (size_t)n * sizeof *x));
        free(x);
    }
}

/* From the state behind the first epoch, at half the rates. */
START_TEST(with_a_best_state_the_next_try_begins_there)
{
    spoiler s = {.first = STEPS, .last = STEPS + 1, .factor = NAN}, none = {0};
    eqat_block_ap_options o = options_with(&s);
    eqat_stage_report r[BLOCKS];
    o.keep = EQAT_KEEP_BEST;
    const char *path = trained("retried-best", &o, r);
    ck_assert(r[0].retries == 1 && r[0].epoch == o.epochs - 1);
    bench fast = set_up(&usual), slow = set_up(&usual);
    eqat_block_ap *first, *then;
    o = options_with(&none);
    OK(fast.ctx, eqat_block_ap_create(fast.model, &first, fast.quantizer, fast.data, &o));
    OK(fast.ctx, eqat_block_ap_begin(first));
    for (int64_t i = 0; i < STEPS; i++) OK(fast.ctx, eqat_block_ap_step(first, 0, i, NULL));
    o.quant_lr /= 2;
    o.weight_lr /= 2;
    OK(slow.ctx, eqat_block_ap_create(slow.model, &then, slow.quantizer, slow.data, &o));
    OK(slow.ctx, eqat_block_ap_begin(then));
    hand_over(first, &slow, then);
    for (int64_t i = 0; i < o.epochs * STEPS; i++)
        OK(slow.ctx, eqat_block_ap_step(then, i / STEPS, i % STEPS, NULL));
    OK(slow.ctx, eqat_block_ap_finish(then));
    eqat_model *found = open_model(slow.ctx, path, EQAT_F32);
    int64_t n;
    const char name[] = "model.layers.0.mlp.up_proj.scales";
    float *wanted = parameter_floats(slow.ctx, slow.model, name, &n);
    float *scales = parameter_floats(slow.ctx, found, name, &n);
    for (int64_t i = 0; i < n; i++) /* a file may turn a group round */
        ck_assert_float_eq(fabsf(scales[i]), wanted[i]);
    free(wanted);
    free(scales);
    eqat_model_free(found);
    eqat_block_ap_free(first);
    eqat_block_ap_free(then);
    tear_down(&fast);
    tear_down(&slow);
}
END_TEST

START_TEST(numbers_that_stay_so_leave_the_rounding)
{
    spoiler s = {.last = INT64_MAX, .factor = INFINITY};
    eqat_block_ap_options o = options_with(&s);
    eqat_stage_report r[BLOCKS];
    const char *rtn = rounded("rtn-again");
    for (int keep = 0; keep < 3; keep++) {
        o.keep = keep;
        const char *path = trained("never", &o, r);
        ck_assert(same_folders(path, rtn));
        for (int i = 0; i < BLOCKS; i++) ck_assert(r[i].retries == 3 && r[i].epoch == -1);
        remove_dir(path);
    }
}
END_TEST

/* The gradient callbacks count on. */
static const char *interrupted(eqat_block_ap_options o, int64_t at)
{
    bench b = set_up(&usual);
    saver s = {.ctx = b.ctx, .path = scratch("state"), .at = at};
    eqat_block_ap *job;
    o.progress = save_and_cancel;
    o.progress_user = &s;
    OK(b.ctx, eqat_block_ap_create(b.model, &s.block_ap, b.quantizer, b.data, &o));
    says(b.ctx, eqat_block_ap_run(s.block_ap), EQAT_CANCELLED, "cancelled");
    eqat_block_ap_free(s.block_ap);
    tear_down(&b);
    b = set_up(&usual);
    o.progress = NULL;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_load(job, s.path));
    OK(b.ctx, eqat_block_ap_run(job));
    eqat_block_ap_free(job);
    const char *path = save_as(b.ctx, b.model, "interrupted");
    tear_down(&b);
    return path;
}

START_TEST(a_state_knows_tries_and_the_best)
{
    spoiler s = {.first = 1, .last = 2, .factor = NAN};
    int64_t calls = 0;
    eqat_block_ap_options o = options_with(&s);
    const char *whole = trained("whole-tries", &o, NULL), *parts;
    s.calls = 0;
    parts = interrupted(o, STEPS - 1 + 2); /* in the second try */
    ck_assert(same_folders(parts, whole));
    remove_dir(parts);
    o.gradient = uphill_later;
    o.gradient_user = &calls;
    o.quant_lr = o.weight_lr = 2e-3;
    o.keep = EQAT_KEEP_BEST;
    whole = trained("whole-best", &o, NULL);
    for (int64_t at = STEPS; at <= 2 * STEPS; at += 2) { /* in the epoch that is not kept */
        calls = 0;
        parts = interrupted(o, at);
        ck_assert(same_folders(parts, whole));
        remove_dir(parts);
    }
}
END_TEST

/* Weights that no scale of fp16 reaches, and scales that are not numbers. */
START_TEST(what_must_become_garbage_is_refused)
{
    const char *const name = "model.layers.1.mlp.up_proj.weight";
    bench b = set_up(&usual);
    eqat_tensor *w;
    int64_t n;
    OK(b.ctx, eqat_model_parameter(b.model, name, &w));
    float *x = read_floats(w, &n);
    for (int64_t i = 0; i < n; i++) x[i] *= 1e20f;
    OK(b.ctx, eqat_tensor_write(w, x, (size_t)n * sizeof *x));
    free(x);
    says(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL), EQAT_NUMERIC,
         "model.layers.1.mlp.up_proj: found 192 of 192 scales of 65504 or more, expected what fp16 "
         "stores, up to 65504");
    tear_down(&b);
    b = set_up(&usual);
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, NULL));
    OK(b.ctx, eqat_block_ap_begin(job));
    OK(b.ctx, eqat_tensor_fill(eqat_block_ap_parameter(job, "mlp.up_proj.scales"), NAN));
    says(b.ctx, eqat_block_ap_finish(job), EQAT_NUMERIC, "scales that are nan");
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

/* A step, and what fp16 takes from the range by rounding it. */
static float allowed(const float *w, int n, int bits, float step)
{
    float low = 0, high = 0, top = (float)((1 << bits) - 1);
    for (int i = 0; i < n; i++) {
        low = fminf(low, w[i]);
        high = fmaxf(high, w[i]);
    }
    return 1.001f * step + (high > low ? fabsf(high - low - top * step) : 0);
}

/* Constant, one-sided, all zero, one huge outlier, tiny: no weight is further off than its group's
 * step allows, and nothing is NaN. */
START_TEST(odd_groups_err_by_a_step_at_most)
{
    enum { ROWS = 6, WIDTH = 32 };
    const int64_t shape[2] = {ROWS, WIDTH};
    for (int bits = 2; bits <= 8; bits++)
        for (int init = 0; init < 2; init++) {
            eqat_context *ctx = make_context(1, 0);
            eqat_quantizer_options o;
            eqat_quantizer *q;
            eqat_tensor *t, *s, *z, *codes, *back;
            float w[ROWS * WIDTH];
            int64_t n;
            for (int i = 0; i < WIDTH; i++) {
                w[i] = 0.3f;
                w[WIDTH + i] = -1 - 0.01f * (float)i;
                w[2 * WIDTH + i] = 0;
                w[3 * WIDTH + i] = i == 7 ? 3e4f : 0.01f * (float)(i - 16);
                w[4 * WIDTH + i] = 1e-5f * (float)(i - 16);
                w[5 * WIDTH + i] = i % 2 ? 1e4f : -2e4f;
            }
            eqat_quantizer_options_init(&o, sizeof o);
            o.bits = bits;
            o.group_size = WIDTH;
            o.init = init;
            OK(ctx, eqat_quantizer_create(ctx, &q, &o));
            OK(ctx, eqat_tensor_create(ctx, &t, EQAT_F32, 2, shape, w));
            OK(ctx, eqat_quantizer_quantize(q, t, &s, &z, &codes));
            OK(ctx, eqat_quantizer_dequantize(q, codes, s, z, EQAT_F32, &back));
            float *steps = read_floats(s, &n), *found = read_floats(back, &n);
            for (int i = 0; i < ROWS * WIDTH; i++) {
                ck_assert(isfinite(found[i]));
                if (init == 0)
                    ck_assert_float_le(
                        fabsf(found[i] - w[i]),
                        allowed(w + i / WIDTH * WIDTH, WIDTH, bits, steps[i / WIDTH]));
            }
            free(steps);
            free(found);
            eqat_tensor *used[] = {t, s, z, codes, back};
            for (int i = 0; i < 5; i++) eqat_tensor_free(used[i]);
            eqat_quantizer_free(q);
            eqat_context_free(ctx);
        }
}
END_TEST

START_TEST(what_cannot_be_judged_is_refused)
{
    bench b = set_up(&usual);
    eqat_data *blind = make_data(b.ctx, 7, 0, false);
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    eqat_stage_report r = {.struct_size = sizeof r};
    o.keep = EQAT_KEEP_BEST;
    says(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, blind, &o), EQAT_INVALID_ARGUMENT,
         "keep: found best without validation samples");
    o.keep = EQAT_KEEP_START_OR_LAST;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, blind, &o));
    says(b.ctx, eqat_block_ap_stage_report(job, 0, 0, &r), EQAT_NOT_FOUND, "stage 0: no report");
    OK(b.ctx, eqat_block_ap_run(job));
    OK(b.ctx, eqat_block_ap_stage_report(job, BLOCKS - 1, 0, &r));
    ck_assert(isnan(r.start_loss) && isnan(r.val_loss) && r.epoch == o.epochs - 1);
    says(b.ctx, eqat_block_ap_stage_report(job, BLOCKS, 0, &r), EQAT_NOT_FOUND, "no report");
    says(b.ctx, eqat_block_ap_stage_report(job, 0, 1, &r), EQAT_NOT_FOUND, "no report");
    eqat_block_ap_free(job);
    eqat_data_free(blind);
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, what_ends_better_than_it_began_is_kept);
    tcase_add_test(tc, what_ends_worse_than_it_began_is_its_rounding);
    tcase_add_test(tc, the_best_epoch_on_request);
    tcase_add_test(tc, numbers_that_are_not_finite_are_tried_again);
    tcase_add_test(tc, with_a_best_state_the_next_try_begins_there);
    tcase_add_test(tc, numbers_that_stay_so_leave_the_rounding);
    tcase_add_test(tc, a_state_knows_tries_and_the_best);
    tcase_add_test(tc, what_cannot_be_judged_is_refused);
    tcase_add_test(tc, what_must_become_garbage_is_refused);
    tcase_add_test(tc, odd_groups_err_by_a_step_at_most);
    return run_case("what is kept", tc, CK_NOFORK);
}
