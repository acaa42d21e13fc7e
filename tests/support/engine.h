/* What the engine's own tests share: contexts, counted memory, tensors as arrays of double. */
#ifndef TESTS_SUPPORT_ENGINE_H
#define TESTS_SUPPORT_ENGINE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "ops/ops.h"
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

/* An allocator that counts, and fails from the fail_at-th request on (1-based; 0: never), or that
 * one alone. */
typedef struct counter {
    size_t live, requests, fail_at;
    bool once;
} counter;
eqi_allocator counting(counter *c);

eqi_ctx *open_ctx(const char *device);
eqi_ctx *open_counted(const char *device, counter *c);

typedef struct dims {
    int n;
    int64_t at[EQI_MAX_DIMS];
} dims;
#define DIMS(...) ((dims){sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), {__VA_ARGS__}})

/* Element i in row-major order, on the host. */
double get(const eqi_tensor *t, int64_t i);
void put(eqi_tensor *t, int64_t i, double value);
eqi_tensor *make(eqi_ctx *ctx, eqi_dtype dtype, dims shape);
eqi_tensor *make_from(eqi_ctx *ctx, eqi_dtype dtype, dims shape, const double *values);
/* Normal values, a pure function of the stream. */
eqi_tensor *make_random(eqi_ctx *ctx, eqi_dtype dtype, dims shape, uint32_t stream, double scale);
/* The same values in a view with gaps in every dimension. */
eqi_tensor *scattered(eqi_tensor *t);
eqi_tensor *trainable(eqi_tensor *t);
int64_t count(const eqi_tensor *t);
bool same_bits(const eqi_tensor *a, const eqi_tensor *b);
/* Largest difference over the rms of a. */
double relative(const eqi_tensor *a, const eqi_tensor *b);

#endif
