/* What several checks compute themselves: products of dense f64 matrices with the sum of |terms|,
 * and the quantizer in true f32 and f64 arithmetic. */
#ifndef TESTS_KERNELS_PLAIN_H
#define TESTS_KERNELS_PLAIN_H

#include "../conformance/suite.h"

/* Inputs of odd sizes, and how they are filled. */
typedef enum flavour { NORMAL, SCALED, ZERO, WITH_NAN, WITH_INF, FLAVOURS } flavour;
int64_t odd_size(suite *s, int64_t most); /* >= 1 */
int64_t odd_rows(suite *s);               /* may be 0 */
void arg_flavour(suite *s, arg *a, flavour f);
const char *flavour_name(flavour f);

/* again = in for ACC, 0 for OUT */
void plain_start(arg *a);
void plain_term(arg *a, int64_t i, double term); /* again += term, mag += |term| */
/* y[R, N] += x[R, K] w[N, K]^T;  dx[R, K] += dy[R, N] w[N, K];  dw[N, K] += dy[R, N]^T x[R, K] */
void plain_product(arg *y, const double *x, const double *w, int64_t rows, int64_t out, int64_t in);
void plain_product_bwd_x(arg *dx, const double *dy, const double *w, int64_t rows, int64_t out,
                         int64_t in);
void plain_product_bwd_w(arg *dw, const double *dy, const double *x, int64_t rows, int64_t out,
                         int64_t in);

typedef struct plain_fq {
    double coefficient_s, coefficient_z; /* d w^ / d s, d w^ / d z */
    double code;                         /* NaN when undefined */
    double value;
    bool inside;
} plain_fq;

/* One weight, in f32 operations or (wide) in f64 ones. */
plain_fq plain_quantize(bool wide, double w, double s, double z, int bits, bool clamp);
/* The start minmax of a group of n weights; NaN when one is not finite. */
void plain_minmax(const double *w, int64_t n, int bits, bool wide, double *step, double *zero);
/* Codes of a row as one little-endian string of bits. */
void plain_pack(uint32_t *row, const int *codes, int64_t n, int bits);
int plain_unpack(const uint32_t *row, int64_t i, int bits);

/* A weight [N, K] with s and z [N, G], edge cases included: ties, codes beyond both ends, s beyond
 * its clamps. */
void arg_weight(suite *s, arg *w, arg *step, arg *zero, const eqi_quant_desc *q, bool wild);
int64_t random_group(suite *s, int64_t in);
/* The same of whole blocks of 32; `in` is so, too. */
int64_t whole_group(suite *s, int64_t in);

/* A case whose outputs, one after the other, are known by hand. */
void known_run(suite *s, suite_call call, const void *params, const double *expected);

#endif
