/* What long calls tell while they run. */
#ifndef EQI_PROGRESS_H
#define EQI_PROGRESS_H

#include "base/context.h"
#include "eqat/progress.h"

/* Asks the callback, when there is one, whether to go on. */
static inline eqat_status eqi_report_progress(eqi_ctx *ctx, eqat_progress_fn progress, void *user,
                                              eqat_progress *p)
{
    p->struct_size = sizeof *p;
    if (!progress || !progress(user, p)) return EQAT_OK;
    return eqi_fail(ctx, EQAT_CANCELLED, "cancelled by the progress callback");
}

#endif
