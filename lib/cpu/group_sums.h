#ifndef EQI_CPU_GROUP_SUMS_H
#define EQI_CPU_GROUP_SUMS_H

#include "cpu/linear.h"

/* The gradient dy^T x of a quantized weight, tile by tile through its quantizer: dw, ds, dz may
 * each be NULL, dw is NULL when packed; the gradient of w^ itself is never stored. */
eqat_status eqi_cpu_weight_grad(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                const eqi_view *dz, const eqi_view *dy, const eqi_view *x,
                                const eqi_rows *w, bool acc);
/* The same with dw going straight into a step of `param`, which w reads. */
eqat_status eqi_cpu_weight_update(eqi_ctx *ctx, const eqi_update *u, const eqi_view *ds,
                                  const eqi_view *dz, const eqi_view *dy, const eqi_view *x,
                                  const eqi_view *param, const eqi_rows *w);

#endif
