/* The inner kernels, one table (eqi_simd) per instruction set; what they are given is a tile or a
 * few rows, and they know nothing of threads. */
#ifndef EQI_CPU_VEC_TABLE_H
#define EQI_CPU_VEC_TABLE_H

#include "cpu/vec/attention.h"
#include "cpu/vec/operand.h"

/* Groups that init_mse searches side by side. */
#define EQI_MSE_GROUPS 16

/* What of an AdamW step does not depend on the element. */
typedef struct eqi_adamw_terms {
    float factor, beta1, beta2, gain1, gain2, eps, step_size, root, keep;
} eqi_adamw_terms;

typedef struct eqi_simd {
    const char *name;
    bool bf16;       /* has matrix instructions on bf16 */
    int64_t chunk_k; /* what a product takes of the inner dimension at once, 0: all of it */

    /* n values of a row from column `col`; a multiple of 32 when packed. */
    void (*rows)(void *out, eqi_elem elem, const eqi_rows *src, int64_t row, int64_t col,
                 int64_t n);
    /* dst[n][k], contiguous. scratch: EQI_PACK_SCRATCH bytes */
    void (*pack_a)(void *dst, const eqi_pack *p, void *scratch);
    /* dst[n / block][k][n % block], for bf16 [n / block][k / 2][n % block][k % 2] */
    void (*pack_b)(void *dst, const eqi_pack *p, void *scratch);
    /* The product of builds without oneDNN. c[m][n] (+)= a[m][k] b[k][n] for mnk = {m, n, k},
     * multiples of 1, 64 and 32; c F32, a contiguous, b as pack_b leaves it in blocks of 64. With
     * AMX m is a multiple of 16. */
    void (*product)(float *c, eqi_elem elem, const void *a, const void *b, const int64_t mnk[3],
                    bool acc);
    /* out[n] (+)= sum[n] + bias[n]; bias may be NULL */
    void (*finish)(void *out, eqi_dtype dtype, const float *sum, const float *bias, int64_t n,
                   bool acc);
    /* Columns col..col+n of a row of dw^ through the fake quantization, whose groups they do not
     * share with other columns or lie inside. Group sums of this piece in order: sum_s, sum_z
     * (either may be NULL); dw NULL or at `col`. dw may be g. */
    void (*fake_quant_grad)(const eqi_rows *w, int64_t row, int64_t col, int64_t n, const float *g,
                            float *dw, float *sum_s, float *sum_z, bool acc);
    /* The same for packed weights. */
    void (*packed_grad)(const eqi_rows *w, int64_t row, int64_t col, int64_t n, const float *g,
                        float *sum_s, float *sum_z);

    /* Contiguous pieces of n elements; dtypes F32, BF16 or F16. In place where the op allows it. */
    void (*axpby)(void *y, eqi_dtype ty, float alpha, const void *a, eqi_dtype ta, float beta,
                  const void *b, eqi_dtype tb, int64_t n);
    void (*mul)(void *y, eqi_dtype ty, const void *a, eqi_dtype ta, const void *b, eqi_dtype tb,
                int64_t n, bool acc);
    void (*convert)(void *y, eqi_dtype ty, const void *x, eqi_dtype tx, int64_t n);
    void (*sum_rows)(float *sum, const void *x, eqi_dtype dtype, int64_t n,
                     bool acc); /* sum[n] (+)= x[n] */
    /* sums[m]: of w[n] with each of x[m][n], in operands whose n is a multiple of 64 */
    void (*dots)(float *sums, eqi_elem elem, const void *w, const void *x, int64_t m, int64_t n);
    double (*dot)(const void *a, const void *b, eqi_dtype dtype, int64_t n);
    double (*sum_squares)(const float *g, int64_t n);
    bool (*is_finite)(const void *x, eqi_dtype dtype, int64_t n); /* every value; F32 or BF16 */
    double (*squared_error)(const void *x, const void *target, eqi_dtype dtype,
                            eqi_dtype target_dtype, int64_t n);
    void (*squared_error_bwd)(void *dx, eqi_dtype tdx, const void *x, eqi_dtype tx,
                              const void *target, eqi_dtype tt, float factor, int64_t n, bool acc);
    void (*adamw)(float *p, const float *g, float *m, float *v, const eqi_adamw_terms *t,
                  int64_t n);

    /* One row. */
    float (*rmsnorm)(void *y, const void *x, const float *gain, eqi_dtype dtype, int64_t n,
                     float eps, float offset); /* returns rstd */
    void (*rmsnorm_bwd)(void *dx, float *dgain, const void *dy, const void *x, const float *gain,
                        float rstd, float offset, eqi_dtype dtype, int64_t n, bool acc_dx,
                        bool acc_dgain); /* dx or dgain may be NULL */
    void (*rope)(void *y, const void *x, const float *cos, const float *sin, float sign,
                 eqi_dtype dtype, int64_t half);
    void (*gated)(void *y, const void *gate, const void *up, eqi_activation activation,
                  eqi_dtype dtype, int64_t n);
    void (*gated_bwd)(void *dgate, void *dup, const void *dy, const void *gate, const void *up,
                      eqi_activation activation, eqi_dtype dtype, int64_t n);
    double (*log_sum_exp)(const float *x, int64_t n);
    void (*softmax)(void *out, eqi_dtype dtype, const float *x, float lse,
                    int64_t n); /* exp(x - lse) */
    /* Sum of p x; *mass: sum of p. */
    double (*expectation)(const void *p, eqi_dtype dtype, const float *x, int64_t n, double *mass);
    /* With lse = {of target, of x}: sum of p (ln p - ln q), and dx (+)= factor (q - p). */
    double (*divergence)(const float *x, const float *target, const float lse[2], int64_t n);
    void (*divergence_bwd)(float *dx, const float *x, const float *target, const float lse[2],
                           float factor, int64_t n, bool acc);
    /* Block `block` of what eqi_attention_keys points to. scratch: EQI_PACK_SCRATCH bytes */
    void (*attention_keys)(const eqi_attention_head *h, void *k, void *v, int64_t block,
                           void *scratch);
    size_t (*attention_scratch)(const eqi_attention_head *h);
    /* Queries from q0 on, at most EQI_ATT_Q. o: row 0 of the head, o_ld apart; lse: of query 0, or
     * NULL */
    void (*attention)(const eqi_attention_head *h, const eqi_attention_keys *keys, int64_t q0,
                      const eqi_attention_out *out, void *scratch);
    size_t (*attention_bwd_scratch)(const eqi_attention_head *h);
    void (*attention_bwd)(const eqi_attention_head *h, const eqi_attention_grad *g, void *scratch);

    /* A row of w to packed codes; s, z and q are those of w, its kind is dense. */
    void (*quantize)(uint32_t *codes, const eqi_rows *w, int64_t row);
    /* s and z of the groups of n weights that make a row; minmax_stored: as they are stored, s
     * rounded to fp16. */
    void (*minmax)(float *s, float *z, const float *w, int64_t groups, int64_t n, int bits);
    void (*minmax_stored)(float *s, uint8_t *z, const float *w, int64_t groups, int64_t n,
                          int bits);
    /* Groups of n weights at from[0..EQI_MSE_GROUPS), whose squared errors count as counts[] says
     * (NULL: 1). scratch: 5 * n * EQI_MSE_GROUPS floats */
    void (*mse)(float *s, float *z, const float *const *from, const float *const *counts, int64_t n,
                int bits, bool middle, double *scratch);
} eqi_simd;

extern const eqi_simd eqi_simd_generic, eqi_simd_avx2, eqi_simd_avx512, eqi_simd_avx512bf16,
    eqi_simd_amx;

#endif
