/* A context with counted memory and an empty folder for each test of a file; nothing may be left of
 * either. */
#ifndef TESTS_SUPPORT_EACH_TEST_H
#define TESTS_SUPPORT_EACH_TEST_H

#include "context.h"
#include "files.h"

static eqi_ctx *ctx;
static counter memory;
static const char *dir;

static inline void open_each(const char *device)
{
    memory = (counter){0};
    ctx = open_counted(device, &memory);
    dir = scratch_dir();
}

static inline void setup(void) { open_each("cpu"); }
static inline void setup_ref(void) { open_each("ref"); }

/* Refuses every request behind the next n; negative: none. */
static inline void refuse_after(long n)
{
    memory.requests = 0;
    memory.fail_at = n < 0 ? 0 : (size_t)n + 1;
}

static inline void teardown(void)
{
    scratch_clean();
    ck_assert_uint_eq(ctx->live_bytes, 0);
    eqi_ctx_unref(ctx);
    ck_assert_uint_eq(memory.live, 0);
}

#endif
