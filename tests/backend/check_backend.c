/* A device in a library of its own: what can be wrong with the library, and what the engine asks of
 * one that is right. The first argument says which library the loader finds: none, bare, stub, or
 * beside (a stub in the program's folder). */
#include <check.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "eqat/eqat.h"
#include "run_suite.h"
#include "stub.h"

#define OK(expr) ck_assert_int_eq(expr, EQAT_OK)

static char line[512];

static eqat_status open_device(eqat_context **ctx, const char *wrong, eqat_context_options *options)
{
    eqat_context_options o;
    eqat_context_options_init(&o, sizeof o);
    if (!options) options = &o;
    options->device = "cuda:0";
    options->threads = 1;
    setenv("EQAT_STUB", wrong, 1);
    return eqat_context_create(ctx, options, line, sizeof line);
}

static void refused(const char *wrong, eqat_status expected, const char *says)
{
    eqat_context *ctx;
    eqat_status st = open_device(&ctx, wrong, NULL);
    ck_assert_msg(st == expected, "%s: %s", eqat_status_name(st), line);
    ck_assert_ptr_null(ctx);
    ck_assert_msg(strstr(line, says) && !strchr(line, '\n'), "%s", line);
}

static eqat_context *opened(eqat_context_options *options)
{
    eqat_context *ctx;
    eqat_status st = open_device(&ctx, "", options);
    ck_assert_msg(st == EQAT_OK, "%s", line);
    return ctx;
}

static stub_journal *journal(void)
{
    void *library = dlopen("libeqat-cuda.so.0", RTLD_NOW | RTLD_NOLOAD);
    stub_journal *(*get)(void) = NULL;
    ck_assert_ptr_nonnull(library);
    *(void **)&get = dlsym(library, "eqi_stub_journal");
    ck_assert_ptr_nonnull(get);
    return get();
}

static eqat_tensor *vector(eqat_context *ctx, int64_t n, const float *values)
{
    eqat_tensor *t;
    OK(eqat_tensor_create(ctx, &t, EQAT_F32, 1, &n, values));
    return t;
}

/* ---- none, bare ---- */

START_TEST(no_library)
{
    void *library = dlopen("libeqat-cuda.so.0", RTLD_NOW);
    if (library) return; /* an installed one, which is not ours to judge */
    refused("", EQAT_UNSUPPORTED, "device cuda:0: cannot open libeqat-cuda.so.0 (");
    ck_assert_msg(strstr(line, "expected this version's CUDA backend"), "%s", line);
}
END_TEST

START_TEST(no_symbol)
{
    refused("", EQAT_BACKEND,
            "device cuda:0: found no eqi_backend_of_library in libeqat-cuda.so.0, expected this "
            "version's CUDA backend");
}
END_TEST

/* ---- stub ---- */

START_TEST(wrong_version)
{
    refused("version", EQAT_BACKEND,
            "device cuda:0: found version 1 of the backend's table, expected ");
}
END_TEST

START_TEST(no_table)
{
    refused("null", EQAT_BACKEND, "device cuda:0: found no table in libeqat-cuda.so.0, expected ");
}
END_TEST

START_TEST(missing_entry)
{
    refused("missing", EQAT_BACKEND, "backend stub: found no rope, expected every entry");
}
END_TEST

START_TEST(open_fails)
{
    refused("open", EQAT_UNSUPPORTED, "cuda:0: found 0 devices, expected at least 1");
    ck_assert_str_eq(journal()->words, ""); /* nothing was opened to be closed */
}
END_TEST

/* After every refusal the same process opens one that is right. */
START_TEST(what_is_right_opens_after_all)
{
    static const char *const wrong[] = {"version", "null", "missing", "open"};
    eqat_context *ctx;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ck_assert_int_ne(open_device(&ctx, wrong[i], NULL), EQAT_OK);
        eqat_context_free(opened(NULL));
    }
}
END_TEST

START_TEST(stream_and_limit_reach_the_backend)
{
    char stream;
    eqat_context_options o;
    eqat_context_options_init(&o, sizeof o);
    eqat_context_free(opened(&o));
    ck_assert_ptr_null(journal()->stream);
    ck_assert_uint_eq(journal()->device_memory, 0);
    o.stream = &stream;
    o.device_memory = 5000000000;
    eqat_context *ctx = opened(&o);
    eqat_tensor *t = vector(ctx, 100, NULL);
    ck_assert_ptr_eq(journal()->stream, &stream);
    ck_assert_uint_eq(journal()->device_memory, 5000000000);
    ck_assert_uint_eq(eqat_context_device_bytes_left(ctx), 5000000000 - 400);
    eqat_tensor_free(t);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(bytes_of_the_device)
{
    eqat_context *ctx = opened(NULL);
    size_t host = eqat_context_bytes(ctx);
    ck_assert_uint_eq(eqat_context_device_bytes(ctx), 0);
    eqat_tensor *a = vector(ctx, 1 << 20, NULL), *b = vector(ctx, 100, NULL);
    ck_assert_uint_eq(eqat_context_device_bytes(ctx), (4 << 20) + 400);
    ck_assert_uint_lt(eqat_context_bytes(ctx) - host, 4096);
    eqat_tensor_free(a);
    eqat_context_trim(ctx);
    ck_assert_uint_eq(eqat_context_device_bytes(ctx), 400);
    ck_assert_uint_eq(eqat_context_device_bytes_peak(ctx), (4 << 20) + 400);
    ck_assert_uint_lt(eqat_context_bytes_peak(ctx), 1 << 20);
    eqat_context_reset_peak(ctx);
    ck_assert_uint_eq(eqat_context_device_bytes_peak(ctx), 400);
    eqat_tensor_free(b);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(values_go_through_the_backend)
{
    float in[] = {1, 2, 3}, out[3];
    eqat_context *ctx = opened(NULL);
    eqat_tensor *t = vector(ctx, 3, in);
    OK(eqat_tensor_read(t, out, sizeof out));
    ck_assert_mem_eq(in, out, sizeof in);
    eqat_tensor_free(t);
    ck_assert_str_eq(journal()->words, "upload download ");
    eqat_context_free(ctx);
    ck_assert_str_eq(journal()->words, "upload download close ");
}
END_TEST

static void let_go(void *user, void *data)
{
    (void)data;
    strcat(user, "release ");
}

static eqat_status wrap(eqat_context *ctx, eqat_tensor **out, void *data)
{
    const int64_t n = 3;
    return eqat_tensor_wrap(ctx, out, EQAT_F32, 1, &n, NULL, data, 3 * sizeof(float), let_go,
                            journal()->words);
}

START_TEST(memory_of_the_host_is_not_wrapped)
{
    float host[3] = {0};
    eqat_context *ctx = opened(NULL);
    eqat_tensor *t;
    ck_assert_int_eq(wrap(ctx, &t, host), EQAT_INVALID_ARGUMENT);
    ck_assert_ptr_null(t);
    ck_assert_str_eq(
        eqat_context_error(ctx),
        "tensor: found memory that device cuda:0 does not reach, expected the device's");
    ck_assert_str_eq(journal()->words, ""); /* no release */
    eqat_context_free(ctx);
}
END_TEST

/* With the last of the tensors that use it, and not before the device is through. */
START_TEST(release_waits_for_the_device)
{
    const int64_t shape[] = {3, 1};
    eqat_context *ctx = opened(NULL);
    eqat_tensor *owner = vector(ctx, 3, NULL), *t, *view;
    OK(wrap(ctx, &t, eqat_tensor_data(owner)));
    OK(eqat_tensor_reshape(t, 2, shape, &view));
    eqat_tensor_free(t);
    ck_assert_str_eq(journal()->words, "");
    eqat_tensor_free(view);
    ck_assert_str_eq(journal()->words, "synchronize release ");
    eqat_tensor_free(owner);
    eqat_context_free(ctx);
    ck_assert_str_eq(journal()->words, "synchronize release close ");
}
END_TEST

/* What has no kernel says so. */
START_TEST(failures_of_entries_come_out)
{
    eqat_context *ctx = opened(NULL);
    eqat_tensor *a = vector(ctx, 3, NULL), *b = NULL;
    eqat_tape *tape;
    OK(eqat_tape_create(ctx, &tape));
    ck_assert_int_eq(eqat_op_scale(tape, a, 2, &b), EQAT_BACKEND);
    ck_assert_ptr_null(b);
    eqat_tape_free(tape);
    eqat_tensor_free(a);
    eqat_context_free(ctx);
}
END_TEST

/* ---- beside ---- */

START_TEST(the_programs_folder_is_looked_at) { eqat_context_free(opened(NULL)); }
END_TEST

static void add_stub(TCase *t)
{
    tcase_add_test(t, wrong_version);
    tcase_add_test(t, no_table);
    tcase_add_test(t, missing_entry);
    tcase_add_test(t, open_fails);
    tcase_add_test(t, what_is_right_opens_after_all);
    tcase_add_test(t, stream_and_limit_reach_the_backend);
    tcase_add_test(t, bytes_of_the_device);
    tcase_add_test(t, values_go_through_the_backend);
    tcase_add_test(t, memory_of_the_host_is_not_wrapped);
    tcase_add_test(t, release_waits_for_the_device);
    tcase_add_test(t, failures_of_entries_come_out);
}

static void forget(void)
{
    void *library = dlopen("libeqat-cuda.so.0", RTLD_NOW | RTLD_NOLOAD);
    if (library && dlsym(library, "eqi_stub_journal")) memset(journal(), 0, sizeof *journal());
    if (library) dlclose(library);
}

int main(int argc, char **argv)
{
    const char *found = argc > 1 ? argv[1] : "stub";
    TCase *t = tcase_create(found);
    tcase_add_checked_fixture(t, forget, NULL);
    if (!strcmp(found, "none"))
        tcase_add_test(t, no_library);
    else if (!strcmp(found, "bare"))
        tcase_add_test(t, no_symbol);
    else if (!strcmp(found, "beside"))
        tcase_add_test(t, the_programs_folder_is_looked_at);
    else
        add_stub(t);
    return run_case("backend", t, CK_FORK_GETENV);
}
