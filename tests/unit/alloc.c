#include "engine/engine.h"
#include "unit.h"

START_TEST(accounts_and_aligns)
{
    counter c = {0};
    eqi_ctx *ctx = open_counted("ref", &c);
    size_t before = ctx->bytes_now, live = c.live;
    void *a = eqi_alloc(ctx, 100, "a"), *b = eqi_alloc(ctx, 0, "b");
    ck_assert(a && b);
    ck_assert_uint_eq((uintptr_t)a % EQI_ALIGN, 0);
    ck_assert_uint_eq((uintptr_t)b % EQI_ALIGN, 0);
    ck_assert_uint_eq(ctx->bytes_now, before + 101); /* of nothing it is one */
    eqi_free(ctx, a);
    eqi_free(ctx, b);
    eqi_free(ctx, NULL);
    ck_assert_uint_eq(ctx->bytes_now, before);
    ck_assert_uint_eq(ctx->bytes_peak, before + 101);
    ck_assert_uint_eq(c.live, live);
    eqi_ctx_unref(ctx);
    ck_assert_uint_eq(c.live, 0);
}
END_TEST

START_TEST(realloc_keeps_contents)
{
    counter c = {0};
    eqi_ctx *ctx = open_counted("ref", &c);
    char *p = eqi_realloc(ctx, NULL, 4, "p");
    memcpy(p, "abc", 4);
    p = eqi_realloc(ctx, p, 1000, "p");
    ck_assert_str_eq(p, "abc");
    c.fail_at = c.requests + 1;
    ck_assert_ptr_null(eqi_realloc(ctx, p, 2000, "a longer list"));
    ck_assert_str_eq(ctx->error, "out of memory: 2000 bytes for a longer list");
    ck_assert_str_eq(p, "abc");
    c.fail_at = 0;
    p = eqi_realloc(ctx, p, 2, "p");
    ck_assert(p[0] == 'a' && p[1] == 'b');
    eqi_free(ctx, p);
    eqi_ctx_unref(ctx);
    ck_assert_uint_eq(c.live, 0);
}
END_TEST

START_TEST(sizes_that_overflow)
{
    eqi_ctx *ctx = open_ctx("ref");
    ck_assert_ptr_null(eqi_calloc(ctx, SIZE_MAX / 2, 4, "too much"));
    ck_assert_ptr_null(eqi_alloc(ctx, SIZE_MAX - 8, "too much"));
    eqi_ctx_unref(ctx);
}
END_TEST

START_TEST(strings)
{
    eqi_ctx *ctx = open_ctx("ref");
    char *a = eqi_strdup(ctx, "tensor"), *b = eqi_asprintf(ctx, "%s.%d", a, 12);
    ck_assert_str_eq(b, "tensor.12");
    eqi_free(ctx, a);
    eqi_free(ctx, b);
    eqi_ctx_unref(ctx);
}
END_TEST

START_TEST(half_an_allocator)
{
    counter c = {0};
    eqi_ctx_config config = {.device = "ref", .allocator = counting(&c)};
    config.allocator.free = NULL;
    char error[200];
    eqi_ctx *ctx = (eqi_ctx *)&c;
    ck_assert_int_eq(eqi_ctx_create(&ctx, &config, error, sizeof error), EQAT_INVALID_ARGUMENT);
    ck_assert_ptr_null(ctx);
    ck_assert_str_eq(error, "allocator: alloc and free must be given together");
    ck_assert_int_eq(eqi_ctx_create(&ctx, &config, NULL, 0), EQAT_INVALID_ARGUMENT);
}
END_TEST

START_TEST(error_is_one_line)
{
    eqi_ctx *ctx = open_ctx("ref");
    ck_assert_int_eq(eqi_fail(ctx, EQAT_FORMAT, "bad\nname \"%s\"", "a\tb\x7f"), EQAT_FORMAT);
    ck_assert_str_eq(ctx->error, "bad name \"a b \"");
    ck_assert_int_eq(eqi_fail_in(ctx, EQAT_FORMAT, "%s", "file"), EQAT_FORMAT);
    ck_assert_str_eq(ctx->error, "file: bad name \"a b \"");
    char longer[2 * EQI_ERROR_MAX];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    eqi_fail(ctx, EQAT_IO, "%s", longer);
    ck_assert_uint_eq(strlen(ctx->error), EQI_ERROR_MAX - 1);
    ck_assert_int_eq(eqi_fail(NULL, EQAT_IO, "nobody listens"), EQAT_IO);
    eqi_ctx_unref(ctx);
}
END_TEST

START_TEST(cancelling_once)
{
    eqi_ctx *ctx = open_ctx("ref");
    OK(ctx, eqi_check_cancel(ctx));
    atomic_store(&ctx->cancelled, 1);
    FAILS(ctx, EQAT_CANCELLED, "cancelled", eqi_check_cancel(ctx));
    OK(ctx, eqi_check_cancel(ctx));
    eqi_ctx_unref(ctx);
}
END_TEST

typedef struct lines {
    int n, level;
    char last[64];
} lines;

static void keep_line(void *user, int level, const char *line)
{
    lines *l = user;
    l->n++;
    l->level = level;
    snprintf(l->last, sizeof l->last, "%s", line);
}

START_TEST(log_levels)
{
    lines l = {0};
    eqi_ctx_config config = {
        .device = "ref", .threads = 1, .log = keep_line, .log_user = &l, .log_level = EQI_LOG_INFO};
    eqi_ctx *ctx;
    ck_assert_int_eq(eqi_ctx_create(&ctx, &config, NULL, 0), EQAT_OK);
    l.n = 0;
    eqi_log(ctx, EQI_LOG_DEBUG, "not %d", 1);
    ck_assert_int_eq(l.n, 0);
    eqi_log(ctx, EQI_LOG_WARN, "step %d", 3);
    ck_assert_int_eq(l.n, 1);
    ck_assert_int_eq(l.level, EQI_LOG_WARN);
    ck_assert_str_eq(l.last, "step 3");
    eqi_log(ctx, EQI_LOG_WARN, "%s: one line", "two\nlines");
    ck_assert_str_eq(l.last, "two lines: one line");
    eqi_ctx_unref(ctx);
}
END_TEST

START_TEST(status_names)
{
    ck_assert_str_eq(eqat_status_name(EQAT_OK), "ok");
    for (int i = 0; i <= EQAT_BACKEND; i++)
        ck_assert_str_ne(eqat_status_name((eqat_status)i), "unknown status");
    ck_assert_str_eq(eqat_status_name((eqat_status)99), "unknown status");
}
END_TEST

TCase *case_alloc(void)
{
    TCase *t = tcase_create("alloc");
    tcase_add_test(t, accounts_and_aligns);
    tcase_add_test(t, realloc_keeps_contents);
    tcase_add_test(t, sizes_that_overflow);
    tcase_add_test(t, strings);
    tcase_add_test(t, half_an_allocator);
    tcase_add_test(t, error_is_one_line);
    tcase_add_test(t, cancelling_once);
    tcase_add_test(t, log_levels);
    tcase_add_test(t, status_names);
    return t;
}
