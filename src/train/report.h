/* Small things that the loops share. */
#ifndef EQI_TRAIN_REPORT_H
#define EQI_TRAIN_REPORT_H

#include <string.h>

#include "base/context.h"
#include "eqat/train.h"

/* Fills a report whose struct_size the caller has set. */
static inline void eqi_report_put(void *caller, const void *full, size_t size)
{
    size_t given = *(size_t *)caller;
    memcpy(caller, full, given < size ? given : size);
    *(size_t *)caller = given;
}

/* Asks the callback, when there is one, whether to go on. */
static inline eqat_status eqi_report_progress(eqi_ctx *ctx, eqat_progress_fn progress, void *user, eqat_progress *p)
{
    p->struct_size = sizeof *p;
    if (!progress || !progress(user, p)) return EQAT_OK;
    return eqi_fail(ctx, EQAT_CANCELLED, "cancelled by the progress callback");
}

#endif
