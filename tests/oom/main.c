#include "step.h"

#include <unistd.h>

#include "base/file.h"
#include "engine/engine.h"

/* Every request for memory in turn is refused, either it alone or it and all that follow: the call
 * must say "out of memory", leave nothing behind, and leave a context in which the same call then
 * succeeds with the same result. */

typedef eqat_status (*job)(eqi_ctx *ctx, float *result);

static void exhaust(const char *device, job run, bool once)
{
    counter c = {0};
    eqi_ctx *ctx = open_counted(device, &c);
    float expected = 0;
    OK(ctx, run(ctx, &expected));
    eqi_storage_trim(ctx);
    /* A backend may keep scratch for the life of its context, and no more than a run without
     * refusals needs. */
    size_t kept = c.live, kept_bytes = ctx->bytes_now;
    eqi_ctx_unref(ctx);
    ck_assert_uint_eq(c.live, 0);

    size_t refused = 0;
    for (size_t n = 1;; n++) {
        c = (counter){.once = once};
        ctx = open_counted(device, &c);
        c.fail_at = c.requests + n;
        float result = 0;
        eqat_status st = run(ctx, &result);
        bool reached = c.requests >= c.fail_at;
        c.fail_at = 0;
        if (st == EQAT_OK) {
            /* Refused alone, a request may succeed after the recycled tensors were given back. */
            ck_assert(!reached || once);
            ck_assert_float_eq(result, expected);
        } else {
            refused++;
            ck_assert_msg(st == EQAT_OUT_OF_MEMORY, "request %zu: found %s: %s", n,
                          eqat_status_name(st), ctx->error);
            ck_assert_msg(strstr(ctx->error, "out of memory") != NULL, "request %zu: %s", n,
                          ctx->error);
        }
        eqi_storage_trim(ctx);
        ck_assert_msg(c.live <= kept && ctx->bytes_now <= kept_bytes,
                      "request %zu: %zu blocks are left, expected %zu", n, c.live, kept);
        ck_assert_uint_eq(ctx->live_bytes, 0);
        ck_assert_int_eq(atomic_load(&ctx->refs), 1);
        OK(ctx, run(ctx, &result));
        ck_assert_float_eq(result, expected);
        eqi_ctx_unref(ctx);
        ck_assert_uint_eq(c.live, 0);
        if (!reached) break;
    }
    ck_assert_uint_gt(refused, 10);
}

static eqat_status f32(eqi_ctx *ctx, float *loss) { return training_step(ctx, EQI_F32, loss); }
static eqat_status bf16(eqi_ctx *ctx, float *loss) { return training_step(ctx, EQI_BF16, loss); }

START_TEST(training)
{
    exhaust("ref", f32, false);
    exhaust("ref", f32, true);
    exhaust("ref", bf16, false);
    exhaust("cpu", f32, false);
    exhaust("cpu", f32, true);
    exhaust("cpu", bf16, false);
}
END_TEST

START_TEST(quantization)
{
    exhaust("ref", quantizing, false);
    exhaust("cpu", quantizing, false);
    exhaust("cpu", quantizing, true);
}
END_TEST

START_TEST(experts)
{
    exhaust("ref", routing, false);
    exhaust("cpu", routing, false);
    exhaust("cpu", routing, true);
}
END_TEST

START_TEST(contexts)
{
    for (size_t n = 1;; n++) {
        counter c = {.fail_at = n};
        eqi_ctx_config config = {.device = "cpu", .threads = 2, .allocator = counting(&c)};
        char error[EQI_ERROR_MAX] = "";
        eqi_ctx *ctx;
        eqat_status st = eqi_ctx_create(&ctx, &config, error, sizeof error);
        if (st == EQAT_OK) {
            ck_assert_uint_gt(n, 2);
            eqi_ctx_unref(ctx);
            ck_assert_uint_eq(c.live, 0);
            break;
        }
        ck_assert_int_eq(st, EQAT_OUT_OF_MEMORY);
        ck_assert_ptr_null(ctx);
        ck_assert_ptr_nonnull(strstr(error, "out of memory"));
        ck_assert_uint_eq(c.live, 0);
    }
}
END_TEST

static char folder[64];

static eqat_status files(eqi_ctx *ctx, float *result)
{
    char target[80];
    snprintf(target, sizeof target, "%s/out", folder);
    eqi_outdir *dir = NULL;
    eqi_out *o = NULL;
    char *path = NULL, *text = NULL;
    size_t n;
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_outdir_begin(ctx, &dir, target));
    path = eqi_path_join(ctx, dir->temp, "a");
    st = path ? EQAT_OK : EQAT_OUT_OF_MEMORY;
    if (st == EQAT_OK) st = eqi_out_open(ctx, &o, path);
    if (st == EQAT_OK) {
        eqi_out_write(o, "abc", 3);
        st = eqi_out_close(o);
    }
    if (st == EQAT_OK) st = eqi_file_slurp(ctx, path, 10, &text, &n);
    if (st == EQAT_OK) *result = (float)n;
done:
    eqi_free(ctx, path);
    eqi_free(ctx, text);
    eqi_outdir_abort(&dir);
    ck_assert(!eqi_path_exists(target));
    return st;
}

static void few_requests(job run)
{
    for (size_t n = 1;; n++) {
        counter c = {0};
        eqi_ctx *ctx = open_counted("cpu", &c);
        size_t live = c.live;
        c.fail_at = c.requests + n;
        float result = 0;
        eqat_status st = run(ctx, &result);
        bool reached = c.requests >= c.fail_at;
        ck_assert_int_eq(st, reached ? EQAT_OUT_OF_MEMORY : EQAT_OK);
        ck_assert_uint_eq(c.live, live);
        c.fail_at = 0;
        eqi_ctx_unref(ctx);
        if (!reached) {
            ck_assert_uint_gt(n, 5);
            return;
        }
    }
}

START_TEST(file_handling)
{
    snprintf(folder, sizeof folder, "/tmp/eqat-oom-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    few_requests(files);
    /* Nothing partial stays. */
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("engine");
    tcase_add_test(t, contexts);
    tcase_add_test(t, training);
    tcase_add_test(t, quantization);
    tcase_add_test(t, experts);
    tcase_add_test(t, file_handling);
    return run_case("oom", t, CK_NOFORK);
}
