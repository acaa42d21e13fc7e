/* What waits in pinned memory of the host: finished blocks of Block-AP, the state of E2E-QP. It
 * changes no byte of a result, and is back where somebody needs it. */
#include <math.h>

#include "model/model.h"
#include "public.h"

/* ---- finished blocks ---- */

static const eqi_weight *packed(const bench *b, int64_t block, int linear)
{
    return &b->model->blocks[block].linears[linear].weight;
}

static bool waits(const eqi_tensor *t) { return t->storage->pinned; }

/* While a resumed job moves its stream through block 0, block 1 has not been needed yet. */
static int32_t watch_resume(void *user, const eqat_progress *p)
{
    const bench *b = user;
    if (!strcmp(p->work, "resume") && p->block == 0 && packed(b, 0, 0)->codes)
        ck_assert(waits(packed(b, 1, 0)->codes));
    return 0;
}

static eqat_block_ap *begin_job(bench *b)
{
    eqat_block_ap_options o = fast_options();
    eqat_block_ap *job;
    o.between = watch_resume;
    o.between_user = b;
    OK(b->ctx, eqat_block_ap_create(b->model, &job, b->quantizer, b->data, &o));
    return job;
}

static void train_block(bench *b, eqat_block_ap *job)
{
    OK(b->ctx, eqat_block_ap_begin(job));
    OK(b->ctx, eqat_block_ap_step(job, 0, 0, NULL));
    OK(b->ctx, eqat_block_ap_finish(job));
}

START_TEST(a_finished_block_waits_until_a_pass_needs_it)
{
    bench b = set_up(&usual);
    eqat_block_ap *job = begin_job(&b);
    size_t n;
    train_block(&b, job);
    float *before = logits_of(b.model, TIME, &n), *after;
    const eqi_weight *w = packed(&b, 0, 0);
    ck_assert(!waits(w->codes));
    OK(b.ctx, eqat_block_ap_begin(job));
    ck_assert(waits(w->codes) && waits(w->s) && waits(w->z));
    ck_assert(waits(b.model->blocks[0].norms[0].gain));
    after = logits_of(b.model, TIME, &n);
    ck_assert(!waits(w->codes) && !waits(b.model->blocks[0].norms[0].gain));
    ck_assert_mem_eq(before, after, n);
    free(before);
    free(after);
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

START_TEST(what_was_handed_out_stays)
{
    bench b = set_up(&usual);
    eqat_block_ap *job = begin_job(&b);
    int64_t n;
    eqat_tensor *s;
    train_block(&b, job);
    OK(b.ctx, eqat_model_parameter(b.model, "model.layers.0.mlp.up_proj.scales", &s));
    train_block(&b, job);
    OK(b.ctx, eqat_block_ap_begin(job));
    ck_assert(!waits(packed(&b, 0, 0)->codes));
    ck_assert(waits(packed(&b, 1, 0)->codes));
    OK(b.ctx, eqat_tensor_fill(s, 1));
    float *values = read_floats(s, &n);
    ck_assert(values[0] == 1 && values[n - 1] == 1);
    free(values);
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

/* Through block 0, whose weights the tape holds, to its input; a block begins on the way when
 * `job` is one. */
static float *gradient_of_input(bench *b, eqat_block_ap *job, int64_t *n)
{
    const int64_t shape[3] = {1, TIME, HIDDEN};
    eqat_batch batch;
    eqat_tape *tape;
    eqat_tensor *x, *y, *ones;
    eqat_batch_init(&batch, sizeof batch);
    batch.batch = 1;
    batch.time = TIME;
    batch.keep_activations = true;
    OK(b->ctx, eqat_tape_create(b->ctx, &tape));
    OK(b->ctx, eqat_tensor_create(b->ctx, &x, EQAT_F32, 3, shape, NULL));
    OK(b->ctx, eqat_tensor_create(b->ctx, &ones, EQAT_F32, 3, shape, NULL));
    OK(b->ctx, eqat_tensor_fill(x, 0.5));
    OK(b->ctx, eqat_tensor_fill(ones, 1));
    x->requires_grad = true;
    OK(b->ctx, eqat_model_block(b->model, tape, 0, x, &batch, &y));
    if (job) OK(b->ctx, eqat_block_ap_begin(job));
    OK(b->ctx, eqat_tape_backward_from(tape, y, ones));
    float *values = read_floats(x->grad, n);
    eqat_tensor_free(x);
    eqat_tensor_free(y);
    eqat_tensor_free(ones);
    eqat_tape_free(tape);
    return values;
}

START_TEST(what_a_tape_holds_stays)
{
    bench b = set_up(&usual);
    eqat_block_ap *job = begin_job(&b);
    int64_t n;
    train_block(&b, job);
    float *wanted = gradient_of_input(&b, NULL, &n), *found = gradient_of_input(&b, job, &n);
    ck_assert_mem_eq(wanted, found, (size_t)n * sizeof *wanted);
    free(wanted);
    free(found);
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

START_TEST(a_resumed_job_has_its_finished_blocks_on_the_host)
{
    const char *state = scratch("job.state");
    bench b = set_up(&usual), other = set_up(&usual);
    eqat_block_ap *job = begin_job(&b), *resumed = begin_job(&other);
    train_block(&b, job);
    train_block(&b, job);
    OK(b.ctx, eqat_block_ap_save(job, state));
    OK(other.ctx, eqat_block_ap_load(resumed, state));
    ck_assert(waits(packed(&other, 0, 0)->codes) && waits(packed(&other, 1, 0)->codes));
    train_block(&b, job);
    train_block(&other, resumed);
    ck_assert(same_folders(save_as(b.ctx, b.model, "one"), save_as(other.ctx, other.model, "two")));
    eqat_block_ap_free(job);
    eqat_block_ap_free(resumed);
    tear_down(&b);
    tear_down(&other);
}
END_TEST

/* ---- the state of E2E-QP ---- */

static eqat_e2e_qp_options e2e_options(bool host_state)
{
    eqat_e2e_qp_options o = fast_e2e_options();
    o.host_state = host_state;
    o.keep = EQAT_KEEP_LAST;
    o.epochs = 2;
    return o;
}

static const char *trained(const setting *s, const eqat_e2e_qp_options *o, const char *name)
{
    bench b = set_up(s);
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    OK(b.ctx, eqat_e2e_qp_train(b.model, b.data, o));
    const char *path = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return path;
}

START_TEST(host_state_changes_no_byte)
{
    static const int32_t params[] = {EQAT_E2E_S, EQAT_E2E_SZ, EQAT_E2E_Z};
    setting s = usual;
    eqat_e2e_qp_options o = e2e_options(false);
    s.compute = _i ? EQAT_BF16 : EQAT_F32;
    o.params = params[_i];
    o.train_norms = _i == 1;
    o.keep = _i ? EQAT_KEEP_BEST : EQAT_KEEP_START_OR_LAST;
    const char *without = trained(&s, &o, "without");
    o.host_state = true;
    ck_assert(same_folders(without, trained(&s, &o, "with")));
}
END_TEST

/* A step with, or without, saved; the rest the other way round. */
START_TEST(a_state_goes_on_with_or_without)
{
    const char *state = scratch("job.state");
    eqat_e2e_qp_options o = e2e_options(_i);
    bench b = set_up(&usual);
    eqat_e2e_qp *job;
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    for (int64_t micro = 0; micro < eqat_e2e_qp_micro_steps(job, 0); micro++)
        OK(b.ctx, eqat_e2e_qp_accumulate(job, 0, micro, NULL));
    OK(b.ctx, eqat_e2e_qp_step(job));
    OK(b.ctx, eqat_e2e_qp_save(job, state));
    eqat_e2e_qp_free(job);
    o.host_state = !_i;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    OK(b.ctx, eqat_e2e_qp_load(job, state));
    OK(b.ctx, eqat_e2e_qp_run(job));
    eqat_e2e_qp_free(job);
    ck_assert(same_folders(trained(&usual, &o, "whole"), save_as(b.ctx, b.model, "resumed")));
    tear_down(&b);
}
END_TEST

START_TEST(an_unfinished_job_leaves_what_it_found)
{
    eqat_e2e_qp_options o = e2e_options(true);
    bench b = set_up(&usual);
    eqat_e2e_qp *job;
    size_t n;
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    float *before = logits_of(b.model, TIME, &n), *after;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    for (int i = 0; i < 2; i++) { /* the first has a rate of 0 */
        OK(b.ctx, eqat_e2e_qp_accumulate(job, i, 0, NULL));
        OK(b.ctx, eqat_e2e_qp_step(job));
    }
    after = logits_of(b.model, TIME, &n);
    ck_assert(memcmp(before, after, n) != 0);
    free(after);
    eqat_e2e_qp_free(job);
    after = logits_of(b.model, TIME, &n);
    ck_assert_mem_eq(before, after, n);
    free(before);
    free(after);
    tear_down(&b);
}
END_TEST

int main(void)
{
    TCase *c = tcase_create("on_host");
    tcase_add_checked_fixture(c, write_small_model, scratch_clean);
    tcase_add_test(c, a_finished_block_waits_until_a_pass_needs_it);
    tcase_add_test(c, what_was_handed_out_stays);
    tcase_add_test(c, what_a_tape_holds_stays);
    tcase_add_test(c, a_resumed_job_has_its_finished_blocks_on_the_host);
    tcase_add_loop_test(c, host_state_changes_no_byte, 0, 3);
    tcase_add_loop_test(c, a_state_goes_on_with_or_without, 0, 2);
    tcase_add_test(c, an_unfinished_job_leaves_what_it_found);
    return run_case("on_host", c, CK_NOFORK);
}
