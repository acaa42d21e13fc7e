/* The entries that the CPU backend does not take over from the reference kernels. */
#ifndef EQI_CPU_BACKEND_H
#define EQI_CPU_BACKEND_H

#include "cpu/cpu.h"

eqat_status eqi_cpu_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *w, const eqi_view *bias);
eqat_status eqi_cpu_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy, const eqi_view *w, bool acc);
eqat_status eqi_cpu_linear_bwd_w(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *dy, const eqi_view *x, bool acc);
eqat_status eqi_cpu_fq_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *w, const eqi_view *s,
                              const eqi_view *z, const eqi_view *bias, const eqi_quant_desc *q);
eqat_status eqi_cpu_fq_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy, const eqi_view *w, const eqi_view *s,
                                    const eqi_view *z, const eqi_quant_desc *q, bool acc);
eqat_status eqi_cpu_fq_linear_bwd_w(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds, const eqi_view *dz, const eqi_view *dy,
                                    const eqi_view *x, const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                    const eqi_quant_desc *q, bool acc);
eqat_status eqi_cpu_packed_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *codes, const eqi_view *s,
                                  const eqi_view *z, const eqi_view *bias, const eqi_quant_desc *q);
eqat_status eqi_cpu_packed_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy, const eqi_view *codes,
                                        const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q, bool acc);
eqat_status eqi_cpu_packed_linear_bwd_sz(eqi_ctx *ctx, const eqi_view *ds, const eqi_view *dz, const eqi_view *dy,
                                         const eqi_view *x, const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                         const eqi_quant_desc *q, bool acc);

#endif
