/* AdamW for one element, f32 operation by f32 operation in the order of lib/cpu/ref/adamw.c. */
#ifndef EQI_CUDA_ADAMW_CUH
#define EQI_CUDA_ADAMW_CUH

#include <cmath>

#include "backend.h"

/* What does not depend on the element, computed in f64 and rounded once. */
struct adamw_terms {
    float beta1, beta2, gain1, gain2, eps, step_size, root, keep;
};

inline adamw_terms eqi_adamw_terms(const eqi_adamw_desc *d)
{
    double beta1 = d->beta1, beta2 = d->beta2, lr = d->lr, step = static_cast<double>(d->step);
    adamw_terms t;
    t.beta1 = d->beta1;
    t.beta2 = d->beta2;
    t.gain1 = static_cast<float>(1.0 - beta1);
    t.gain2 = static_cast<float>(1.0 - beta2);
    t.eps = d->eps;
    t.step_size = static_cast<float>(lr / (1.0 - std::pow(beta1, step)));
    t.root = static_cast<float>(std::sqrt(1.0 - std::pow(beta2, step)));
    t.keep = static_cast<float>(1.0 - lr * static_cast<double>(d->weight_decay));
    return t;
}

__device__ __forceinline__ void adamw_step(float *p, float *m, float *v, float g,
                                           const adamw_terms &t)
{
    float mean = __fadd_rn(__fmul_rn(t.beta1, *m), __fmul_rn(t.gain1, g));
    float square = __fadd_rn(__fmul_rn(t.beta2, *v), __fmul_rn(__fmul_rn(t.gain2, g), g));
    float below = __fadd_rn(__fdiv_rn(__fsqrt_rn(square), t.root), t.eps);
    float update = __fdiv_rn(__fmul_rn(t.step_size, mean), below);
    *p = __fsub_rn(__fmul_rn(*p, t.keep), update);
    *m = mean;
    *v = square;
}

#endif
