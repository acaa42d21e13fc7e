/* What the loops tell while they run. */
#ifndef EQI_TRAIN_REPORT_H
#define EQI_TRAIN_REPORT_H

#include "api/progress.h"
#include "eqat/train.h"

/* What a callback of the caller's returned, as an error that names it; the context's error was
 * cleared before. */
static inline eqat_status eqi_report_callback(eqi_ctx *ctx, const char *callback, eqat_status st)
{
    if (st == EQAT_OK) return st;
    if (ctx->error[0]) return eqi_fail_in(ctx, st, "%s", callback);
    return eqi_fail(ctx, st, "%s: failed: %s", callback, eqat_status_name(st));
}

/* A loss of the caller's and what its callback returned: one F32, or NULL and an error. */
eqat_status eqi_report_loss(eqi_ctx *ctx, eqat_status st, eqat_tensor **loss);

/* Sums over ranks, when there is a callback that makes them. */
static inline eqat_status eqi_report_reduce(eqi_ctx *ctx, eqat_reduce_fn reduce, void *user,
                                            double *sums, size_t count)
{
    if (!reduce) return EQAT_OK;
    ctx->error[0] = 0;
    return eqi_report_callback(ctx, "reduce callback", reduce(user, sums, count));
}

#endif
