/* What the engine's own tests share: tensors as arrays of double. */
#ifndef TESTS_SUPPORT_ENGINE_H
#define TESTS_SUPPORT_ENGINE_H

#include "backend/backend.h"
#include "context.h"
#include "ops/ops.h"

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
