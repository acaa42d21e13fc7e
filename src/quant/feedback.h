/* Masters that start from error feedback: Frantar et al., GPTQ, with scales that are given, in the
 * form of Chee et al., QuIP (their theorem 6 says that it is the same). */
#ifndef EQI_QUANT_FEEDBACK_H
#define EQI_QUANT_FEEDBACK_H

#include "ops/ops.h"

/* What linears of the same inputs share. */
typedef struct eqi_feedback {
    eqi_tensor *moments; /* F32 [K, K], for descent */
    eqi_tensor *factor;  /* F32 [K, K]; NULL: all inputs were zero */
    int64_t *order;      /* [K]: inputs by falling moments */
} eqi_feedback;

/* Of the moments F32 [K, K] of the inputs. Those of a few ten thousand tokens tell what single
 * inputs are like far better than what two have in common, so 40% of each square is added to the
 * diagonal: whoever trusts all correlations fits the calibration text. 1% of the mean square, which
 * GPTQ adds, is for inputs that are always zero. To the diagonal of moments itself, which descent
 * reads, twice each square and that 1% are added. EQAT_NUMERIC when they are not finite. Nothing
 * after a failure. */
eqat_status eqi_feedback_make(eqi_tensor *moments, eqi_feedback *out);
void eqi_feedback_release(eqi_ctx *ctx, eqi_feedback *f);

/* Changes w F32 [N, K] to the values that rounding to s and z [N, G] finds best one after another:
 * inputs in their order, each one's rounding error made up for by those that follow. With `descent`
 * codes and scales then go further (descent.h), and w and s change with them. Without a factor both
 * stay. */
eqat_status eqi_feedback_start(const eqi_feedback *f, eqi_tensor *w, eqi_tensor *s,
                               const eqi_tensor *z, const eqi_quant_desc *desc, bool descent);

#endif
