/* packed_linear for a few rows of x, without its weight in memory (ops/packed_matvec.cu). */
#ifndef EQI_CUDA_PACKED_MATVEC_H
#define EQI_CUDA_PACKED_MATVEC_H

#include "backend.h"

/* Is this a case for it? */
bool eqi_cuda_packed_matvec_fits(const eqi_view *x, const eqi_view *codes, const eqi_view *s,
                                 const eqi_view *z, const eqi_quant_desc *q);
eqat_status eqi_cuda_packed_matvec(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                   const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                   const eqi_view *bias, const eqi_quant_desc *q);

/* The same on mma.sync (ops/packed_mma.cu), for what fits above. */
bool eqi_cuda_packed_mma_fits(eqi_ctx *ctx, const eqi_view *x, const eqi_view *codes,
                              const eqi_view *z, const eqi_quant_desc *q);
eqat_status eqi_cuda_packed_mma(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                const eqi_view *bias, const eqi_quant_desc *q);

#endif
