/* What the checks of fq_linear and of packed_linear share. */
#ifndef TESTS_KERNELS_QUANTIZED_LINEAR_H
#define TESTS_KERNELS_QUANTIZED_LINEAR_H

#include "plain.h"

typedef struct weight_form weight_form;

/* y[R, N] = x[R, K] w[N, K]^T, or a gradient of it. */
typedef struct linear_case {
    int64_t rows, out, in;
    eqi_quant_desc q;
    bool acc, aligned; /* as in suite, where the run does not say so */
    eqi_dtype dtype, zeros;
    flavour flavour;  /* of x, or of dy */
    unsigned present; /* bits: which of the optional arguments there are */
    const weight_form *form;
} linear_case;

typedef void (*case_arguments)(suite *s, const linear_case *p);

/* A weight is three arguments in a row: w or codes, s, z. */
struct weight_form {
    linear_case (*draw)(suite *s);
    case_arguments arguments;
    /* Weight i of the arguments from `first` on, as the product sees it. */
    double (*value)(const suite *s, int first, const linear_case *p, int64_t i);
    const linear_case *benched; /* ends with one of no rows */
};

/* Draws a case, but for its flavour and what is present. */
linear_case draw_case(suite *s, const weight_form *form);
void begin_case(suite *s, const linear_case *p, const char *more);
/* The place in s and z of weight i. */
static inline int64_t group_of(const linear_case *p, int64_t i)
{
    return i / p->in * (p->in / p->q.group) + i % p->in / p->q.group;
}
/* An optional output [N, columns]. */
void gradient_argument(suite *s, const linear_case *p, const char *name, bool present,
                       int64_t columns);

/* y, x, weight, bias; and dx, dy, weight */
void forward_arguments(suite *s, const linear_case *p);
void bwd_x_arguments(suite *s, const linear_case *p);
void forward_case(suite *s, const linear_case *p, suite_call call);
void forward_cases(suite *s, const weight_form *form, suite_call call);
void bwd_x_cases(suite *s, const weight_form *form, suite_call call);
/* Each of form->benched in f32 and in bf16. */
void bench_cases(suite *s, const weight_form *form, unsigned present, case_arguments arguments,
                 suite_call call);

#endif
