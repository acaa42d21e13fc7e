/* Every call that a run makes to the file system fails in turn: the status says so and names the
 * file, nothing partial is left, what was there before is there still, and the same context then
 * does the same work to the same bytes. Calls that do a part of what was asked, or are interrupted,
 * change nothing. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/engine.h"
#include "faults.h"
#include "public.h"

enum { HIDDEN_SIZE = 32, SAMPLES = 3 };
static const llama_shape shape = {16, HIDDEN_SIZE, 32, 1, 2, 1, false};

/* ---- the work ---- */

typedef eqat_status (*work)(eqat_context *ctx, const char *folder);

static eqat_status open_quantized(eqat_context *ctx, eqat_model **model)
{
    EQI_RETURN_IF(eqat_model_open(ctx, model, scratch("model"), NULL));
    eqat_quantizer *q = make_quantizer(ctx, 2, 32);
    eqat_status st = eqat_model_quantize_rtn(*model, q, NULL);
    eqat_quantizer_free(q);
    return st;
}

static eqat_status save_as_format(eqat_context *ctx, const char *path, const char *format)
{
    eqat_model *model = NULL;
    eqat_save_options o;
    eqat_save_options_init(&o, sizeof o);
    o.format = format;
    o.max_shard_size = 4096;
    o.allow_lossy = true;
    eqat_status st = open_quantized(ctx, &model);
    if (st == EQAT_OK) st = eqat_model_save(model, path, &o);
    eqat_model_free(model);
    return st;
}

static eqat_status save_folder(eqat_context *ctx, const char *folder)
{
    return save_as_format(ctx, in_dir(folder, "out"), "gptq_v2");
}

static eqat_status save_file(eqat_context *ctx, const char *folder)
{
    return save_as_format(ctx, in_dir(folder, "out.gguf"), "gguf");
}

static eqat_status open_data(eqat_context *ctx, eqat_data **data)
{
    eqat_data_options o;
    eqat_data_options_init(&o, sizeof o);
    o.train_size = SAMPLES;
    o.val_size = 1;
    o.seq_len = 8;
    o.sampling = EQAT_SAMPLING_CONSECUTIVE;
    return eqat_data_open(ctx, data, scratch("tokens.u16"), NULL, shape.vocab, &o);
}

/* One step, a state that takes the place of an older one, a new job that goes on from there, and
 * the model it makes. */
static eqat_status train_blocks(eqat_model *model, const eqat_quantizer *q, eqat_data *data,
                                const char *folder)
{
    eqat_block_ap *job = NULL;
    const char *state = in_dir(folder, "state");
    eqat_block_ap_options o = fast_options();
    o.epochs = 1;
    o.offload_dir = folder;
    eqat_status st = eqat_block_ap_create(model, &job, q, data, &o);
    if (st == EQAT_OK) st = eqat_block_ap_begin(job);
    if (st == EQAT_OK) st = eqat_block_ap_step(job, 0, 0, NULL);
    if (st == EQAT_OK) st = eqat_block_ap_save(job, state);
    eqat_block_ap_free(job);
    job = NULL;
    if (st == EQAT_OK) st = eqat_block_ap_create(model, &job, q, data, &o);
    if (st == EQAT_OK) st = eqat_block_ap_load(job, state);
    if (st == EQAT_OK) st = eqat_block_ap_run(job);
    eqat_block_ap_free(job);
    return st;
}

static eqat_status train_scales(eqat_model *model, eqat_data *data, const char *folder)
{
    eqat_e2e_qp *job = NULL;
    const char *state = in_dir(folder, "state2");
    eqat_e2e_qp_options o = fast_e2e_options();
    o.batch_size = 2;
    eqat_status st = eqat_e2e_qp_create(model, &job, data, &o);
    if (st == EQAT_OK) st = eqat_e2e_qp_accumulate(job, 0, 0, NULL);
    if (st == EQAT_OK) st = eqat_e2e_qp_step(job);
    if (st == EQAT_OK) st = eqat_e2e_qp_save(job, state);
    eqat_e2e_qp_free(job);
    job = NULL;
    if (st == EQAT_OK) st = eqat_e2e_qp_create(model, &job, data, &o);
    if (st == EQAT_OK) st = eqat_e2e_qp_load(job, state);
    if (st == EQAT_OK) st = eqat_e2e_qp_run(job);
    eqat_e2e_qp_free(job);
    return st;
}

static eqat_status train(eqat_context *ctx, const char *folder)
{
    eqat_model *model = NULL;
    eqat_data *data = NULL;
    eqat_quantizer *q = make_quantizer(ctx, 2, 32);
    eqat_status st = open_data(ctx, &data);
    if (st == EQAT_OK) st = eqat_model_open(ctx, &model, scratch("model"), NULL);
    if (st == EQAT_OK) st = train_blocks(model, q, data, folder);
    if (st == EQAT_OK) st = train_scales(model, data, folder);
    if (st == EQAT_OK) st = eqat_model_save(model, in_dir(folder, "out"), NULL);
    eqat_data_free(data);
    eqat_quantizer_free(q);
    eqat_model_free(model);
    return st;
}

/* ---- what may be there after a failure ---- */

static const char old[] = "what was there before";

static const char *begin_folder(void)
{
    const char *folder = fresh_dir();
    write_text(in_dir(folder, "state"), old);
    write_text(in_dir(folder, "state2"), old);
    return folder;
}

static bool same_files(const char *a, const char *b)
{
    size_t na, nb;
    char *x = read_file(a, &na), *y = read_file(b, &nb);
    bool same = na == nb && !memcmp(x, y, na);
    free(x);
    free(y);
    return same;
}

static void expect_old_or_whole(const char *folder, const char *whole, const char *name)
{
    char *found = read_text(in_dir(folder, name));
    bool is_old = !strcmp(found, old);
    free(found);
    ck_assert_msg(is_old || same_files(in_dir(folder, name), in_dir(whole, name)),
                  "%s is neither the old one nor whole", name);
}

static void expect_nothing_partial(const char *folder, const char *whole)
{
    int known = 2;
    const char *out = in_dir(folder, "out"), *file = in_dir(folder, "out.gguf");
    expect_old_or_whole(folder, whole, "state");
    expect_old_or_whole(folder, whole, "state2");
    if (access(out, F_OK) == 0) {
        ck_assert(same_folders(out, in_dir(whole, "out")));
        remove_dir(out);
    }
    if (access(file, F_OK) == 0) {
        ck_assert(same_files(file, in_dir(whole, "out.gguf")));
        unlink(file);
    }
    ck_assert_msg(entries(folder) == known, "found %d names, expected %d", entries(folder), known);
}

static void expect_same(const char *folder, const char *whole)
{
    static const char *const files[] = {"state", "state2", "out.gguf"};
    for (size_t i = 0; i < EQI_COUNT(files); i++)
        if (access(in_dir(whole, files[i]), F_OK) == 0)
            ck_assert(same_files(in_dir(folder, files[i]), in_dir(whole, files[i])));
    if (access(in_dir(whole, "out"), F_OK) == 0)
        ck_assert(same_folders(in_dir(folder, "out"), in_dir(whole, "out")));
}

/* ---- the n-th call ---- */

static const struct {
    fault kind;
    const char *says; /* NULL: nothing comes of it */
} kinds[] = {
    {FAULT_EIO, "Input/output error"},
    {FAULT_FULL, "No space left on device"},
    {FAULT_SHORT, NULL},
    {FAULT_INTERRUPTED, NULL},
};

static long injected, failed;

static bool one_fault(work run, size_t k, long n, const char *whole)
{
    counter c = {0};
    eqi_ctx *ctx = open_counted("cpu", &c);
    const char *folder = begin_folder();
    faults_begin(kinds[k].kind, n);
    eqat_status st = run(ctx, folder);
    bool reached = faults_end();
    injected += reached;
    failed += st != EQAT_OK;
    if (st == EQAT_OK) {
        expect_same(folder, whole);
    } else {
        ck_assert_msg(kinds[k].says != NULL, "call %ld, %s, in part: %s", n, faults_call(),
                      ctx->error);
        ck_assert_msg(st == EQAT_IO && strstr(ctx->error, kinds[k].says) &&
                          strstr(ctx->error, scratch_dir()),
                      "call %ld, %s: %s: %s", n, faults_call(), eqat_status_name(st), ctx->error);
        expect_nothing_partial(folder, whole);
        OK(ctx, run(ctx, folder));
        expect_same(folder, whole);
    }
    eqi_ctx_unref(ctx);
    ck_assert_uint_eq(c.live, 0);
    remove_dir(folder);
    return reached;
}

/* Steps repeat themselves: of later calls every third, or all with FAULTS_ALL in the environment,
 * or none with FAULTS_NONE.
 */
static void every_call(work run)
{
    counter c = {0};
    eqi_ctx *ctx = open_counted("cpu", &c);
    const char *whole = begin_folder();
    int stride = getenv("FAULTS_ALL") ? 1 : 3;
    OK(ctx, run(ctx, whole));
    eqi_ctx_unref(ctx);
    if (getenv("FAULTS_NONE")) return;
    for (size_t k = 0; k < EQI_COUNT(kinds); k++) {
        long before = injected, failed_before = failed;
        for (long n = 1; one_fault(run, k, n, whole);) n += n < 60 ? 1 : stride;
        ck_assert_int_gt(injected - before, 3);
        /* A few may pass: of what is only read no closing matters. */
        if (kinds[k].says) ck_assert_int_gt(2 * (failed - failed_before), injected - before);
    }
    printf("%ld faults, of which %ld failed the call\n", injected, failed);
}

START_TEST(saving_a_folder) { every_call(save_folder); }
END_TEST

START_TEST(saving_one_file) { every_call(save_file); }
END_TEST

START_TEST(training_with_states) { every_call(train); }
END_TEST

/* ---- threads ---- */

START_TEST(threads_that_cannot_start)
{
    for (long n = 1; n <= 3; n++) {
        counter c = {0};
        char error[EQI_ERROR_MAX] = "";
        eqi_ctx *ctx;
        eqi_ctx_config config = {.device = "cpu", .threads = 4, .allocator = counting(&c)};
        faults_of_threads(n);
        ck_assert_int_eq(eqi_ctx_create(&ctx, &config, error, sizeof error), EQAT_BACKEND);
        ck_assert_str_eq(error, "threads: cannot start 4: Resource temporarily unavailable");
        ck_assert_ptr_null(ctx);
        ck_assert_uint_eq(c.live, 0);
    }
    faults_of_threads(0);
}
END_TEST

START_TEST(a_cache_without_its_thread)
{
    counter c = {0};
    eqi_ctx *ctx = open_counted("cpu", &c);
    const char *folder = begin_folder();
    faults_of_threads(1);
    says(ctx, train(ctx, folder), EQAT_BACKEND, "cannot start a thread");
    faults_of_threads(0);
    ck_assert_int_eq(entries(folder), 2);
    OK(ctx, train(ctx, folder));
    eqi_ctx_unref(ctx);
    ck_assert_uint_eq(c.live, 0);
}
END_TEST

static void write_inputs(void)
{
    uint16_t ids[64];
    for (int i = 0; i < 64; i++) ids[i] = (uint16_t)((i * 7 + 3) % 16);
    write_llama("model", &shape, NULL);
    write_file(scratch("tokens.u16"), ids, sizeof ids);
}

int main(void)
{
    TCase *t = tcase_create("faults");
    tcase_add_unchecked_fixture(t, write_inputs, scratch_clean);
    tcase_add_test(t, saving_a_folder);
    tcase_add_test(t, saving_one_file);
    tcase_add_test(t, training_with_states);
    tcase_add_test(t, threads_that_cannot_start);
    tcase_add_test(t, a_cache_without_its_thread);
    return run_case("faults", t, CK_NOFORK);
}
