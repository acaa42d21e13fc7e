/* The two products that read a weight, for a weight in any of its three forms. */
#ifndef EQI_CPU_REF_PRODUCT_H
#define EQI_CPU_REF_PRODUCT_H

#include "cpu/ref/quant.h"

typedef struct ref_weight {
    const eqi_view *w;     /* NULL when packed */
    const eqi_view *codes; /* NULL when not */
    const eqi_view *s, *z; /* NULL: w is taken as it is */
    const eqi_quant_desc *q;
} ref_weight;

/* Element (n, k) rounded to the dtype in which the product is computed, that of x. */
double eqi_ref_weight_at(const ref_weight *m, int64_t n, int64_t k, eqi_dtype dtype);

/* y[R, N] = x[R, K] m[N, K]^T + bias */
eqat_status eqi_ref_product(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const ref_weight *m,
                            const eqi_view *bias);
/* dx[R, K] = dy[R, N] m[N, K] */
eqat_status eqi_ref_product_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                  const ref_weight *m, bool acc);
/* dw[K] = sum over rows of dy[r, n] x[r, K]: row n of the gradient of the weight as the product saw
 * it */
void eqi_ref_product_dw(double *dw, const eqi_view *dy, const eqi_view *x, int64_t n);

#endif
