/* adamw. Bytes needed and moved: 16 an element read, 12 written. */
#include "../adamw.cuh"
#include "../launch.cuh"
#include "../load.cuh"
#include "../vector.cuh"

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

__global__ void __launch_bounds__(EQI_BLOCK)
    adamw_packs_kernel(vector_rows<float> p, vector_rows<float> m, vector_rows<float> v,
                       vector_rows<float> g, int packs, eqi_view factor, adamw_terms t)
{
    constexpr int N = EQI_LANES<float>;
    float f = factor.data ? get(factor, 0) : 1.0f;
    if (f != f) return;
    for (int i = pack_first(); i < packs; i += pack_step()) {
        pack<N> a = load_pack<N>(p, 0, i), b = load_pack<N>(m, 0, i), c = load_pack<N>(v, 0, i),
                d = load_pack<N>(g, 0, i);
        EQI_UNROLL
        for (int k = 0; k < N; k++) adamw_step(&a.v[k], &b.v[k], &c.v[k], __fmul_rn(f, d.v[k]), t);
        store_pack(p, 0, i, a);
        store_pack(m, 0, i, b);
        store_pack(v, 0, i, c);
    }
}

eqat_status eqi_cuda_adamw(eqi_ctx *ctx, const eqi_view *p, const eqi_view *g, const eqi_view *m,
                           const eqi_view *v, const eqi_view *factor, const eqi_adamw_desc *d)
{
    eqi_packs packs;
    if (eqi_as_packs(&packs, {p, m, v, g}) && packs.rows == 1)
        return eqi_launch(ctx, "adamw", adamw_packs_kernel, packs.grid, packs.block, 0,
                          eqi_vector<float>(packs, p, 0), eqi_vector<float>(packs, m, 1),
                          eqi_vector<float>(packs, v, 2), eqi_vector<float>(packs, g, 3),
                          packs.packs, eqi_or_none(factor), eqi_adamw_terms(d));
    int64_t n = eqi_cuda_count(p);
    return eqi_launch(ctx, "adamw", adamw_kernel, eqi_grid(n, EQI_BLOCK), EQI_BLOCK, 0,
                      static_cast<float *>(p->data), static_cast<float *>(m->data),
                      static_cast<float *>(v->data), static_cast<const float *>(g->data), n,
                      eqi_or_none(factor), eqi_adamw_terms(d));
}
