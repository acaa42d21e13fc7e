/* fakequant: w [N, K], s and z [N, G] to w^ [N, K]. Bytes needed and moved: 4 a weight read, 2 or 4
 * written, and s and z; neighbouring threads read s and z once more, from the L1.
 * fakequant_bwd: 8 a weight read, 4 written (8 and 4 more with acc); without dw the reads alone. */
#include "../groups.cuh"
#include "../vector.cuh"

/* Any group, any address. */
__global__ void __launch_bounds__(EQI_BLOCK)
    fakequant_kernel(eqi_view what, eqi_view w, eqi_view s, eqi_view z, eqi_quant_desc q)
{
    for (int64_t i = grid_first(); i < count(w); i += grid_step()) {
        int64_t n = i / width(w), k = i % width(w);
        fake f = fake_quantize(get(w, at(w, n, k)), quant_scale_clamped(s, q, n, k),
                               quant_zero(z, q, n, k), quant_top(q));
        put(what, at(what, n, k), f.value);
    }
}

/* Groups of whole blocks of 32, all contiguous: a thread makes 16 bytes of w^, all of one group. */
template <class T>
__global__ void __launch_bounds__(EQI_BLOCK)
    fakequant_wide_kernel(T *what, const float *w, const float *s, const float *z, int64_t pieces,
                          eqi_quant_desc q)
{
    constexpr int n = EQI_LANES<T>;
    for (int64_t i = grid_first(); i < pieces; i += grid_step()) {
        unsigned g = static_cast<unsigned>(i * n / 32) / static_cast<unsigned>(q.group / 32);
        float step = clamped_scale(s[g], q), zero = clamp(rintf(z[g]), 0.0f, quant_top(q));
        pack<n> x = load_pack<n>(w + i * n);
        EQI_UNROLL
        for (int j = 0; j < n; j++) x.v[j] = fake_quantize(x.v[j], step, zero, quant_top(q)).value;
        store_pack(what + i * n, x);
    }
}

template <class T>
static eqat_status wide(eqi_ctx *ctx, const eqi_view *what, const eqi_view *w, const eqi_view *s,
                        const eqi_view *z, const eqi_quant_desc *q)
{
    const int64_t pieces = eqi_cuda_count(w) / EQI_LANES<T>;
    return eqi_launch(ctx, "fakequant", fakequant_wide_kernel<T>, eqi_grid(pieces, EQI_BLOCK),
                      EQI_BLOCK, 0, static_cast<T *>(what->data),
                      static_cast<const float *>(w->data), static_cast<const float *>(s->data),
                      static_cast<const float *>(z->data), pieces, *q);
}

/* A tensor's blocks of 32 are counted in 32 bits. */
static bool is_wide(const eqi_view *what, const eqi_view *w, const eqi_view *s, const eqi_view *z,
                    const eqi_quant_desc *q)
{
    return q->group % 32 == 0 && eqi_cuda_count(w) / 32 <= UINT32_MAX && eqi_cuda_packs(what, 16) &&
        eqi_cuda_packs(w, 16) && eqi_cuda_packs(s, 4) && eqi_cuda_packs(z, 4);
}

eqat_status eqi_cuda_fakequant(eqi_ctx *ctx, const eqi_view *what, const eqi_view *w,
                               const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    if (is_wide(what, w, s, z, q) && what->dtype == EQI_BF16)
        return wide<__nv_bfloat16>(ctx, what, w, s, z, q);
    if (is_wide(what, w, s, z, q) && what->dtype == EQI_F32)
        return wide<float>(ctx, what, w, s, z, q);
    return eqi_launch(ctx, "fakequant", fakequant_kernel, eqi_grid(eqi_cuda_count(w), EQI_BLOCK),
                      EQI_BLOCK, 0, *what, *w, *s, *z, *q);
}

/* A warp takes a group of a row: grad [rows, K] is of rows `first` on. dw may be grad itself, each
 * element of which is read and written by one lane. */
__global__ void __launch_bounds__(EQI_BLOCK, 2)
    fakequant_bwd_kernel(eqi_view dw, eqi_view ds, eqi_view dz, const float *grad, int64_t first,
                         int64_t rows, eqi_view w, eqi_view s, eqi_view z, eqi_quant_desc q,
                         bool acc)
{
    int64_t per_row = width(w) / q.group;
    for (int64_t g = first_group(); g < rows * per_row; g += group_step()) {
        int64_t n = first + g / per_row, column = g % per_row * q.group;
        float step = quant_scale_clamped(s, q, n, column), zero = quant_zero(z, q, n, column),
              sum_s = 0.0f, sum_z = 0.0f;
        for (int64_t k = column + lane(); k < column + q.group; k += EQI_WARP) {
            fake_gradient d = fake_backward(grad[(n - first) * width(w) + k], get(w, at2(w, n, k)),
                                            step, zero, quant_top(q));
            sum_s += d.ds;
            sum_z += d.dz;
            if (dw.data) add(dw, at2(dw, n, k), d.dw, acc);
        }
        sum_s = warp_sum(sum_s);
        sum_z = warp_sum(sum_z);
        if (lane() == 0 && ds.data) add(ds, at2(ds, n, g % per_row), sum_s, acc);
        if (lane() == 0 && dz.data) add(dz, at2(dz, n, g % per_row), sum_z, acc);
    }
}

/* Where rows of a backward pass begin; dw, ds and dz may each be NULL. */
struct backward_parts {
    float *dw, *ds, *dz;
    const float *grad, *w, *s, *z;
};

/* The same of groups with teams. */
__global__ void __launch_bounds__(EQI_BLOCK)
    fakequant_bwd_wide_kernel(backward_parts p, int64_t weights, eqi_quant_desc q, bool acc)
{
    for (int64_t i = first_group(); i * EQI_WARP_WEIGHTS < weights; i += group_step()) {
        const int64_t at = i * EQI_WARP_WEIGHTS + lane() * 4, g = team_group(at, q);
        const bool there = at < weights;
        float sum_s = 0.0f, sum_z = 0.0f;
        if (there) {
            float step = clamped_scale(p.s[g], q), zero = clamp(rintf(p.z[g]), 0.0f, quant_top(q));
            pack<4> grad = load_pack<4>(p.grad + at), w = load_pack<4>(p.w + at), dw = {};
            if (p.dw && acc) dw = load_pack<4>(p.dw + at);
            EQI_UNROLL
            for (int j = 0; j < 4; j++) {
                fake_gradient d = fake_backward(grad.v[j], w.v[j], step, zero, quant_top(q));
                sum_s += d.ds;
                sum_z += d.dz;
                dw.v[j] = acc ? dw.v[j] + d.dw : d.dw;
            }
            if (p.dw) store_pack(p.dw + at, dw);
        }
        sum_s = team_sum(sum_s, q);
        sum_z = team_sum(sum_z, q);
        if (!there || !leads_team(q)) continue;
        if (p.ds) p.ds[g] = acc ? p.ds[g] + sum_s : sum_s;
        if (p.dz) p.dz[g] = acc ? p.dz[g] + sum_z : sum_z;
    }
}

/* From element `first` of a tensor on; NULL stays. */
static float *from(const eqi_view *v, int64_t first)
{
    return v ? static_cast<float *>(v->data) + first : nullptr;
}

static bool is_wide_bwd(const eqi_view *dw, const eqi_view *ds, const eqi_view *dz,
                        const float *grad, const eqi_view *w, const eqi_view *s, const eqi_view *z,
                        const eqi_quant_desc *q)
{
    return eqi_has_teams(q) && eqi_cuda_width(w) % q->group == 0 &&
        reinterpret_cast<uintptr_t>(grad) % 16 == 0 && eqi_cuda_packs(w, 16) &&
        eqi_cuda_packs(s, 4) && eqi_cuda_packs(z, 4) && (!dw || eqi_cuda_packs(dw, 16)) &&
        (!ds || eqi_cuda_packs(ds, 4)) && (!dz || eqi_cuda_packs(dz, 4));
}

eqat_status eqi_cuda_fakequant_bwd_rows(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                        const eqi_view *dz, const float *grad, int64_t first,
                                        int64_t rows, const eqi_view *w, const eqi_view *s,
                                        const eqi_view *z, const eqi_quant_desc *q, bool acc)
{
    const int64_t width = eqi_cuda_width(w), groups = rows * (width / q->group);
    if (is_wide_bwd(dw, ds, dz, grad, w, s, z, q)) {
        const int64_t weight = first * width, group = first * (width / q->group);
        backward_parts p = {from(dw, weight), from(ds, group), from(dz, group), grad,
                            from(w, weight),  from(s, group),  from(z, group)};
        return eqi_launch(ctx, "fakequant_bwd", fakequant_bwd_wide_kernel,
                          eqi_team_grid(rows * width), EQI_BLOCK, 0, p, rows * width, *q, acc);
    }
    return eqi_launch(ctx, "fakequant_bwd", fakequant_bwd_kernel,
                      eqi_grid(groups, EQI_BLOCK_GROUPS), EQI_BLOCK, 0, eqi_or_none(dw),
                      eqi_or_none(ds), eqi_or_none(dz), grad, first, rows, *w, *s, *z, *q, acc);
}

eqat_status eqi_cuda_fakequant_bwd(eqi_ctx *ctx, const eqi_view *dw, const eqi_view *ds,
                                   const eqi_view *dz, const eqi_view *dwhat, const eqi_view *w,
                                   const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q,
                                   bool acc)
{
    return eqi_cuda_fakequant_bwd_rows(ctx, dw, ds, dz, static_cast<const float *>(dwhat->data), 0,
                                       eqi_cuda_rows(w), w, s, z, q, acc);
}
