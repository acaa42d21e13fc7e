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
eqat_status eqi_cpu_fq_linear_update(eqi_ctx *ctx, const eqi_update *u, const eqi_view *ds, const eqi_view *dz, const eqi_view *dy,
                                     const eqi_view *x, const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                     const eqi_quant_desc *q);
eqat_status eqi_cpu_packed_linear(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *codes, const eqi_view *s,
                                  const eqi_view *z, const eqi_view *bias, const eqi_quant_desc *q);
eqat_status eqi_cpu_packed_linear_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy, const eqi_view *codes,
                                        const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q, bool acc);
eqat_status eqi_cpu_packed_linear_bwd_sz(eqi_ctx *ctx, const eqi_view *ds, const eqi_view *dz, const eqi_view *dy,
                                         const eqi_view *x, const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                         const eqi_quant_desc *q, bool acc);
eqat_status eqi_cpu_fill(eqi_ctx *ctx, const eqi_view *y, double value);
eqat_status eqi_cpu_copy(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x);
eqat_status eqi_cpu_axpby(eqi_ctx *ctx, const eqi_view *y, double alpha, const eqi_view *a, double beta, const eqi_view *b);
eqat_status eqi_cpu_mul(eqi_ctx *ctx, const eqi_view *y, const eqi_view *a, const eqi_view *b, bool acc);
eqat_status eqi_cpu_scale_by(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *factor, bool acc);
eqat_status eqi_cpu_embedding(eqi_ctx *ctx, const eqi_view *y, const eqi_view *ids, const eqi_view *table);
eqat_status eqi_cpu_embedding_bwd(eqi_ctx *ctx, const eqi_view *dtable, const eqi_view *ids, const eqi_view *dy);
eqat_status eqi_cpu_bias_bwd(eqi_ctx *ctx, const eqi_view *dbias, const eqi_view *dy, bool acc);
eqat_status eqi_cpu_rmsnorm(eqi_ctx *ctx, const eqi_view *y, const eqi_view *rstd, const eqi_view *x, const eqi_view *gain,
                            double eps);
eqat_status eqi_cpu_rmsnorm_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dgain, const eqi_view *dy, const eqi_view *x,
                                const eqi_view *gain, const eqi_view *rstd, bool acc_dx, bool acc_dgain);
eqat_status eqi_cpu_rope(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *cos, const eqi_view *sin,
                         const eqi_view *pos, int sign);
eqat_status eqi_cpu_silu_mul(eqi_ctx *ctx, const eqi_view *y, const eqi_view *gate, const eqi_view *up);
eqat_status eqi_cpu_silu_mul_bwd(eqi_ctx *ctx, const eqi_view *dgate, const eqi_view *dup, const eqi_view *dy,
                                 const eqi_view *gate, const eqi_view *up);
eqat_status eqi_cpu_mse(eqi_ctx *ctx, const eqi_view *loss, const eqi_view *x, const eqi_view *target);
eqat_status eqi_cpu_mse_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dloss, const eqi_view *x, const eqi_view *target,
                            bool acc);
eqat_status eqi_cpu_linear_cross_entropy(eqi_ctx *ctx, const eqi_view *stats, const eqi_view *dx, const eqi_view *dw,
                                         const eqi_view *x, const eqi_view *w, const eqi_view *labels);
eqat_status eqi_cpu_sum_squares(eqi_ctx *ctx, const eqi_view *sum, const eqi_view *g);
eqat_status eqi_cpu_adamw(eqi_ctx *ctx, const eqi_view *p, const eqi_view *g, const eqi_view *m, const eqi_view *v,
                          const eqi_view *factor, const eqi_adamw_desc *d);

eqat_status eqi_cpu_attention(eqi_ctx *ctx, const eqi_view *o, const eqi_view *lse, const eqi_view *q, const eqi_view *k,
                              const eqi_view *v, const eqi_view *segments, const eqi_attention_desc *d);
eqat_status eqi_cpu_attention_bwd(eqi_ctx *ctx, const eqi_view *dq, const eqi_view *dk, const eqi_view *dv, const eqi_view *d_o,
                                  const eqi_view *o, const eqi_view *lse, const eqi_view *q, const eqi_view *k, const eqi_view *v,
                                  const eqi_view *segments, const eqi_attention_desc *d);

eqat_status eqi_cpu_fakequant(eqi_ctx *ctx, const eqi_view *what, const eqi_view *w, const eqi_view *s, const eqi_view *z,
                              const eqi_quant_desc *q);
eqat_status eqi_cpu_fakequant_bwd(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds, const eqi_view *dz, const eqi_view *dwhat,
                                  const eqi_view *w, const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q, bool acc);
eqat_status eqi_cpu_dequantize(eqi_ctx *ctx, const eqi_view *what, const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                               const eqi_quant_desc *q);
eqat_status eqi_cpu_quantize(eqi_ctx *ctx, const eqi_view *codes, const eqi_view *w, const eqi_view *s, const eqi_view *z,
                             const eqi_quant_desc *q);
eqat_status eqi_cpu_init_minmax(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z, const eqi_view *w, const eqi_quant_desc *q);
eqat_status eqi_cpu_init_mse(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z, const eqi_view *w, const eqi_quant_desc *q);

#endif
