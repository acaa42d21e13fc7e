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

enum { SAMPLES = 23, FLOATS = 300, BYTES = FLOATS * 4, BATCH = 5 };

static eqi_cache *make_cache(eqat_context *ctx, const char *dir, int64_t resident)
{
    eqi_cache *c;
    OK(ctx, eqi_cache_create(ctx, &c, &(eqi_cache_shape){2, SAMPLES, resident, BYTES, BATCH}, dir));
    return c;
}

static eqat_tensor *make_batch(eqat_context *ctx, int64_t n)
{
    eqat_tensor *t;
    OK(ctx, eqat_tensor_create(ctx, &t, EQAT_F32, 2, (int64_t[]){n, FLOATS}, NULL));
    return t;
}

/* What a sample holds at element i after so many writes. */
static float value(int stream, int64_t sample, int version, int64_t i)
{
    return (float)(stream * 1000000 + (int)sample * 10000 + version * 100 + (int)i % 100);
}

/* A batch to ask for: one run, several, or scattered samples; no sample twice. */
static int64_t pick(uint64_t draw, int64_t *samples)
{
    int64_t n = 1 + (int64_t)eqi_rng_below(1, EQI_RNG_USER, draw, BATCH),
            step = 2 + (int64_t)eqi_rng_below(2, EQI_RNG_USER, draw, 3),
            first = (int64_t)eqi_rng_below(3, EQI_RNG_USER, draw, SAMPLES);
    for (int64_t i = 0; i < n; i++) samples[i] = (first + i / 2 * step + i % 2) % SAMPLES;
    return n;
}

static void write_batch(eqat_context *ctx, eqi_cache *c, int stream, const int64_t *samples,
                        int64_t n, int version[SAMPLES])
{
    float x[BATCH * FLOATS];
    eqat_tensor *t = make_batch(ctx, n);
    for (int64_t k = 0; k < n; k++) {
        int *v = &version[samples[k]];
        *v = (*v + 1) % 100;
        for (int64_t i = 0; i < FLOATS; i++) x[k * FLOATS + i] = value(stream, samples[k], *v, i);
    }
    OK(ctx, eqat_tensor_write(t, x, (size_t)n * BYTES));
    OK(ctx, eqi_cache_write(c, stream, samples, n, t));
    eqat_tensor_free(t);
}

static void expect(eqat_context *ctx, eqi_cache *c, int stream, const int64_t *samples, int64_t n,
                   const int version[SAMPLES])
{
    eqat_tensor *t = make_batch(ctx, n);
    OK(ctx, eqat_tensor_fill(t, -1));
    OK(ctx, eqi_cache_read(c, stream, samples, n, t));
    int64_t count;
    float *x = read_floats(t, &count);
    for (int64_t i = 0; i < count; i++) {
        int64_t sample = samples[i / FLOATS];
        ck_assert_float_eq(x[i], value(stream, sample, version[sample], i % FLOATS));
    }
    free(x);
    eqat_tensor_free(t);
}

/* Random writes, reads and hints, timely and useless ones, against what must be there. */
static void exercise(const char *dir, int64_t resident)
{
    eqat_context *ctx = make_context(1, 0);
    eqi_cache *c = make_cache(ctx, dir, resident);
    int version[2][SAMPLES] = {{0}};
    int64_t samples[BATCH], hinted[BATCH], n_hinted = 0;
    for (int s = 0; s < 2; s++)
        for (int64_t r = 0; r < SAMPLES; r++) write_batch(ctx, c, s, &r, 1, version[s]);
    for (uint64_t i = 0; i < 4000; i++) {
        int what = (int)eqi_rng_below(1, EQI_RNG_USER, 2 * i, 4),
            s = (int)eqi_rng_below(1, EQI_RNG_USER, 2 * i + 1, 2);
        int64_t n = pick(i, samples);
        if (what == 0)
            eqi_cache_ahead(c, s, memcpy(hinted, samples, sizeof hinted), n_hinted = n);
        else if (what == 1)
            expect(ctx, c, s, samples, n, version[s]);
        else if (what == 2 && n_hinted)
            expect(ctx, c, s, hinted, n_hinted, version[s]);
        else
            write_batch(ctx, c, s, samples, n, version[s]);
        if (i % 500 == 0) OK(ctx, eqi_cache_flush(c));
    }
    eqi_cache_free(c);
    eqat_context_free(ctx);
}

START_TEST(in_memory) { exercise(NULL, 0); }
END_TEST

START_TEST(in_files) { exercise(scratch_dir(), 0); }
END_TEST

START_TEST(in_both)
{
    exercise(scratch_dir(), 1);
    exercise(scratch_dir(), SAMPLES / 2);
    exercise(scratch_dir(), SAMPLES - 1);
}
END_TEST

/* Samples in memory take their bytes there, and no buffers once all of them are, but for the one
 * that a device writes through. */
START_TEST(memory_is_that_of_the_resident_samples)
{
    eqat_context *ctx = make_context(1, 0);
    size_t used[3], through = getenv("EQAT_TEST_DEVICE") ? (size_t)BATCH * BYTES : 0;
    for (int64_t i = 0; i < 3; i++) {
        size_t before = eqat_context_bytes(ctx);
        eqi_cache *c = make_cache(ctx, scratch_dir(), (int64_t[]){0, 9, SAMPLES}[i]);
        used[i] = eqat_context_bytes(ctx) - before;
        eqi_cache_free(c);
    }
    ck_assert_uint_eq(used[1] - used[0], 2 * 9 * BYTES);
    ck_assert_uint_lt(used[2], 2 * SAMPLES * BYTES + through + 4096);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(files_have_no_name_and_memory_does_not_grow)
{
    eqat_context *ctx = make_context(1, 0);
    size_t used[2];
    for (int i = 0; i < 2; i++) {
        eqi_cache *c;
        size_t before = eqat_context_bytes(ctx);
        OK(ctx,
           eqi_cache_create(ctx, &c, &(eqi_cache_shape){2, i ? 20000 : 20, 0, BYTES, 2},
                            scratch_dir()));
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
    eqi_cache_shape s = {2, SAMPLES, 0, BYTES, BATCH};
    says(ctx, eqi_cache_create(ctx, &c, &s, scratch("missing")), EQAT_IO,
         "missing: cannot create a file");
    ck_assert_ptr_null(c);
    /* more than any disk: told at once, not after an hour of training */
    s = (eqi_cache_shape){2, (int64_t)1 << 40, 0, 1 << 20, 1};
    says(ctx, eqi_cache_create(ctx, &c, &s, scratch_dir()), EQAT_IO, "cannot reserve");
    eqat_context_free(ctx);
}
END_TEST

/* A write fails behind the caller's back; the end of a pass is where it must be known. */
START_TEST(flush_tells_of_a_write_that_failed)
{
    eqat_context *ctx = make_context(1, 0);
    eqi_cache *c = make_cache(ctx, scratch_dir(), 0);
    int version[SAMPLES] = {0};
    struct rlimit old, none;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &old), 0);
    none = old;
    none.rlim_cur = 0;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &none), 0);
    write_batch(ctx, c, 0, (int64_t[]){4, 5}, 2, version);
    eqat_status st = eqi_cache_flush(c);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    expect_failure(ctx, "flush", st, EQAT_IO, "cannot write activations");
    eqi_cache_free(c);
    eqat_context_free(ctx);
}
END_TEST

START_TEST(the_child_of_a_fork_can_free_it)
{
    eqat_context *ctx = make_context(1, 0);
    eqi_cache *c = make_cache(ctx, scratch_dir(), 0);
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
    tcase_add_test(tc, in_both);
    tcase_add_test(tc, memory_is_that_of_the_resident_samples);
    tcase_add_test(tc, files_have_no_name_and_memory_does_not_grow);
    tcase_add_test(tc, a_folder_that_is_none);
    tcase_add_test(tc, flush_tells_of_a_write_that_failed);
    tcase_add_test(tc, the_child_of_a_fork_can_free_it);
    return run_case("activation cache", tc, CK_NOFORK);
}
