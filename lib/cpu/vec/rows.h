#ifndef EQI_CPU_VEC_ROWS_H
#define EQI_CPU_VEC_ROWS_H

#include "cpu/vec/vec.h"

/* See eqi_simd. */
void VEC(rows)(void *out, eqi_elem elem, const eqi_rows *src, int64_t row, int64_t col, int64_t n);
void VEC(pack_a)(void *dst, const eqi_pack *p, void *scratch);
void VEC(pack_b)(void *dst, const eqi_pack *p, void *scratch);
void VEC(product)(float *c, eqi_elem elem, const void *a, const void *b, const int64_t mnk[3],
                  bool acc);
void VEC(finish)(void *out, eqi_dtype dtype, const float *sum, const float *bias, int64_t n,
                 bool acc);

void VEC(fake_quant_grad)(const eqi_rows *w, int64_t row, int64_t col, int64_t n, const float *g,
                          float *dw, float *sum_s, float *sum_z, bool acc);
void VEC(packed_grad)(const eqi_rows *w, int64_t row, int64_t col, int64_t n, const float *g,
                      float *sum_s, float *sum_z);

void VEC(axpby)(void *y, eqi_dtype ty, float alpha, const void *a, eqi_dtype ta, float beta,
                const void *b, eqi_dtype tb, int64_t n);
void VEC(mul)(void *y, eqi_dtype ty, const void *a, eqi_dtype ta, const void *b, eqi_dtype tb,
              int64_t n, bool acc);
void VEC(convert)(void *y, eqi_dtype ty, const void *x, eqi_dtype tx, int64_t n);
void VEC(sum_rows)(float *sum, const void *x, eqi_dtype dtype, int64_t n, bool acc);
void VEC(dots)(float *sums, eqi_elem elem, const void *w, const void *x, int64_t m, int64_t n);
double VEC(dot)(const void *a, const void *b, eqi_dtype dtype, int64_t n);
double VEC(sum_squares)(const float *g, int64_t n);
bool VEC(is_finite)(const void *x, eqi_dtype dtype, int64_t n);
double VEC(squared_error)(const void *x, const void *target, eqi_dtype dtype,
                          eqi_dtype target_dtype, int64_t n);
void VEC(squared_error_bwd)(void *dx, eqi_dtype tdx, const void *x, eqi_dtype tx,
                            const void *target, eqi_dtype tt, float factor, int64_t n, bool acc);
void VEC(adamw)(float *p, const float *g, float *m, float *v, const eqi_adamw_terms *t, int64_t n);
float VEC(rmsnorm)(void *y, const void *x, const float *gain, eqi_dtype dtype, int64_t n, float eps,
                   float offset);
void VEC(rmsnorm_bwd)(void *dx, float *dgain, const void *dy, const void *x, const float *gain,
                      float rstd, float offset, eqi_dtype dtype, int64_t n, bool acc_dx,
                      bool acc_dgain);
void VEC(rope)(void *y, const void *x, const float *cos, const float *sin, float sign,
               eqi_dtype dtype, int64_t half);
void VEC(gated)(void *y, const void *gate, const void *up, eqi_activation activation,
                eqi_dtype dtype, int64_t n);
void VEC(gated_bwd)(void *dgate, void *dup, const void *dy, const void *gate, const void *up,
                    eqi_activation activation, eqi_dtype dtype, int64_t n);
double VEC(log_sum_exp)(const float *x, int64_t n);
void VEC(softmax)(void *out, eqi_dtype dtype, const float *x, float lse, int64_t n);
double VEC(expectation)(const void *p, eqi_dtype dtype, const float *x, int64_t n, double *mass);
double VEC(divergence)(const float *x, const float *target, const float lse[2], int64_t n);
void VEC(divergence_bwd)(float *dx, const float *x, const float *target, const float lse[2],
                         float factor, int64_t n, bool acc);
void VEC(attention_keys)(const eqi_attention_head *h, void *k, void *v, int64_t block,
                         void *scratch);
size_t VEC(attention_scratch)(const eqi_attention_head *h);
void VEC(attention)(const eqi_attention_head *h, const eqi_attention_keys *keys, int64_t q0,
                    const eqi_attention_out *out, void *scratch);
size_t VEC(attention_bwd_scratch)(const eqi_attention_head *h);
void VEC(attention_bwd)(const eqi_attention_head *h, const eqi_attention_grad *g, void *scratch);

void VEC(quantize)(uint32_t *out, const eqi_rows *w, int64_t row);
void VEC(minmax)(float *s, float *z, const float *w, int64_t groups, int64_t n, int bits);
void VEC(minmax_stored)(float *s, uint8_t *z, const float *w, int64_t groups, int64_t n, int bits);
void VEC(mse)(float *s, float *z, const float *const *from, const float *const *counts, int64_t n,
              int bits, bool middle, double *scratch);

#endif
