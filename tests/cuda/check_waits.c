/* How often a training step stops the host, by the report of tests/hostcuda: HOSTCUDA_REPORT names
 * a file with a line for each wait, "drain ..." when the device is left with nothing to do. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"

typedef struct waits {
    int drains, others;
} waits;

/* So far; those from line `from` on are told, for the log of a failure. */
static waits count_from(int from)
{
    waits w = {0};
    char line[256];
    FILE *f = fopen(getenv("HOSTCUDA_REPORT"), "r");
    ck_assert_ptr_nonnull(f);
    for (int i = 0; fgets(line, sizeof line, f); i++) {
        *(strncmp(line, "drain ", 6) ? &w.others : &w.drains) += 1;
        if (from >= 0 && i >= from) fputs(line, stderr);
    }
    fclose(f);
    return w;
}

static waits count(void) { return count_from(-1); }

static void expect(waits before, int drains, int others)
{
    waits now = count();
    if (now.drains - before.drains != drains || now.others - before.others != others)
        count_from(before.drains + before.others);
    ck_assert_int_eq(now.drains - before.drains, drains);
    ck_assert_int_eq(now.others - before.others, others);
}

/* What counts is seen: uploads wait for nothing, a download does. */
START_TEST(a_download_leaves_nothing_to_do)
{
    eqat_context *ctx = make_context(1, 1);
    const int64_t n = 10000;
    eqat_tensor *t;
    float *values;
    int64_t found;
    OK(ctx, eqat_tensor_create(ctx, &t, EQAT_F32, 1, &n, NULL));
    OK(ctx, eqat_tensor_fill(t, 1));
    values = read_floats(t, &found);
    OK(ctx, eqat_tensor_write(t, values, (size_t)n * sizeof *values)); /* makes the ring */
    waits before = count();
    for (int i = 0; i < 3; i++) OK(ctx, eqat_tensor_write(t, values, (size_t)n * sizeof *values));
    expect(before, 0, 0);
    free(read_floats(t, &found));
    ck_assert_int_gt(count().drains, before.drains);
    free(values);
    eqat_tensor_free(t);
    eqat_context_free(ctx);
}
END_TEST

/* ---- steps that a driver takes ---- */

static void drive(const setting *s)
{
    bench b = set_up(s);
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    double loss;
    o.offload_dir = s->offload_dir;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_begin(job));
    OK(b.ctx, eqat_block_ap_step(job, 0, 0, NULL)); /* makes what the others use again */
    OK(b.ctx, eqat_block_ap_step(job, 0, 1, &loss));
    waits before = count();
    OK(b.ctx, eqat_block_ap_step(job, 0, 2, NULL));
    OK(b.ctx, eqat_block_ap_step(job, 1, 0, NULL));
    expect(before, 0, 0);
    OK(b.ctx, eqat_block_ap_step(job, 1, 1, &loss));
    expect(before, 0, 1);
    ck_assert(isfinite(loss));
    eqat_block_ap_free(job);
    tear_down(&b);
}

START_TEST(a_step_of_block_ap_waits_for_its_loss_alone)
{
    setting s = usual;
    drive(&s);
    s.compute = EQAT_BF16;
    drive(&s);
    s.offload_dir = scratch_dir();
    drive(&s);
}
END_TEST

/* _i: whether its state waits on the host. */
START_TEST(a_micro_batch_of_e2e_qp_waits_for_its_loss_alone)
{
    bench b = set_up(&usual);
    eqat_e2e_qp_options o = fast_e2e_options();
    eqat_e2e_qp *job;
    double loss;
    o.epochs = 2;
    o.host_state = _i;
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    OK(b.ctx, eqat_e2e_qp_accumulate(job, 0, 0, &loss));
    OK(b.ctx, eqat_e2e_qp_accumulate(job, 1, 1, NULL)); /* of one sample: inputs of its own size */
    OK(b.ctx, eqat_e2e_qp_step(job));
    waits before = count();
    OK(b.ctx, eqat_e2e_qp_accumulate(job, 1, 0, NULL));
    OK(b.ctx, eqat_e2e_qp_accumulate(job, 1, 1, NULL));
    OK(b.ctx, eqat_e2e_qp_step(job));
    expect(before, 0, 0);
    OK(b.ctx, eqat_e2e_qp_accumulate(job, 2, 0, &loss));
    expect(before, 0, 1);
    ck_assert(isfinite(loss));
    eqat_e2e_qp_free(job);
    tear_down(&b);
}
END_TEST

/* ---- steps that the loops take and report ---- */

typedef struct watched_waits {
    waits before;
    int64_t block, epoch, steps; /* steps that were looked at */
    int each;                    /* waits of a step that leave the device something to do */
} watched_waits;

/* Between the reports of two steps without a validation, or a change of block, between them. */
static int32_t watch(void *user, const eqat_progress *p)
{
    watched_waits *w = user;
    if (p->block == w->block && p->epoch == w->epoch && isnan(p->val_loss)) {
        expect(w->before, 0, w->each);
        w->steps++;
    }
    w->block = p->block;
    w->epoch = p->epoch;
    w->before = count();
    return 0;
}

START_TEST(reports_of_block_ap_leave_the_device_at_work)
{
    watched_waits w = {.block = -1, .each = 1};
    bench b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    o.progress = watch;
    o.progress_user = &w;
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, b.data, &o));
    ck_assert_int_eq(w.steps, BLOCKS * 2 * 2); /* of 4 steps an epoch those in the middle */
    tear_down(&b);
}
END_TEST

/* The loss, before the scales are kept, and the norm. */
START_TEST(reports_of_e2e_qp_leave_the_device_at_work)
{
    watched_waits w = {.block = -1, .each = 2};
    bench b = set_up(&usual);
    eqat_data *data = make_data(b.ctx, 16, 0, true);
    eqat_e2e_qp_options o = fast_e2e_options();
    o.epochs = 2;
    o.host_state = _i;
    o.progress = watch;
    o.progress_user = &w;
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    OK(b.ctx, eqat_e2e_qp_train(b.model, data, &o));
    ck_assert_int_eq(w.steps, 2 * 3);
    eqat_data_free(data);
    tear_down(&b);
}
END_TEST

/* ---- passes of the streams ---- */

typedef struct watched_pass {
    waits before;
    char work[16];
    int64_t block, batch, batches; /* the last; how many were looked at */
} watched_pass;

/* Between two batches in the middle of a pass: what the batch before has given comes while the
 * device is at the next one. A validation asks for nothing before its end. */
static int32_t watch_pass(void *user, const eqat_progress *p)
{
    watched_pass *w = user;
    bool moves = !strcmp(p->work, "targets") || !strcmp(p->work, "inputs");
    bool goes_on = !strcmp(p->work, w->work) && p->block == w->block && p->batch == w->batch + 1;
    if (goes_on && p->batch >= 2 && (moves || !strcmp(p->work, "validate"))) {
        expect(w->before, 0, moves);
        w->batches++;
    }
    snprintf(w->work, sizeof w->work, "%s", p->work);
    w->block = p->block;
    w->batch = p->batch;
    w->before = count();
    return 0;
}

/* _i: whether activations are in files. */
START_TEST(passes_leave_the_device_at_work)
{
    watched_pass w = {0};
    bench b = set_up(&usual);
    eqat_block_ap_options o = fast_options();
    eqat_data *data = make_data(b.ctx, 26, 6, true); /* four batches of a pass */
    if (_i) o.offload_dir = scratch_dir();
    o.between = watch_pass;
    o.between_user = &w;
    OK(b.ctx, eqat_block_ap_quantize(b.model, b.quantizer, data, &o));
    ck_assert_int_ge(w.batches, (BLOCKS + BLOCKS - 1) * 2);
    eqat_data_free(data);
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("waits");
    tcase_add_unchecked_fixture(c, write_small_model, scratch_clean);
    tcase_add_test(c, a_download_leaves_nothing_to_do);
    tcase_add_test(c, a_step_of_block_ap_waits_for_its_loss_alone);
    tcase_add_loop_test(c, a_micro_batch_of_e2e_qp_waits_for_its_loss_alone, 0, 2);
    tcase_add_test(c, reports_of_block_ap_leave_the_device_at_work);
    tcase_add_loop_test(c, reports_of_e2e_qp_leave_the_device_at_work, 0, 2);
    tcase_add_loop_test(c, passes_leave_the_device_at_work, 0, 2);
    return run_case("waits", c, CK_NOFORK);
}
