#ifndef TESTS_OOM_STEP_H
#define TESTS_OOM_STEP_H

#include "engine.h"

/* Parameters, two rounds of forward, backward with recomputation, clipping and AdamW; loss of the
 * last round. Everything it made is gone when it returns, however it returns. */
eqat_status training_step(eqi_ctx *ctx, eqi_dtype dtype, float *loss);
/* Start values, codes, and a linear through them. */
/* Views, and rows that go through experts and come back. */
eqat_status routing(eqi_ctx *ctx, float *result);
eqat_status quantizing(eqi_ctx *ctx, float *loss);

#endif
