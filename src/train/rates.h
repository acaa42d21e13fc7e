/* Learning rates: what a rate of 0 stands for, and of what size a relative rate of 1 is. */
#ifndef EQI_TRAIN_RATES_H
#define EQI_TRAIN_RATES_H

#include "eqat/train.h"
#include "tensor/tensor.h"

/* What moves at a rate of its own; QUANT: scales and zero points. */
typedef enum eqi_mover { EQI_WEIGHT, EQI_QUANT } eqi_mover;

/* Words of eqat_lr_unit. */
extern const char *const eqi_lr_unit_names[3];
/* A rate of Block-AP as given or, when that is 0, as lr_unit, the number of steps and the fewest
 * bits have it. */
double eqi_block_ap_rate(double given, int32_t lr_unit, eqi_mover mover, int64_t steps, int bits);
/* Likewise of E2E-QP. */
double eqi_e2e_qp_rate(double given, int32_t lr_unit, int bits);
/* A line where a relative rate is so low that an absolute one must be meant; `usual` is that of 0.
 */
void eqi_rate_warn(eqi_ctx *ctx, const char *name, double given, double usual);
/* The size of what moves: mean magnitude of F32 values; 1 when they are all 0, so that they can
 * move. */
eqat_status eqi_mean_size(const eqi_tensor *t, double *out);

#endif
