/* What embedders rely on: the context among a host program's threads, memory and floating point. */
#ifndef TESTS_API_API_H
#define TESTS_API_API_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "eqat/eqat.h"

#define OK(expr) ck_assert_int_eq(expr, EQAT_OK)

TCase *cancel_case(void);
TCase *floats_case(void);
TCase *frees_case(void);
TCase *options_case(void);
TCase *threads_case(void);

static inline eqat_context *open_context(const eqat_context_options *options)
{
    char error[256] = "";
    eqat_context *ctx;
    eqat_status st = eqat_context_create(&ctx, options, error, sizeof error);
    ck_assert_msg(st == EQAT_OK, "%s", error);
    return ctx;
}

static inline eqat_context_options defaults(void)
{
    eqat_context_options o;
    eqat_context_options_init(&o, sizeof o);
    o.threads = 2;
    return o;
}

static inline eqat_tensor *vector(eqat_context *ctx, int64_t n, double value)
{
    eqat_tensor *t;
    OK(eqat_tensor_create(ctx, &t, EQAT_F32, 1, &n, NULL));
    OK(eqat_tensor_fill(t, value));
    return t;
}

#endif
