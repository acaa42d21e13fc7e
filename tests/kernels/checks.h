/* The checks, one file per op; tests/conformance/main.c runs them. */
#ifndef TESTS_KERNELS_CHECKS_H
#define TESTS_KERNELS_CHECKS_H

#include "plain.h"

extern const kernel_check check_memory[], check_elementwise[], check_embedding[], check_linear[],
    check_fakequant[], check_fq_linear[], check_packed_linear[], check_quantize[],
    check_quantize_minmax[], check_init[], check_rmsnorm[], check_rope[], check_attention[],
    check_gated[], check_route[], check_gather_scatter[], check_mse[], check_linear_cross_entropy[],
    check_kl_divergence[], check_clip[], check_adamw[];

/* A case whose outputs, one after the other, are known by hand. */
void known_run(suite *s, suite_call call, const void *params, const double *expected);

#endif
