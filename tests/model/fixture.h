/* A context and an empty folder for each test of a file. */
#ifndef TESTS_MODEL_FIXTURE_H
#define TESTS_MODEL_FIXTURE_H

#include "tiny.h"

static eqi_ctx *ctx;
static char *dir;

static inline void setup(void)
{
    ctx = open_ctx("cpu");
    dir = fresh_dir();
}

static inline void teardown(void)
{
    remove_dir(dir);
    eqi_ctx_unref(ctx);
}

#endif
