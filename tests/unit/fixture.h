/* A tape for each test of a file; nothing may be left of it, nor of its tensors. */
#ifndef TESTS_UNIT_FIXTURE_H
#define TESTS_UNIT_FIXTURE_H

#include "autograd/tape.h"
#include "unit.h"

static eqi_ctx *ctx;
static eqi_tape *tape;
static counter memory;

static inline void setup(void)
{
    memory = (counter){0};
    ctx = open_counted("ref", &memory);
    OK(ctx, eqi_tape_create(ctx, &tape));
}

static inline void teardown(void)
{
    eqi_tape_free(tape);
    eqi_tape_free(NULL);
    ck_assert_uint_eq(ctx->live_bytes, 0);
    eqi_ctx_unref(ctx);
    ck_assert_uint_eq(memory.live, 0);
}

#endif
