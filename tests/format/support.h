/* What the format tests share: a context whose allocations can be made to fail, a scratch folder,
 * byte strings. */
#ifndef TESTS_FORMAT_SUPPORT_H
#define TESTS_FORMAT_SUPPORT_H

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/context.h"
#include "base/file.h"
#include "run_suite.h"

static long allocations_left = -1; /* negative: no limit */
static bool json_allocations_fail; /* whether those of jansson count too; it takes some of them for
                                      damaged text */

static bool may_allocate(void)
{
    if (allocations_left == 0) return false;
    if (allocations_left > 0) allocations_left--;
    return true;
}

static void *test_alloc(void *user, size_t size, size_t align)
{
    (void)user;
    void *p = NULL;
    return may_allocate() && posix_memalign(&p, align, size) == 0 ? p : NULL;
}

static void test_free(void *user, void *p)
{
    (void)user;
    free(p);
}

static void *test_malloc(size_t size)
{
    return !json_allocations_fail || may_allocate() ? malloc(size) : NULL;
}

static eqi_ctx *ctx;
static size_t ctx_bytes;
static char folder_name[64];

static inline void set_up(void)
{
    static char error[EQI_ERROR_MAX];
    const eqi_ctx_config config = {
        .device = "cpu", .threads = 1, .allocator = {test_alloc, test_free, NULL}};
    json_set_alloc_funcs(test_malloc, free);
    ck_assert_msg(eqi_ctx_create(&ctx, &config, error, sizeof error) == EQAT_OK, "%s", error);
    ctx_bytes = ctx->bytes_now;
    /* In memory where there is such a place: these tests write thousands of small files. */
    snprintf(folder_name, sizeof folder_name, "%s/eqat-format-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(folder_name));
}

static inline void tear_down(void)
{
    ck_assert_uint_eq(ctx->bytes_now, ctx_bytes);
    eqi_ctx_unref(ctx);
    DIR *d = opendir(folder_name);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) unlinkat(dirfd(d), e->d_name, 0);
    if (d) closedir(d);
    rmdir(folder_name);
}

/* A path in the scratch folder; good until the sixteenth call after. */
static inline const char *scratch(const char *name)
{
    static char paths[16][512];
    static int turn;
    char *p = paths[turn++ % 16];
    snprintf(p, sizeof paths[0], "%s/%s", folder_name, name);
    return p;
}

static inline void write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, n, f), n);
    ck_assert_int_eq(fclose(f), 0);
}

/* The failure must be `status`, and its message must hold `text` and be one line. */
#define ck_fails(expr, status, text)                                                              \
    do {                                                                                          \
        ctx->error[0] = 0;                                                                        \
        const eqat_status found_ = (expr);                                                        \
        ck_assert_msg(found_ == (status), "%s: status %d: %s", #expr, (int)found_, ctx->error);   \
        ck_assert_msg(strstr(ctx->error, (text)), "message '%s' lacks '%s'", ctx->error, (text)); \
        ck_assert_msg(!strchr(ctx->error, '\n'), "message of two lines");                         \
    } while (0)

#define ck_ok(expr)                                                                     \
    do {                                                                                \
        const eqat_status found_ = (expr);                                              \
        ck_assert_msg(found_ == EQAT_OK, "%s: %d: %s", #expr, (int)found_, ctx->error); \
    } while (0)

typedef struct bytes {
    unsigned char *p;
    size_t n, capacity;
} bytes;

static inline void put(bytes *b, const void *data, size_t n)
{
    if (b->n + n > b->capacity) {
        b->capacity = 2 * (b->n + n) + 64;
        b->p = realloc(b->p, b->capacity);
        ck_assert_ptr_nonnull(b->p);
    }
    if (n) memcpy(b->p + b->n, data, n);
    b->n += n;
}

static inline void put_u32(bytes *b, uint32_t x) { put(b, &x, sizeof x); }
static inline void put_u64(bytes *b, uint64_t x) { put(b, &x, sizeof x); }

static inline void put_string(bytes *b, const char *s)
{
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

static inline void put_zeros(bytes *b, size_t n)
{
    static const unsigned char zeros[64];
    for (; n; n -= n < 64 ? n : 64) put(b, zeros, n < 64 ? n : 64);
}

#endif
