/* The three products of a linear with a weight in any form. */
#ifndef EQI_CPU_LINEAR_H
#define EQI_CPU_LINEAR_H

#include "cpu/gemm.h"

/* y[R, N] = x[R, K] w[N, K]^T + bias */
eqat_status eqi_cpu_product(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_rows *w,
                            const eqi_view *bias);
/* The same for so few rows that to pack the weight for tiles would take longer than to multiply it.
 */
#define EQI_FEW_ROWS 4
eqat_status eqi_cpu_few_rows(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_rows *w,
                             const eqi_view *bias);
/* dx[R, K] = dy[R, N] w[N, K] */
eqat_status eqi_cpu_product_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                  const eqi_rows *w, bool acc);
/* The product dy[R, N]^T x[R, K] for the caller to set period, unit, store and arg in; a and b:
 * room for its operands */
eqi_gemm eqi_cpu_product_bwd_w(const eqi_view *dy, const eqi_view *x, eqi_rows *a, eqi_rows *b);

#endif
