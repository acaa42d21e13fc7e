#include "train/keep.h"

const char *const eqi_keep_names[4] = {"start-or-last", "last", "best", NULL};

eqat_status eqi_keep_refuse_best(eqi_ctx *ctx)
{
    return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                    "keep: found best without validation samples, expected some of them");
}

bool eqi_keep_is_best(int32_t keep, double start, double best, double loss)
{
    return keep == EQAT_KEEP_BEST && loss < best && !(loss > start);
}

eqi_kept eqi_keep_choose(int32_t keep, double start, double best, double last)
{
    if (keep == EQAT_KEEP_BEST && best < last) return EQI_KEPT_BEST;
    if (keep == EQAT_KEEP_LAST || !(last > start)) return EQI_KEPT_LAST;
    return EQI_KEPT_START;
}
