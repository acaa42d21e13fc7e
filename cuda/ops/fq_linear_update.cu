/* fq_linear_update: w [N, K] takes an AdamW step with dw = dy^T x, dy [R, N] and x [R, K], while ds
 * and dz [N, G] get their sums. dw exists for some rows of w at a time. Bytes moved beside the
 * product's own: dw written and read, w and its moments read and written, 32 a weight; dy and x
 * once more, to see whether they are finite. */
#include "../adamw.cuh"
#include "../groups.cuh"
#include "../operand.h"
#include "../vector.cuh"

/* Blocks of a chunk; each leaves a sum of squares. */
constexpr int64_t CHUNK_BLOCKS = 2048;

struct update_sums {
    double part[EQI_BLOCK / EQI_WARP];
};

static __device__ __forceinline__ bool is_finite(double x) { return x - x == 0.0; }

/* *spoilt begins as whether the squares so far are not finite, */
__global__ void __launch_bounds__(1) update_begin_kernel(int *spoilt, eqi_view squares)
{
    *spoilt = !is_finite(*static_cast<const double *>(squares.data));
}

/* and becomes 1 when an activation is not. */
__global__ void __launch_bounds__(EQI_BLOCK) update_look_kernel(int *spoilt, eqi_view x)
{
    bool bad = false;
    for (int64_t i = grid_first(); i < count(x); i += grid_step())
        bad = bad || !is_finite(static_cast<double>(get(x, elem(x, i))));
    bad = __syncthreads_or(bad);
    if (bad && threadIdx.x == 0) atomicExch(spoilt, 1);
}

struct update_chunk {
    const float *dw; /* [rows, K] of w^, of rows `first` on */
    int64_t first, rows;
    double *squares; /* [gridDim.x] */
};

/* A warp takes a group. When anything is spoilt, ds and dz become NaN and all else stays. */
__global__ void __launch_bounds__(EQI_BLOCK)
    fq_linear_update_kernel(eqi_view w, eqi_view m, eqi_view v, eqi_view ds, eqi_view dz,
                            eqi_view s, eqi_view z, update_chunk c, const int *spoilt,
                            eqi_quant_desc q, adamw_terms t)
{
    const bool bad = *spoilt;
    int64_t per_row = width(w) / q.group;
    double squares = 0.0;
    for (int64_t g = first_group(); g < c.rows * per_row; g += group_step()) {
        int64_t n = c.first + g / per_row, column = g % per_row * q.group;
        float step = quant_scale_clamped(s, q, n, column), zero = quant_zero(z, q, n, column),
              sum_s = bad ? NAN : 0.0f, sum_z = sum_s;
        for (int64_t k = column + lane(); k < column + q.group && !bad; k += EQI_WARP) {
            float *p = static_cast<float *>(w.data) + at(w, n, k);
            fake_gradient d =
                fake_backward(c.dw[(n - c.first) * width(w) + k], *p, step, zero, quant_top(q));
            sum_s += d.ds;
            sum_z += d.dz;
            squares += static_cast<double>(d.dw) * static_cast<double>(d.dw);
            adamw_step(p, static_cast<float *>(m.data) + at(m, n, k),
                       static_cast<float *>(v.data) + at(v, n, k), d.dw, t);
        }
        sum_s = warp_sum(sum_s);
        sum_z = warp_sum(sum_z);
        if (lane() == 0 && ds.data) put(ds, at(ds, n, g % per_row), sum_s);
        if (lane() == 0 && dz.data) put(dz, at(dz, n, g % per_row), sum_z);
    }
    squares = block_sum(squares, block_memory<update_sums>()->part);
    if (threadIdx.x == 0) c.squares[blockIdx.x] = squares;
}

/* Where a chunk begins in each tensor; ds and dz may be NULL. */
struct update_parts {
    float *w, *m, *v, *ds, *dz;
    const float *s, *z;
};

/* The same of groups with teams. */
__global__ void __launch_bounds__(EQI_BLOCK)
    fq_linear_update_wide_kernel(update_parts u, update_chunk c, int64_t weights, const int *spoilt,
                                 eqi_quant_desc q, adamw_terms t)
{
    const bool bad = *spoilt;
    double squares = 0.0;
    for (int64_t i = first_group(); i * EQI_WARP_WEIGHTS < weights; i += group_step()) {
        const int64_t at = i * EQI_WARP_WEIGHTS + lane() * 4, g = team_group(at, q);
        const bool there = at < weights;
        float sum_s = bad ? NAN : 0.0f, sum_z = sum_s;
        if (there && !bad) {
            float step = clamped_scale(u.s[g], q), zero = clamp(rintf(u.z[g]), 0.0f, quant_top(q));
            pack<4> grad = load_pack<4>(c.dw + at), w = load_pack<4>(u.w + at),
                    m = load_pack<4>(u.m + at), v = load_pack<4>(u.v + at);
            EQI_UNROLL
            for (int j = 0; j < 4; j++) {
                fake_gradient d = fake_backward(grad.v[j], w.v[j], step, zero, quant_top(q));
                sum_s += d.ds;
                sum_z += d.dz;
                squares += static_cast<double>(d.dw) * static_cast<double>(d.dw);
                adamw_step(&w.v[j], &m.v[j], &v.v[j], d.dw, t);
            }
            store_pack(u.w + at, w);
            store_pack(u.m + at, m);
            store_pack(u.v + at, v);
        }
        sum_s = team_sum(sum_s, q);
        sum_z = team_sum(sum_z, q);
        if (!there || !leads_team(q)) continue;
        if (u.ds) u.ds[g] = sum_s;
        if (u.dz) u.dz[g] = sum_z;
    }
    squares = block_sum(squares, block_memory<update_sums>()->part);
    if (threadIdx.x == 0) c.squares[blockIdx.x] = squares;
}

__global__ void __launch_bounds__(EQI_BLOCK)
    update_end_kernel(eqi_view squares, const double *part, int64_t parts, const int *spoilt)
{
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < parts; i += EQI_BLOCK) sum += part[i];
    sum = block_sum(sum, block_memory<update_sums>()->part);
    double *to = static_cast<double *>(squares.data);
    if (threadIdx.x == 0) *to = *spoilt ? NAN : *to + sum;
}

static eqat_status look(eqi_ctx *ctx, int *spoilt, const eqi_view *x)
{
    return eqi_launch(ctx, "fq_linear_update", update_look_kernel,
                      eqi_grid(eqi_cuda_count(x), EQI_BLOCK), EQI_BLOCK, 0, spoilt, *x);
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static unsigned chunk_grid(const eqi_view *w, const eqi_quant_desc *q, int64_t rows, bool wide)
{
    unsigned blocks = wide ? eqi_team_grid(rows * eqi_cuda_width(w))
                           : eqi_grid(rows * (eqi_cuda_width(w) / q->group), EQI_BLOCK_GROUPS);
    return static_cast<unsigned>(smaller(blocks, CHUNK_BLOCKS));
}

/* Scratch of a call. */
struct update_memory {
    double *part; /* [CHUNK_BLOCKS] for each chunk */
    int *spoilt;
};

static eqat_status take(eqi_ctx *ctx, update_memory *memory, const eqi_view *w)
{
    const int64_t rows = eqi_cuda_rows(w), step = eqi_cuda_weight_chunk(rows, eqi_cuda_width(w)),
                  chunks = (rows + step - 1) / step;
    void *part = nullptr, *spoilt = nullptr;
    EQI_CUDA_TRY(eqi_cuda_scratch(
        ctx, EQI_CUDA_SUMS, static_cast<size_t>(chunks * CHUNK_BLOCKS) * sizeof(double), &part));
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_OP, sizeof(int), &spoilt));
    *memory = {static_cast<double *>(part), static_cast<int *>(spoilt)};
    return EQAT_OK;
}

static bool is_wide(const eqi_update *u, const eqi_view *ds, const eqi_view *dz, const eqi_view *w,
                    const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    return eqi_has_teams(q) && eqi_cuda_width(w) % q->group == 0 && eqi_cuda_packs(w, 16) &&
        eqi_cuda_packs(&u->m, 16) && eqi_cuda_packs(&u->v, 16) && eqi_cuda_packs(s, 4) &&
        eqi_cuda_packs(z, 4) && (!ds || eqi_cuda_packs(ds, 4)) && (!dz || eqi_cuda_packs(dz, 4));
}

/* From element `first` of a tensor on; NULL stays. */
static float *from(const eqi_view *v, int64_t first)
{
    return v ? static_cast<float *>(v->data) + first : nullptr;
}

eqat_status eqi_cuda_fq_linear_update(eqi_ctx *ctx, const eqi_update *u, const eqi_view *ds,
                                      const eqi_view *dz, const eqi_view *dy, const eqi_view *x,
                                      const eqi_view *w, const eqi_view *s, const eqi_view *z,
                                      const eqi_quant_desc *q)
{
    update_memory memory;
    EQI_CUDA_TRY(take(ctx, &memory, w));
    EQI_CUDA_TRY(eqi_launch(ctx, "fq_linear_update", update_begin_kernel, 1, 1, 0, memory.spoilt,
                            u->squares));
    EQI_CUDA_TRY(look(ctx, memory.spoilt, dy));
    EQI_CUDA_TRY(look(ctx, memory.spoilt, x));
    const bool wide = is_wide(u, ds, dz, w, s, z, q);
    const int64_t width = eqi_cuda_width(w);
    int64_t parts = 0;
    auto use = [&](const float *dw, int64_t first, int64_t rows) {
        unsigned grid = chunk_grid(w, q, rows, wide);
        update_chunk c = {dw, first, rows, memory.part + parts};
        parts += grid;
        const int64_t weight = first * width, group = first * (width / q->group);
        update_parts at = {from(w, weight), from(&u->m, weight), from(&u->v, weight),
                           from(ds, group), from(dz, group),     from(s, group),
                           from(z, group)};
        if (wide)
            return eqi_launch(ctx, "fq_linear_update", fq_linear_update_wide_kernel, grid,
                              EQI_BLOCK, sizeof(update_sums), at, c, rows * width, memory.spoilt,
                              *q, eqi_adamw_terms(&u->d));
        return eqi_launch(ctx, "fq_linear_update", fq_linear_update_kernel, grid, EQI_BLOCK,
                          sizeof(update_sums), *w, u->m, u->v, eqi_or_none(ds), eqi_or_none(dz), *s,
                          *z, c, memory.spoilt, *q, eqi_adamw_terms(&u->d));
    };
    EQI_CUDA_TRY(eqi_cuda_weight_grad(ctx, dy, x, use));
    return eqi_launch(ctx, "fq_linear_update", update_end_kernel, 1, EQI_BLOCK, sizeof(update_sums),
                      u->squares, memory.part, parts, memory.spoilt);
}
