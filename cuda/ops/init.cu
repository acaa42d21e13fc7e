/* init_minmax, init_mse: w [N, K] to s and z [N, G]. Bytes moved: 4 a weight read; init_mse reads a
 * group once for each candidate, from the cache, and has its time from arithmetic in f64. */
#include <cfloat>
#include <cmath>

#include "../groups.cuh"

struct group_start {
    float lo, hi, s, z; /* lo <= 0 <= hi; NaN in s and z when a weight is not finite */
};

/* Of the group of row n that begins at column `first`, by a warp; all lanes get it. The exceptions
 * are those of lib/cpu/ref/init.c. */
static __device__ __forceinline__ group_start minmax(const eqi_view &w, const eqi_quant_desc &q,
                                                     int64_t n, int64_t first)
{
    group_start r = {0.0f, 0.0f, NAN, NAN};
    bool bad = false;
    for (int64_t k = first + lane(); k < first + q.group; k += EQI_WARP) {
        float x = get(w, at(w, n, k));
        bad = bad || x - x != 0.0f;
        r.lo = x < r.lo ? x : r.lo;
        r.hi = x > r.hi ? x : r.hi;
    }
    bad = __any_sync(EQI_FULL, bad);
    r.lo = -warp_max(-r.lo);
    r.hi = warp_max(r.hi);
    if (bad) return r;
    float range = __fsub_rn(r.hi, r.lo);
    r.s = __fdiv_rn(range > FLT_MAX ? FLT_MAX : range, quant_top(q));
    r.z = r.s < FLT_MIN ? 0.0f : rintf(__fdiv_rn(0.0f - r.lo, r.s));
    if (r.s < FLT_MIN) r.s = EQI_SCALE_OF_ZEROS;
    return r;
}

__global__ void __launch_bounds__(EQI_BLOCK)
    minmax_kernel(eqi_view s, eqi_view z, eqi_view w, eqi_quant_desc q)
{
    int64_t per_row = width(w) / q.group;
    for (int64_t g = first_group(); g < rows(w) * per_row; g += group_step()) {
        int64_t n = g / per_row, j = g % per_row;
        group_start r = minmax(w, q, n, j * q.group);
        if (lane() == 0) put(s, at(s, n, j), r.s);
        if (lane() == 0) put(z, at(z, n, j), r.z);
    }
}

static unsigned grid_of(const eqi_view *w, const eqi_quant_desc *q)
{
    return eqi_grid(eqi_cuda_count(w) / q->group, EQI_BLOCK_GROUPS);
}

eqat_status eqi_cuda_init_minmax(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z,
                                 const eqi_view *w, const eqi_quant_desc *q)
{
    return eqi_launch(ctx, "init_minmax", minmax_kernel, grid_of(w, q), EQI_BLOCK, 0, *s, *z, *w,
                      *q);
}

/* ---- init_mse: the search of lib/cpu/ref/init.c, there explained. A lane fits a candidate, with
 * sums over the group in its order; the first of equals is kept, as if one came after the other. */
struct mse_group {
    const float *w, *h; /* [n]; h may be NULL: 1 */
    int64_t n;
    float top, least_z, most_z;
    double squares; /* sum h w^2 */
};

struct mse_fit {
    double error;
    int order; /* of the candidate */
    float s, z;
};

static __device__ __forceinline__ double count_of(const mse_group &g, int64_t i)
{
    return g.h ? static_cast<double>(g.h[i]) : 1.0;
}

static __device__ __forceinline__ mse_fit better(const mse_fit &a, const mse_fit &b)
{
    return b.error < a.error || (b.error == a.error && b.order < a.order) ? b : a;
}

static __device__ __forceinline__ mse_fit warp_best(mse_fit f)
{
    for (int m = EQI_WARP / 2; m; m >>= 1) {
        mse_fit other = {__shfl_xor_sync(EQI_FULL, f.error, m),
                         __shfl_xor_sync(EQI_FULL, f.order, m), __shfl_xor_sync(EQI_FULL, f.s, m),
                         __shfl_xor_sync(EQI_FULL, f.z, m)};
        f = better(f, other);
    }
    return f;
}

/* The s that is best for the codes which s and z give; an error of infinity where there is none. */
static __device__ __forceinline__ mse_fit fit(const mse_group &g, float s, float z, int order)
{
    const mse_fit none = {INFINITY, order, s, z};
    if (!(s >= FLT_MIN && s <= FLT_MAX && z >= g.least_z && z <= g.most_z)) return none;
    double above = 0.0, below = 0.0;
    float inverse = __fdiv_rn(1.0f, s);
    for (int64_t i = 0; i < g.n; i++) {
        double c = clamp(rintf(__fmul_rn(g.w[i], inverse)), 0.0f - z, g.top - z),
               hc = count_of(g, i) * c;
        above += hc * static_cast<double>(g.w[i]);
        below += hc * c;
    }
    double ratio = above / below, error = g.squares - above * ratio;
    float best = static_cast<float>(ratio);
    if (!(error < INFINITY && best >= FLT_MIN && best <= FLT_MAX)) return none;
    return {error, order, best, z};
}

/* Zero points tried with one s, at most. */
static __device__ __forceinline__ int zeros_of(const mse_group &g)
{
    return static_cast<int>(fminf(g.most_z - g.least_z + 1.0f, 16.0f));
}

/* Zero point number j of those to try with s. */
static __device__ __forceinline__ mse_fit fit_zero(const mse_group &g, const group_start &r,
                                                   float s, int j, int order)
{
    double upper = static_cast<double>(g.top) - static_cast<double>(r.hi) / s,
           lower = -static_cast<double>(r.lo) / s, least = g.least_z, most = g.most_z;
    double first = fmin(fmax(floor(fmin(upper, lower)), least), most),
           last = fmin(fmax(ceil(fmax(upper, lower)), least), most),
           z = first + j * ceil((last - first + 1.0) / 16.0);
    return z <= last ? fit(g, s, static_cast<float>(z), order) : mse_fit{INFINITY, order, s, 0.0f};
}

/* s times 2^(-i/16), each with its zero points; eight of them, then a look whether to go on. */
static __device__ __forceinline__ mse_fit search_grid(const mse_group &g, const group_start &r)
{
    int first = g.least_z > 0.0f ? -16 : -8, zeros = zeros_of(g),
        patience = g.h && g.top < 15.0f ? 32 : 16;
    mse_fit best = {INFINITY, -first * zeros, r.s, r.z};
    for (int i = first; i <= 64; i += 8) {
        int end = (i + 8 <= 65 ? i + 8 : 65) - first;
        for (int c = (i - first) * zeros + lane(); c < end * zeros; c += EQI_WARP) {
            float s =
                static_cast<float>(static_cast<double>(r.s) * exp2((first + c / zeros) / -16.0));
            best = better(best, fit_zero(g, r, s, c % zeros, c));
        }
        best = warp_best(best);
        if (i + 7 - (first + best.order / zeros) >= patience && best.error < g.squares / 4.0) break;
    }
    return best;
}

/* Neighbour number i of the best: z - 1, z, z + 1, then s (1 + 2^-j), s (1 - 2^-j), j = 4..10. */
static __device__ __forceinline__ mse_fit fit_neighbour(const mse_group &g, const mse_fit &best,
                                                        int i)
{
    if (i < 3) return fit(g, best.s, best.z + static_cast<float>(i - 1), i);
    double share = ldexp(i % 2 ? 1.0 : -1.0, -(4 + (i - 3) / 2));
    return fit(g, static_cast<float>(static_cast<double>(best.s) * (1.0 + share)), best.z, i);
}

constexpr int NEIGHBOURS = 17;

static __device__ __forceinline__ mse_fit refine(const mse_group &g, mse_fit best)
{
    double before;
    do {
        before = best.error;
        best.order = -1;
        mse_fit found = best;
        if (lane() < NEIGHBOURS) found = better(best, fit_neighbour(g, best, lane()));
        best = warp_best(found);
    } while (best.error < before);
    return best;
}

/* Sum of h (w - w^)^2. */
static __device__ __forceinline__ double error_of(const mse_group &g, float s, float z)
{
    double sum = 0.0;
    for (int64_t i = 0; i < g.n; i++) {
        double e = static_cast<double>(g.w[i]) -
            static_cast<double>(fake_quantize(g.w[i], s, z, g.top).value);
        sum += count_of(g, i) * (e * e);
    }
    return sum;
}

/* Where the best is no better, minmax: lane 0 looks at the one, the others at the other. */
static __device__ __forceinline__ bool is_better(const mse_group &g, const mse_fit &best,
                                                 const group_start &r)
{
    double error = error_of(g, lane() ? r.s : best.s, lane() ? r.z : best.z);
    return __shfl_sync(EQI_FULL, error, 0) < __shfl_sync(EQI_FULL, error, 1);
}

/* s and z of a group that minmax gave r, whose z is moved to where it may be. */
static __device__ __forceinline__ group_start mse(mse_group &g, group_start r)
{
    r.z = clamp(r.z, g.least_z, g.most_z);
    if (r.s != r.s || (r.lo == 0.0f && r.hi == 0.0f)) return r;
    for (int64_t i = 0; i < g.n; i++) {
        double x = g.w[i];
        g.squares += count_of(g, i) * (x * x);
    }
    mse_fit best = refine(g, search_grid(g, r));
    if (!is_better(g, best, r)) return r;
    r.s = best.s;
    r.z = best.z;
    return r;
}

/* h [K] or absent */
__global__ void __launch_bounds__(EQI_BLOCK, 3)
    mse_kernel(eqi_view s, eqi_view z, eqi_view w, eqi_view h, eqi_quant_desc q)
{
    int64_t per_row = width(w) / q.group;
    float top = quant_top(q), least_z = q.middle ? floorf(top / 2.0f) : 0.0f,
          most_z = q.middle ? ceilf(top / 2.0f) : top;
    for (int64_t i = first_group(); i < rows(w) * per_row; i += group_step()) {
        int64_t n = i / per_row, first = i % per_row * q.group;
        const float *from = static_cast<const float *>(w.data) + at(w, n, first),
                    *counts = h.data ? static_cast<const float *>(h.data) + first : nullptr;
        mse_group g = {from, counts, q.group, top, least_z, most_z, 0.0};
        group_start r = mse(g, minmax(w, q, n, first));
        if (lane() == 0) put(s, at(s, n, i % per_row), r.s);
        if (lane() == 0) put(z, at(z, n, i % per_row), r.z);
    }
}

eqat_status eqi_cuda_init_mse(eqi_ctx *ctx, const eqi_view *s, const eqi_view *z, const eqi_view *w,
                              const eqi_view *h, const eqi_quant_desc *q)
{
    return eqi_launch(ctx, "init_mse", mse_kernel, grid_of(w, q), EQI_BLOCK, 0, *s, *z, *w,
                      eqi_or_none(h), *q);
}
