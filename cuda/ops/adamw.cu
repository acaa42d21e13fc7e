/* adamw. Bytes moved: 16 an element read, 12 written. */
#include "../adamw.cuh"
#include "../launch.cuh"
#include "../load.cuh"

/* p, m, v, g [n]. A factor of NaN writes nothing. */
__global__ void __launch_bounds__(EQI_BLOCK)
    adamw_kernel(float *p, float *m, float *v, const float *g, int64_t n, eqi_view factor,
                 adamw_terms t)
{
    float f = factor.data ? get(factor, 0) : 1.0f;
    if (f != f) return;
    for (int64_t i = grid_first(); i < n; i += grid_step())
        adamw_step(p + i, m + i, v + i, __fmul_rn(f, g[i]), t);
}

eqat_status eqi_cuda_adamw(eqi_ctx *ctx, const eqi_view *p, const eqi_view *g, const eqi_view *m,
                           const eqi_view *v, const eqi_view *factor, const eqi_adamw_desc *d)
{
    int64_t n = eqi_cuda_count(p);
    return eqi_launch(ctx, "adamw", adamw_kernel, eqi_grid(n, EQI_BLOCK), EQI_BLOCK, 0,
                      static_cast<float *>(p->data), static_cast<float *>(m->data),
                      static_cast<float *>(v->data), static_cast<const float *>(g->data), n,
                      eqi_or_none(factor), eqi_adamw_terms(d));
}
