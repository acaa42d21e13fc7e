/* Which state of what trains is kept: shared by Block-AP and E2E-QP. */
#ifndef EQI_TRAIN_KEEP_H
#define EQI_TRAIN_KEEP_H

#include "base/context.h"
#include "eqat/train.h"

/* Words of eqat_keep. */
extern const char *const eqi_keep_names[4];

typedef enum eqi_kept { EQI_KEPT_LAST, EQI_KEPT_BEST, EQI_KEPT_START } eqi_kept;

/* EQAT_INVALID_ARGUMENT: there are no validation samples. */
eqat_status eqi_keep_refuse_best(eqi_ctx *ctx);
/* Whether a state of this validation loss is the best so far; best infinite: there is none yet. A
 * state that is worse than the start never is. */
bool eqi_keep_is_best(int32_t keep, double start, double best, double loss);
/* Behind the last step. NaN in place of losses that nobody has measured. */
eqi_kept eqi_keep_choose(int32_t keep, double start, double best, double last);

#endif
