/* What every test shares: calls that succeed or fail so, contexts, memory that is counted. */
#ifndef TESTS_SUPPORT_CONTEXT_H
#define TESTS_SUPPORT_CONTEXT_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "run_suite.h"

/* The call succeeds; what the context said goes into the report. */
#define OK(ctx, expr)                                                                            \
    do {                                                                                         \
        eqat_status ok_ = (expr);                                                                \
        ck_assert_msg(ok_ == EQAT_OK, "%s: %s: %s", #expr, eqat_status_name(ok_), (ctx)->error); \
    } while (0)

/* The call fails with this status and says exactly this. */
#define FAILS(ctx, status, message, expr)                                                   \
    do {                                                                                    \
        eqat_status fails_ = (expr);                                                        \
        ck_assert_msg(fails_ == (status), "%s: found %s", #expr, eqat_status_name(fails_)); \
        ck_assert_str_eq((ctx)->error, message);                                            \
    } while (0)

/* The call fails with this status, and its one line holds this text. */
#define says(ctx, expr, status, text)                           \
    do {                                                        \
        (ctx)->error[0] = 0;                                    \
        expect_failure((ctx), #expr, (expr), (status), (text)); \
    } while (0)
void expect_failure(const eqi_ctx *ctx, const char *call, eqat_status found, eqat_status expected,
                    const char *text);

/* An allocator that counts, and fails from the fail_at-th request on (1-based; 0: never), or that
 * one alone. */
typedef struct counter {
    size_t live, bytes, requests, fail_at;
    bool once;
} counter;
eqi_allocator counting(counter *c);
/* Whether the next request, which this counts, is granted: for other allocators that join in. */
bool granted(counter *c);

/* Two threads. */
eqi_ctx *open_ctx(const char *device);
eqi_ctx *open_counted(const char *device, counter *c);

#endif
