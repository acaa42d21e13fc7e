#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "public.h"
#include "train/cache.h"

enum { RECORDS = 23, FLOATS = 300, BYTES = FLOATS * 4 };

static eqat_tensor *make_record(eqat_context *ctx)
{
    const int64_t n = FLOATS;
    eqat_tensor *t;
    OK(ctx, eqat_tensor_create(ctx, &t, EQAT_F32, 1, &n, NULL));
    return t;
}

static void put(eqat_context *ctx, eqi_cache *c, eqat_tensor *t, int stream, int64_t record,
                int version)
{
    OK(ctx, eqat_tensor_fill(t, (double)(stream * 10000 + (int)record * 100 + version)));
    OK(ctx, eqi_cache_put(c, stream, record, t));
}

static void expect(eqat_context *ctx, eqi_cache *c, eqat_tensor *t, int stream, int64_t record,
                   int version)
{
    int64_t n;
    OK(ctx, eqat_tensor_fill(t, -1));
    OK(ctx, eqi_cache_get(c, stream, record, t));
    float *x = read_floats(t, &n);
    for (int64_t i = 0; i < n; i++)
        ck_assert_int_eq((int)x[i], stream * 10000 + (int)record * 100 + version);
    free(x);
}

/* Random puts, gets and hints, timely and useless ones, against what must be there. */
static void exercise(const char *dir, int slots)
{
    eqat_context *ctx = make_context(1, 0);
    eqi_cache *c;
    int version[2][RECORDS] = {{0}};
    OK(ctx, eqi_cache_create(ctx, &c, 2, RECORDS, BYTES, dir, slots));
    eqat_tensor *t = make_record(ctx);
    for (int s = 0; s < 2; s++)
        for (int r = 0; r < RECORDS; r++) put(ctx, c, t, s, r, 0);
    for (uint64_t i = 0; i < 4000; i++) {
        int what = (int)eqi_rng_below(1, EQI_RNG_USER, 3 * i, 3),
            s = (int)eqi_rng_below(1, EQI_RNG_USER, 3 * i + 1, 2);
        int r = (int)eqi_rng_below(1, EQI_RNG_USER, 3 * i + 2, RECORDS);
        if (what == 0)
            eqi_cache_ahead(c, s, r);
        else if (what == 1)
            expect(ctx, c, t, s, r, version[s][r]);
        else
            put(ctx, c, t, s, r, ++version[s][r] % 100);
        version[s][r] %= 100;
        if (i % 500 == 0) OK(ctx, eqi_cache_flush(c));
    }
    eqat_tensor_free(t);
    eqi_cache_free(c);
    eqat_context_free(ctx);
}

START_TEST(in_memory) { exercise(NULL, 4); }
END_TEST

START_TEST(in_files)
{
    exercise(scratch_dir(), 4);
    exercise(scratch_dir(), 1);
}
END_TEST

START_TEST(files_have_no_name_and_memory_does_not_grow)
{
    eqat_context *ctx = make_context(1, 0);
    size_t used[2];
    for (int i = 0; i < 2; i++) {
        eqi_cache *c;
        size_t before = eqat_context_bytes(ctx);
        OK(ctx, eqi_cache_create(ctx, &c, 2, i ? 20000 : 20, BYTES, scratch_dir(), 4));
        used[i] = eqat_context_bytes(ctx) - before;
        DIR *d = opendir(scratch_dir());
        for (struct dirent *e; (e = readdir(d));)
            ck_assert_msg(e->d_name[0] == '.', "%s", e->d_name);
        closedir(d);
        eqi_cache_free(c);
        ck_assert_uint_eq(eqat_context_bytes(ctx), before);
    }
    ck_assert_uint_eq(used[0], used[1]);
    ck_assert_uint_lt(used[0], 4 * BYTES + 4096);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(a_folder_that_is_none)
{
    eqat_context *ctx = make_context(1, 0);
    eqi_cache *c;
    says(ctx, eqi_cache_create(ctx, &c, 2, RECORDS, BYTES, scratch("missing"), 4), EQAT_IO,
         "missing: cannot create a file");
    ck_assert_ptr_null(c);
    /* more than any disk: told at once, not after an hour of training */
    says(ctx, eqi_cache_create(ctx, &c, 2, (int64_t)1 << 40, 1 << 20, scratch_dir(), 4), EQAT_IO,
         "cannot reserve");
    eqat_context_free(ctx);
}
END_TEST

/* A write fails behind the caller's back; the end of a pass is where it must be known. */
START_TEST(flush_tells_of_a_write_that_failed)
{
    eqat_context *ctx = make_context(1, 0);
    eqi_cache *c;
    OK(ctx, eqi_cache_create(ctx, &c, 2, RECORDS, BYTES, scratch_dir(), 4));
    eqat_tensor *t = make_record(ctx);
    struct rlimit old, none;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
    put(ctx, c, t, 0, 0, 0);
    eqat_status st = eqi_cache_flush(c);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    expect_failure(ctx, "flush", st, EQAT_IO, "cannot write activations");
    eqat_tensor_free(t);
    eqi_cache_free(c);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(the_child_of_a_fork_can_free_it)
{
    eqat_context *ctx = make_context(1, 0);
    eqi_cache *c;
    OK(ctx, eqi_cache_create(ctx, &c, 2, RECORDS, BYTES, scratch_dir(), 4));
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        eqi_cache_free(c);
        eqat_context_free(ctx);
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    eqi_cache_free(c);
    eqat_context_free(ctx);
}
END_TEST

int main(void)
{
    TCase *tc = tcase_create("all");
    tcase_add_unchecked_fixture(tc, NULL, scratch_clean);
    tcase_add_test(tc, in_memory);
    tcase_add_test(tc, in_files);
    tcase_add_test(tc, files_have_no_name_and_memory_does_not_grow);
    tcase_add_test(tc, a_folder_that_is_none);
    tcase_add_test(tc, flush_tells_of_a_write_that_failed);
    tcase_add_test(tc, the_child_of_a_fork_can_free_it);
    return run_case("activation cache", tc, CK_NOFORK);
}
