#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "fuzz.h"
#include "tensor/storage.h"

enum { MEMORY_MAX = 1 << 28, INPUT_MAX = 1 << 16 };

static int file = -1;
static char path[64];
static size_t live; /* pieces of memory that a context holds */

static void *bounded_alloc(void *user, size_t size, size_t align)
{
    (void)user;
    void *p = NULL;
    if (size > MEMORY_MAX || posix_memalign(&p, align, size) != 0) return NULL;
    live++;
    return p;
}

static void bounded_free(void *user, void *p, size_t size)
{
    (void)user;
    (void)size;
    live -= p != NULL;
    free(p);
}

static void must(int ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "fuzz: %s\n", what);
    abort();
}

static eqi_ctx *context(void)
{
    eqi_ctx *ctx;
    char error[EQI_ERROR_MAX] = "";
    const eqi_ctx_config config = {
        .device = "cpu", .threads = 1, .allocator = {bounded_alloc, bounded_free, NULL}};
    must(eqi_ctx_create(&ctx, &config, error, sizeof error) == EQAT_OK, error);
    return ctx;
}

/* A backend may keep scratch as long as its context lives: that goes with one after many inputs. */
static eqi_ctx *renewed(eqi_ctx *ctx)
{
    static int uses;
    static size_t before;
    if (ctx && ++uses % 256) return ctx;
    if (ctx) {
        eqi_ctx_unref(ctx);
        must(live == before, "memory was not freed");
    }
    before = live;
    return context();
}

static void check_settled(eqi_ctx *ctx)
{
    eqi_storage_trim(ctx);
    must(ctx->live_bytes == 0, "a tensor was not freed");
    must(atomic_load(&ctx->refs) == 1, "a handle was not freed");
}

static void make_file(void)
{
    if (file >= 0) return;
    file = memfd_create("fuzz", MFD_CLOEXEC);
    must(file >= 0, "memfd_create");
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
}

void eqat_fuzz_rewrite(const uint8_t *data, size_t size)
{
    make_file();
    must(ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) == (ssize_t)size,
         "cannot write the input");
}

const char *eqat_fuzz_name(const char *ending)
{
    static char names[4][96];
    static int used;
    char *name = names[used++ % 4];
    make_file();
    snprintf(name, sizeof names[0], "/tmp/eqat-fuzz-%ld%s", (long)getpid(), ending);
    unlink(name);
    must(symlink(path, name) == 0, name);
    return name;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static eqi_ctx *ctx;
    ctx = renewed(ctx);
    ctx->error[0] = 0;
    eqat_fuzz_rewrite(data, size);
    const eqat_status st = eqat_fuzz_one(ctx, path, data, size);
    must(st == EQAT_OK || ctx->error[0], "a failure without a message");
    must(st == EQAT_OK || st == EQAT_FORMAT || st == EQAT_UNSUPPORTED || st == EQAT_OUT_OF_MEMORY ||
             st == EQAT_NUMERIC,
         ctx->error);
    check_settled(ctx);
    return 0;
}

#ifndef EQAT_LIBFUZZER
typedef struct input {
    uint8_t *data;
    size_t size;
} input;

typedef struct source {
    uint64_t seed, index;
} source;

static size_t below(source *r, size_t bound)
{
    return (size_t)eqi_rng_below(r->seed, EQI_RNG_USER, r->index++, bound);
}

static size_t insert(uint8_t *p, size_t size, size_t at, const uint8_t *data, size_t n)
{
    if (n > INPUT_MAX - size) n = INPUT_MAX - size;
    memmove(p + at + n, p + at, size - at);
    memcpy(p + at, data, n);
    return size + n;
}

static size_t mutate(source *r, const input *corpus, size_t count, uint8_t *p, size_t size)
{
    static const uint64_t numbers[] = {0,
                                       1,
                                       2,
                                       31,
                                       32,
                                       33,
                                       255,
                                       256,
                                       0x7fff,
                                       0x7fffffff,
                                       0x80000000,
                                       0xffffffff,
                                       (uint64_t)1 << 32,
                                       INT64_MAX,
                                       (uint64_t)1 << 63,
                                       UINT64_MAX,
                                       UINT64_MAX - 31,
                                       UINT64_MAX / 4};
    const size_t at = below(r, size + 1), left = size - at;
    uint8_t b[24];
    switch (below(r, 8)) {
    case 0:
        if (left) p[at] ^= (uint8_t)(1u << below(r, 8));
        return size;
    case 1:
        if (left) p[at] = (uint8_t)below(r, 256);
        return size;
    case 2: { /* a number of 4 or 8 bytes */
        const uint64_t n = numbers[below(r, EQI_COUNT(numbers))];
        const size_t width = below(r, 2) ? 8 : 4;
        if (left >= width) memcpy(p + at, &n, width);
        return size;
    }
    case 3: { /* a number in decimal */
        const int n = snprintf((char *)b, sizeof b, "%llu",
                               (unsigned long long)numbers[below(r, EQI_COUNT(numbers))]);
        return insert(p, size, at, b, (size_t)n);
    }
    case 4: { /* cut out */
        const size_t n = left ? below(r, left < 16 ? left : 16) : 0;
        memmove(p + at, p + at + n, left - n);
        return size - n;
    }
    case 5: { /* repeat a part of this or another input */
        const input *other = &corpus[below(r, count)];
        const size_t from = below(r, other->size + 1), n = other->size - from;
        return insert(p, size, at, other->data + from, n < 64 ? n : 64);
    }
    case 6: return below(r, 8) ? size : at; /* truncate, seldom */
    default:
        if (left > 1) { /* swap two bytes */
            const size_t other = at + below(r, left);
            const uint8_t t = p[at];
            p[at] = p[other];
            p[other] = t;
        }
        return size;
    }
}

static int run(input *corpus, size_t count, long iterations, uint64_t seed)
{
    uint8_t *p = malloc(INPUT_MAX);
    must(p != NULL, "memory");
    for (size_t i = 0; i < count; i++) LLVMFuzzerTestOneInput(corpus[i].data, corpus[i].size);
    source r = {seed, 0};
    for (long i = 0; count && i < iterations; i++) {
        const input *from = &corpus[below(&r, count)];
        size_t size = from->size < INPUT_MAX ? from->size : INPUT_MAX;
        memcpy(p, from->data, size);
        for (size_t n = 1 + below(&r, 4); n-- > 0;) size = mutate(&r, corpus, count, p, size);
        /* A copy of exactly this size, so that a read past its end is seen. */
        uint8_t *exact = malloc(size ? size : 1);
        must(exact != NULL, "memory");
        memcpy(exact, p, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
    }
    free(p);
    printf("%zu files, %ld mutations\n", count, count ? iterations : 0);
    return 0;
}

int main(int argc, char **argv)
{
    long iterations = 20000;
    uint64_t seed = 1;
    int option;
    while ((option = getopt(argc, argv, "n:s:")) != -1) {
        if (option == 'n')
            iterations = strtol(optarg, NULL, 10);
        else if (option == 's')
            seed = strtoull(optarg, NULL, 10);
        else
            return 2;
    }
    eqi_ctx *ctx = context();
    const size_t count = (size_t)(argc - optind);
    input *corpus = calloc(count + 1, sizeof *corpus);
    must(corpus != NULL, "memory");
    for (size_t i = 0; i < count; i++) {
        char *text;
        must(eqi_file_slurp(ctx, argv[optind + (int)i], MEMORY_MAX, &text, &corpus[i].size) ==
                 EQAT_OK,
             ctx->error);
        corpus[i].data = (uint8_t *)text;
    }
    const int result = run(corpus, count, iterations, seed);
    for (size_t i = 0; i < count; i++) eqi_free(ctx, corpus[i].data);
    free(corpus);
    eqi_ctx_unref(ctx);
    close(file);
    return result;
}
#endif
