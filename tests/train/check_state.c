#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "public.h"

/* A job that is interrupted, saved, and loaded by a new one in a new context ends with the bytes of
 * one that was not. */

/* ---- Block-AP ---- */

enum { STEPS = 4, EPOCHS = 3, STAGES = 4 };

typedef struct variant {
    setting s;
    int32_t zero_point;
    const char *left; /* a linear that is left as it is, or NULL */
    int64_t early_stop, experts_at_a_time;
    double lr;
    bool relative; /* rates by themselves, in units of what trains as it began */
} variant;

static bench set_up_variant(const variant *v)
{
    bench b = set_up(&v->s);
    eqat_quantizer_options o;
    eqat_quantizer_options_init(&o, sizeof o);
    o.bits = v->s.bits;
    o.group_size = 32;
    o.zero_point = v->zero_point;
    o.init = v->s.init;
    eqat_quantizer_free(b.quantizer);
    OK(b.ctx, eqat_quantizer_create(b.ctx, &b.quantizer, &o));
    if (v->left) OK(b.ctx, add_rule(b.quantizer, v->left, 0, 0));
    return b;
}

static eqat_block_ap_options options_of(const variant *v)
{
    eqat_block_ap_options o = fast_options();
    o.epochs = EPOCHS;
    o.early_stop = v->early_stop;
    o.experts_at_a_time = v->experts_at_a_time;
    if (v->lr > 0) o.quant_lr = o.weight_lr = v->lr;
    if (v->relative) {
        o.lr_unit = EQAT_LR_RELATIVE;
        o.quant_lr = o.weight_lr = 0;
    }
    o.offload_dir = v->s.offload_dir;
    o.offload_memory = v->s.offload_memory;
    return o;
}

typedef struct reports {
    double loss[BLOCKS][EPOCHS * STAGES][2]; /* NaN: none */
} reports;

static reports reports_of(const eqat_block_ap *job)
{
    reports r;
    for (int64_t b = 0; b < BLOCKS; b++)
        for (int64_t e = 0; e < EPOCHS * STAGES; e++) {
            eqat_epoch_report one = {.struct_size = sizeof one};
            bool there = eqat_block_ap_epoch(job, b, e, &one) == EQAT_OK;
            r.loss[b][e][0] = there ? one.train_loss : (double)NAN;
            r.loss[b][e][1] = there ? one.val_loss : (double)NAN;
        }
    return r;
}

static bool same_reports(const reports *a, const reports *b)
{
    const double *x = &a->loss[0][0][0], *y = &b->loss[0][0][0];
    for (size_t i = 0; i < sizeof *a / sizeof *x; i++)
        if (!(x[i] == y[i] || (isnan(x[i]) && isnan(y[i])))) return false;
    return true;
}

static const char *uninterrupted(const variant *v, reports *r)
{
    bench b = set_up_variant(v);
    eqat_block_ap_options o = options_of(v);
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_run(job));
    *r = reports_of(job);
    eqat_block_ap_free(job);
    const char *path = save_as(b.ctx, b.model, "uninterrupted");
    tear_down(&b);
    return path;
}

/* At call `at` of the callback; 0: after one block of a driver; -1: on the way out of one. */
static void interrupt(const variant *v, int64_t at, const char *path)
{
    bench b = set_up_variant(v);
    eqat_block_ap_options o = options_of(v);
    saver s = {.ctx = b.ctx, .path = path, .at = at};
    o.progress = save_and_cancel;
    o.progress_user = &s;
    OK(b.ctx, eqat_block_ap_create(b.model, &s.block_ap, b.quantizer, b.data, &o));
    if (at > 0) {
        says(b.ctx, eqat_block_ap_run(s.block_ap), EQAT_CANCELLED, "cancelled");
    } else {
        OK(b.ctx, eqat_block_ap_begin(s.block_ap));
        for (int64_t i = 0; i < EPOCHS * STEPS; i++)
            OK(b.ctx, eqat_block_ap_step(s.block_ap, i / STEPS, i % STEPS, NULL));
        if (at < 0) {
            eqat_context_cancel(b.ctx);
            says(b.ctx, eqat_block_ap_finish(s.block_ap), EQAT_CANCELLED, "cancelled");
        } else {
            OK(b.ctx, eqat_block_ap_finish(s.block_ap));
        }
        OK(b.ctx, eqat_block_ap_save(s.block_ap, path));
    }
    eqat_block_ap_free(s.block_ap);
    tear_down(&b);
}

static const char *go_on(const variant *v, const char *path, bool cancelled, reports *r)
{
    bench b = set_up_variant(v);
    eqat_block_ap_options o = options_of(v);
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    if (cancelled) {
        eqat_context_cancel(b.ctx);
        says(b.ctx, eqat_block_ap_load(job, path), EQAT_CANCELLED, "cancelled");
    } else {
        OK(b.ctx, eqat_block_ap_load(job, path));
    }
    const char *again = scratch("again.state");
    OK(b.ctx, eqat_block_ap_save(job, again));
    size_t n, m;
    char *x = read_file(path, &n), *y = read_file(again, &m);
    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(x, y, n);
    free(x);
    free(y);
    OK(b.ctx, eqat_block_ap_run(job));
    *r = reports_of(job);
    eqat_block_ap_free(job);
    char name[64];
    static int number;
    snprintf(name, sizeof name, "resumed-%d", number++);
    const char *saved = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return saved;
}

static void resumes(const variant *v, const int64_t *at, size_t n)
{
    reports expected, found;
    const char *whole = uninterrupted(v, &expected);
    for (size_t i = 0; i < n; i++) {
        const char *path = scratch("block-ap.state");
        interrupt(v, at[i], path);
        variant other = *v; /* where the streams are may differ */
        other.s.offload_memory = v->s.offload_dir ? (uint64_t)1 << 14 : 0;
        ck_assert(same_folders(go_on(&other, path, i % 2, &found), whole));
        if (at[i] > 0) ck_assert(same_reports(&expected, &found));
    }
    remove_dir(whole);
}

START_TEST(block_ap_goes_on_from_every_kind_of_place)
{
    /* in block 0, at the end of an epoch, at the last step of a block, in the others, at the very
     * last step; between blocks, on the way out of one */
    const int64_t at[] = {1, 3, 4, 12, 13, 19, 24, 30, 36, 0, -1};
    resumes(&(variant){.s = usual}, at, EQI_COUNT(at));
}
END_TEST

START_TEST(block_ap_in_every_variant)
{
    const int64_t at[] = {6, 15, 34};
    variant v = {.s = usual, .zero_point = EQAT_ZERO_POINT_FIXED, .left = "*.k_proj"};
    v.s.compute = EQAT_BF16;
    v.s.bits = 3;
    resumes(&v, at, EQI_COUNT(at));
    v = (variant){.s = usual};
    v.s.offload_dir = scratch_dir();
    v.s.init = EQAT_INIT_WMSE;
    resumes(&v, at, EQI_COUNT(at));
    v = (variant){.s = usual, .relative = true};
    v.s.init = EQAT_INIT_DESCENT;
    resumes(&v, at, EQI_COUNT(at));
}
END_TEST

START_TEST(early_stop_counts_on)
{
    variant v = {.s = usual, .early_stop = 1, .lr = 1e-12};
    const int64_t at[] = {5, 8, 9};
    reports r;
    remove_dir(uninterrupted(&v, &r));
    ck_assert(isnan(r.loss[0][EPOCHS - 1][0])); /* it does stop */
    resumes(&v, at, EQI_COUNT(at));
}
END_TEST

/* Four stages of twelve steps in the first block, whose linears have biases; one in the second. */
START_TEST(stages_go_on)
{
    const int64_t at[] = {12, 13, 31, 48}, later[] = {8, 13};
    variant v = {.s = usual, .experts_at_a_time = 1, .left = "*.experts.1.up_proj"};
    v.s.model = make_family(EQI_STORED_BF16, "mixed", "qwen3_moe-mixed", "{", "{");
    v.s.compute = EQAT_BF16;
    v.s.init = EQAT_INIT_WMSE;
    resumes(&v, at, EQI_COUNT(at));
    v.s.compute = EQAT_F32;
    v.left = "*.q_proj";
    v.experts_at_a_time = 3;
    v.early_stop = 1;
    v.lr = 1;
    reports r;
    remove_dir(uninterrupted(&v, &r));
    ck_assert(isnan(r.loss[0][EPOCHS - 1][0])); /* it does stop */
    ck_assert(!isnan(r.loss[0][EPOCHS][0]));
    resumes(&v, later, EQI_COUNT(later));
}
END_TEST

/* At the end of a stage of the second block: the next one starts from moments of streams which a
 * load that was cancelled has not brought there. */
START_TEST(a_stage_behind_a_cancelled_load)
{
    const int64_t at[] = {60, 60};
    variant v = {.s = usual, .experts_at_a_time = 1};
    v.s.model = make_family(EQI_STORED_BF16, "moe", "qwen3_moe", "{", "{");
    v.s.init = EQAT_INIT_WMSE;
    resumes(&v, at, EQI_COUNT(at));
}
END_TEST

/* Takes n steps, backward and update outside of the job, from where the job says that it is; the
 * last one without its update when `cut`. */
static void drive(bench *b, eqat_block_ap *job, int64_t n, bool cut)
{
    int64_t first = eqat_block_ap_stage(job) * EPOCHS * STEPS +
        eqat_optimizer_steps(eqat_block_ap_optimizer(job));
    eqat_tape *tape;
    OK(b->ctx, eqat_tape_create(b->ctx, &tape));
    for (int64_t i = first; i < first + n; i++) {
        eqat_tensor *y, *target, *loss;
        OK(b->ctx, eqat_block_ap_forward(job, tape, i / STEPS, i % STEPS, &y, &target));
        OK(b->ctx, eqat_op_mse(tape, y, target, &loss));
        if (!cut || i < first + n - 1)
            OK(b->ctx, eqat_optimizer_backward(eqat_block_ap_optimizer(job), tape, loss));
        eqat_tensor_free(y);
        eqat_tensor_free(target);
        eqat_tensor_free(loss);
    }
    eqat_tape_free(tape);
}

/* n steps, and all the others in another job; 0: all in one. */
static const char *drive_in_two(const variant *v, int64_t n, bool cut, const char *name)
{
    const char *path = scratch("driver.state");
    bench b = set_up_variant(v);
    eqat_block_ap_options o = options_of(v);
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    OK(b.ctx, eqat_block_ap_begin(job));
    if (n) {
        drive(&b, job, n, cut);
        OK(b.ctx, eqat_block_ap_save(job, path));
        eqat_block_ap_free(job);
        tear_down(&b);
        b = set_up_variant(v);
        OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
        OK(b.ctx, eqat_block_ap_load(job, path));
    }
    drive(&b, job, STAGES * EPOCHS * STEPS - n + cut, false);
    OK(b.ctx, eqat_block_ap_finish(job));
    OK(b.ctx, eqat_block_ap_run(job));
    eqat_block_ap_free(job);
    const char *saved = save_as(b.ctx, b.model, name);
    tear_down(&b);
    return saved;
}

START_TEST(a_driver_goes_on_in_its_stage)
{
    variant v = {.s = usual, .experts_at_a_time = 1};
    v.s.model = make_family(EQI_STORED_F32, "moe", "qwen3_moe", "{", "{");
    const int64_t at[] = {13, 30}; /* a stage that has begun without a step, the midst of one */
    const char *whole = drive_in_two(&v, 0, false, "whole");
    for (size_t i = 0; i < EQI_COUNT(at); i++) {
        ck_assert(same_folders(drive_in_two(&v, at[i], i == 0, "two"), whole));
        remove_dir(scratch("two"));
    }
}
END_TEST

/* ---- what is refused ---- */

static void refuse_damage(bench *b, eqat_block_ap *job, const char *path)
{
    size_t n;
    char *bytes = read_file(path, &n);
    const char *bad = scratch("damaged.state");
    for (size_t cut = 0; cut < n; cut += 1 + n / 40) {
        write_file(bad, bytes, cut);
        ck_assert_int_ne(eqat_block_ap_load(job, bad), EQAT_OK);
        ck_assert_ptr_nonnull(strstr(eqat_context_error(b->ctx), "damaged.state"));
        ck_assert_ptr_null(strchr(eqat_context_error(b->ctx), '\n'));
    }
    for (size_t at = 8; at < n; at += 1 + n / 300) {
        bytes[at] ^= 4;
        write_file(bad, bytes, n);
        ck_assert_msg(eqat_block_ap_load(job, bad) != EQAT_OK, "byte %zu of %zu", at, n);
        ck_assert_ptr_nonnull(strstr(eqat_context_error(b->ctx), "damaged.state"));
        bytes[at] ^= 4;
    }
    bytes[n - 9] ^= 1;
    write_file(bad, bytes, n);
    says(b->ctx, eqat_block_ap_load(job, bad), EQAT_FORMAT, "checksum: found");
    free(bytes);
}

static void refuse_other(const char *path, const variant *v, const eqat_block_ap_options *o,
                         int64_t train, const char *message)
{
    bench b = set_up_variant(v);
    eqat_block_ap *job;
    eqat_data_free(b.data);
    b.data = make_data(b.ctx, train, 3, v->s.shuffle);
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, o));
    says(b.ctx, eqat_block_ap_load(job, path), EQAT_INVALID_ARGUMENT, message);
    OK(b.ctx, eqat_block_ap_begin(job));
    eqat_block_ap_free(job);
    tear_down(&b);
}

START_TEST(what_does_not_fit_is_refused_and_changes_nothing)
{
    const variant v = {.s = usual};
    reports expected, found;
    const char *whole = uninterrupted(&v, &expected), *path = scratch("good.state");
    interrupt(&v, 19, path);
    variant other = v;
    eqat_block_ap_options o = options_of(&v), p = o;
    p.quant_lr = 2e-3;
    refuse_other(path, &v, &p, 7, "quant_lr: found 0.001");
    p = o;
    p.epochs = 2;
    refuse_other(path, &v, &p, 7, "epochs: found 3, expected 2 of the job");
    other.s.bits = 3;
    refuse_other(path, &other, &o, 7, "quantizer: found");
    other = v;
    other.s.compute = EQAT_BF16;
    refuse_other(path, &other, &o, 7, "compute_dtype: found f32, expected bf16 of the job");
    other = v;
    other.s.seed++;
    refuse_other(path, &other, &o, 7, "data: found");
    refuse_other(path, &v, &o, 6, "data: found");

    bench b = set_up_variant(&v);
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
    says(b.ctx, eqat_block_ap_load(job, scratch("nothing")), EQAT_NOT_FOUND, "nothing");
    says(b.ctx, eqat_block_ap_load(job, in_dir(whole, "model.safetensors")), EQAT_FORMAT,
         "found no state of a job, expected the state of block-ap");
    refuse_damage(&b, job, path);
    OK(b.ctx, eqat_block_ap_begin(job));
    says(b.ctx, eqat_block_ap_load(job, path), EQAT_INVALID_ARGUMENT, "expected a new job");
    eqat_block_ap_abandon(job);
    int files = entries(scratch_dir());
    ck_assert_int_ne(eqat_block_ap_save(job, scratch("no/such/folder")), EQAT_OK);
    says(b.ctx, eqat_block_ap_save(job, whole), EQAT_IO,
         "uninterrupted: cannot put the result in its place");
    ck_assert_int_eq(entries(scratch_dir()), files);
    OK(b.ctx, eqat_block_ap_run(job));
    found = reports_of(job);
    ck_assert(same_reports(&expected, &found));
    eqat_block_ap_free(job);
    ck_assert(same_folders(save_as(b.ctx, b.model, "refused"), whole));
    tear_down(&b);
}
END_TEST

/* ---- E2E-QP ---- */

static eqat_e2e_qp_options e2e_options(void)
{
    eqat_e2e_qp_options o = fast_e2e_options();
    o.epochs = 3;
    o.params = EQAT_E2E_SZ;
    o.train_norms = true;
    return o;
}

static bench open_packed(void)
{
    bench b = {.ctx = make_context(2, 3)};
    b.model = open_model(b.ctx, "packed", EQAT_F32);
    b.data = make_data(b.ctx, 7, 0, true);
    return b;
}

static void make_packed_model(void)
{
    bench b = set_up(&usual);
    OK(b.ctx, eqat_model_quantize_rtn(b.model, b.quantizer, NULL));
    save_as(b.ctx, b.model, "packed");
    tear_down(&b);
}

static const char *run_e2e(const eqat_e2e_qp_options *o, const char *state, int64_t at,
                           const char *name, double *losses)
{
    bench b = open_packed();
    eqat_e2e_qp_options options = *o;
    saver s = {.ctx = b.ctx, .path = scratch("e2e.state"), .at = at};
    options.progress = save_and_cancel;
    options.progress_user = &s;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &s.e2e_qp, b.data, &options));
    if (state) OK(b.ctx, eqat_e2e_qp_load(s.e2e_qp, state));
    if (at)
        says(b.ctx, eqat_e2e_qp_run(s.e2e_qp), EQAT_CANCELLED, "cancelled");
    else
        OK(b.ctx, eqat_e2e_qp_run(s.e2e_qp));
    for (int64_t i = 0; i < eqat_e2e_qp_steps(s.e2e_qp); i++)
        losses[i] = eqat_e2e_qp_loss(s.e2e_qp, i);
    eqat_e2e_qp_free(s.e2e_qp);
    const char *saved = at ? NULL : save_as(b.ctx, b.model, name);
    tear_down(&b);
    return saved;
}

START_TEST(e2e_qp_goes_on)
{
    make_packed_model();
    const eqat_e2e_qp_options o = e2e_options();
    double expected[6], found[6];
    const char *whole = run_e2e(&o, NULL, 0, "e2e", expected);
    for (int64_t at = 1; at <= 6; at++) {
        char name[32];
        snprintf(name, sizeof name, "e2e-%d", (int)at);
        run_e2e(&o, NULL, at, NULL, found);
        const char *saved = run_e2e(&o, scratch("e2e.state"), 0, name, found);
        ck_assert(same_folders(saved, whole));
        ck_assert_mem_eq(expected, found, sizeof found);
    }
}
END_TEST

START_TEST(e2e_qp_refuses_what_does_not_fit)
{
    make_packed_model();
    eqat_e2e_qp_options o = e2e_options();
    double expected[6], found[6];
    const char *whole = run_e2e(&o, NULL, 0, "e2e", expected), *path = scratch("e2e.state");
    run_e2e(&o, NULL, 2, NULL, found);
    bench b = open_packed();
    eqat_e2e_qp *job;
    o.params = EQAT_E2E_S;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    says(b.ctx, eqat_e2e_qp_load(job, path), EQAT_INVALID_ARGUMENT, "params: found 2, expected 0");
    eqat_e2e_qp_free(job);
    o.params = EQAT_E2E_SZ;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &job, b.data, &o));
    size_t n;
    char *bytes = read_file(path, &n);
    const char *bad = scratch("damaged.state");
    write_file(bad, bytes, n - 1);
    says(b.ctx, eqat_e2e_qp_load(job, bad), EQAT_FORMAT, "damaged.state");
    bytes[n / 2] ^= 1;
    write_file(bad, bytes, n);
    says(b.ctx, eqat_e2e_qp_load(job, bad), EQAT_FORMAT, "checksum: found");
    free(bytes);
    OK(b.ctx, eqat_e2e_qp_run(job)); /* which starts at the beginning */
    says(b.ctx, eqat_e2e_qp_load(job, path), EQAT_INVALID_ARGUMENT, "finished");
    says(b.ctx, eqat_e2e_qp_save(job, path), EQAT_INVALID_ARGUMENT, "finished");
    eqat_e2e_qp_free(job);
    ck_assert(same_folders(save_as(b.ctx, b.model, "e2e-refused"), whole));
    tear_down(&b);
}
END_TEST

/* ---- numbers that nobody saved, under the right checksum ---- */

/* Number `index` of a tensor whose numbers have 8 bytes. */
static char *number_of(char *bytes, const char *tensor, size_t index)
{
    char key[64];
    uint64_t header;
    size_t offset;
    memcpy(&header, bytes, sizeof header);
    snprintf(key, sizeof key, "\"%s\":", tensor);
    const char *offsets = strstr(strstr(bytes + 8, key), "\"data_offsets\":[");
    ck_assert_int_eq(sscanf(offsets, "\"data_offsets\":[%zu", &offset), 1);
    return bytes + 8 + header + offset + 8 * index;
}

typedef eqat_status load_fn(void *job, const char *path);
static eqat_status load_block_ap(void *job, const char *path)
{
    return eqat_block_ap_load(job, path);
}
static eqat_status load_e2e_qp(void *job, const char *path) { return eqat_e2e_qp_load(job, path); }

/* The refusal of a wrong checksum tells the right one. */
static void refuse_forged(eqat_context *ctx, load_fn *load, void *job, const char *path,
                          const char *tensor, size_t index, const void *value)
{
    size_t n;
    char says_so[96], *bytes = read_file(path, &n);
    const char *bad = scratch("forged.state");
    memcpy(number_of(bytes, tensor, index), value, 8);
    write_file(bad, bytes, n);
    says(ctx, load(job, bad), EQAT_FORMAT, "checksum: found");
    const char *found = strstr(eqat_context_error(ctx), "checksum: found ");
    const uint64_t sum = strtoull(found + strlen("checksum: found "), NULL, 16);
    memcpy(bytes + n - sizeof sum, &sum, sizeof sum);
    write_file(bad, bytes, n);
    snprintf(says_so, sizeof says_so, "tensor %s: found a number out of range", tensor);
    says(ctx, load(job, bad), EQAT_FORMAT, says_so);
    free(bytes);
}

START_TEST(numbers_out_of_range_are_refused)
{
    static const int64_t wrong[] = {-1, 7, INT64_MIN, INT64_MAX}; /* of 6 steps */
    static const double no_count[] = {-2.0, 0.5, 1e300, -INFINITY};
    make_packed_model();
    eqat_e2e_qp_options o = e2e_options();
    double losses[6];
    const char *path = scratch("e2e.state");
    run_e2e(&o, NULL, 2, NULL, losses);
    bench b = open_packed();
    eqat_e2e_qp *e2e;
    OK(b.ctx, eqat_e2e_qp_create(b.model, &e2e, b.data, &o));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        refuse_forged(b.ctx, load_e2e_qp, e2e, path, "optimizer.steps", 0, &wrong[i]);
        refuse_forged(b.ctx, load_e2e_qp, e2e, path, "optimizer.1.steps", 0, &wrong[i]);
    }
    OK(b.ctx, eqat_e2e_qp_load(e2e, path));
    eqat_e2e_qp_free(e2e);
    tear_down(&b);

    variant v = {.s = usual};
    path = scratch("good.state");
    interrupt(&v, 19, path);
    b = set_up_variant(&v);
    eqat_block_ap_options options = options_of(&v);
    eqat_block_ap *job;
    OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &options));
    for (size_t i = 0; i < sizeof no_count / sizeof *no_count; i++) {
        refuse_forged(b.ctx, load_block_ap, job, path, "outcomes", 2, &no_count[i]);
        refuse_forged(b.ctx, load_block_ap, job, path, "outcomes", 3, &no_count[i]);
    }
    refuse_forged(b.ctx, load_block_ap, job, path, "optimizer.steps", 0, &wrong[0]);
    OK(b.ctx, eqat_block_ap_load(job, path));
    eqat_block_ap_free(job);
    tear_down(&b);
}
END_TEST

/* ---- without memory ---- */

START_TEST(every_request_may_be_refused)
{
    variant v = {.s = usual, .experts_at_a_time = _i};
    v.s.model = _i ? make_family(EQI_STORED_F32, "moe", "qwen3_moe", "{", "{") : "model";
    const char *path = scratch("good.state"), *again = scratch("again.state");
    interrupt(&v, _i ? 67 : 19, path); /* in the second block, with stages in the second of those */
    size_t refused = 0, size;
    char *good = read_file(path, &size);
    for (size_t n = 1;; n += n < 40 ? 1 : 7) {
        counter c = {0};
        bench b = {.ctx = open_counted("cpu", &c)};
        b.ctx->seed = usual.seed;
        b.model = open_model(b.ctx, v.s.model, EQAT_F32);
        b.quantizer = make_quantizer(b.ctx, 2, 32);
        b.data = make_data(b.ctx, 7, 3, true);
        eqat_block_ap_options o = options_of(&v);
        eqat_block_ap *job;
        OK(b.ctx, eqat_block_ap_create(b.model, &job, b.quantizer, b.data, &o));
        c.fail_at = c.requests + n;
        eqat_status st = eqat_block_ap_load(job, path);
        bool loaded = st == EQAT_OK || eqat_block_ap_block(job) > 0; /* the streams were cut off */
        if (st == EQAT_OK) st = eqat_block_ap_save(job, again);
        c.fail_at = 0;
        if (st != EQAT_OK) ck_assert_int_eq(st, EQAT_OUT_OF_MEMORY);
        if (!loaded) OK(b.ctx, eqat_block_ap_load(job, path));
        OK(b.ctx, eqat_block_ap_save(job, again));
        size_t found;
        char *bytes = read_file(again, &found);
        ck_assert_uint_eq(found, size);
        ck_assert_mem_eq(bytes, good, size);
        free(bytes);
        eqat_block_ap_free(job);
        tear_down(&b);
        ck_assert_uint_eq(c.live, 0);
        if (st == EQAT_OK) break;
        refused++;
    }
    ck_assert_uint_gt(refused, 40);
    free(good);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_set_timeout(tc, 300);
    tcase_add_checked_fixture(tc, write_small_model, scratch_clean);
    tcase_add_test(tc, block_ap_goes_on_from_every_kind_of_place);
    tcase_add_test(tc, block_ap_in_every_variant);
    tcase_add_test(tc, early_stop_counts_on);
    tcase_add_test(tc, stages_go_on);
    tcase_add_test(tc, a_stage_behind_a_cancelled_load);
    tcase_add_test(tc, a_driver_goes_on_in_its_stage);
    tcase_add_test(tc, what_does_not_fit_is_refused_and_changes_nothing);
    tcase_add_test(tc, e2e_qp_goes_on);
    tcase_add_test(tc, e2e_qp_refuses_what_does_not_fit);
    tcase_add_test(tc, numbers_out_of_range_are_refused);
    tcase_add_loop_test(tc, every_request_may_be_refused, 0, 2);
    return run_case("the state of a job", tc, CK_NOFORK);
}
