/* rmsnorm, rmsnorm_bwd. Bytes needed: forward x and y once (an element of F32 8, of BF16 4);
 * backward dy, x and dx once (F32 12, BF16 6; with dx added to F32 16, BF16 8); rstd, 4 a row.
 * Bytes moved by the kernels with packs: the same, and for dgain 8 H for each piece of 8 or more
 * rows, at most a sixth of that; gain comes out of the cache, once a row. They hold a row in
 * registers, up to 8192 of F32 or 16384 of BF16. The plain kernels read a row twice (the second
 * time it is in the cache), for dgain a third time; there a block has one row, and for dgain a
 * piece of the columns of some rows. */
#include "../launch.cuh"
#include "../load.cuh"
#include "../reduce.cuh"
#include "../vector.cuh"

/* Rows in packs: threadIdx.x runs along a row, a thread has HELD packs of it; threadIdx.y and
 * blockIdx.x run over rows. A row has 8 threads or more, so that they read 128 bytes at a time. */
constexpr int HELD = 4, NORM_BLOCK = 512;

struct norm_memory {
    float part[NORM_BLOCK / EQI_WARP];
};

/* Over the threads of a row: a block, or a part of a warp. All threads of the block take part. */
static __device__ __forceinline__ float row_sum(float v, norm_memory *memory)
{
    if (blockDim.x > EQI_WARP) return block_sum(v, memory->part);
    for (int m = static_cast<int>(blockDim.x) / 2; m; m >>= 1) v += __shfl_xor_sync(EQI_FULL, v, m);
    return v;
}

/* Pack k that a thread holds of a row. */
static __device__ __forceinline__ int held(int k)
{
    return static_cast<int>(threadIdx.x) + k * static_cast<int>(blockDim.x);
}

/* The packs of row r as they are in memory, zeros where there are none. */
template <class T>
static __device__ __forceinline__ void hold(uint4 (&into)[HELD], const vector_rows<T> &a, int64_t r,
                                            int64_t rows, int packs)
{
    const uint4 *from = reinterpret_cast<const uint4 *>(a.data + r * a.stride);
    EQI_UNROLL
    for (int k = 0; k < HELD; k++)
        into[k] = r < rows && held(k) < packs ? from[held(k)] : make_uint4(0, 0, 0, 0);
}

/* False: a row does not fit. */
static bool norm_packs(eqi_packs *p, const eqi_view *gain,
                       std::initializer_list<const eqi_view *> views)
{
    if (!eqi_rows_as_packs(p, eqi_lanes(views), views) || p->packs > NORM_BLOCK * HELD ||
        reinterpret_cast<uintptr_t>(gain->data) % 16)
        return false;
    int x = 8;
    while (x * HELD < p->packs) x *= 2;
    p->block =
        dim3(static_cast<unsigned>(x), static_cast<unsigned>(x <= EQI_WARP ? EQI_BLOCK / x : 1));
    p->grid = dim3(eqi_grid(p->rows, p->block.y));
    return true;
}

/* y, x [R, H]; rstd [R]; gain [H] */
__global__ void __launch_bounds__(EQI_BLOCK)
    rmsnorm_kernel(eqi_view y, eqi_view rstd, eqi_view x, eqi_view gain, float eps, float offset)
{
    norm_memory *memory = block_memory<norm_memory>();
    int64_t n = width(x);
    for (int64_t r = blockIdx.x; r < rows(x); r += gridDim.x) {
        float sum = 0.0f;
        for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
            float v = get(x, at2(x, r, j));
            sum += v * v;
        }
        sum = block_sum(sum, memory->part);
        float rs = 1.0f / sqrtf(sum / static_cast<float>(n) + eps);
        for (int64_t j = threadIdx.x; j < n; j += blockDim.x)
            put(y, at2(y, r, j), get(x, at2(x, r, j)) * rs * (offset + get(gain, j)));
        if (threadIdx.x == 0) put(rstd, r, rs);
    }
}

template <class T>
__global__ void __launch_bounds__(NORM_BLOCK)
    rmsnorm_packs_kernel(vector_rows<T> y, float *rstd, vector_rows<T> x, const float *gain,
                         int64_t rows, int packs, float eps, float offset)
{
    constexpr int N = EQI_LANES<T>;
    norm_memory *memory = block_memory<norm_memory>();
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.y; first < rows;
         first += step) {
        int64_t r = first + threadIdx.y;
        uint4 row[HELD];
        hold(row, x, r, rows, packs);
        float sum = 0.0f;
        EQI_UNROLL
        for (int k = 0; k < HELD; k++) {
            pack<N> p;
            set_words<T>(p, 0, row[k]);
            EQI_UNROLL
            for (int e = 0; e < N; e++) sum += p.v[e] * p.v[e];
        }
        sum = row_sum(sum, memory);
        float rs = 1.0f / sqrtf(sum / static_cast<float>(packs * N) + eps);
        EQI_UNROLL
        for (int k = 0; k < HELD; k++) {
            if (r >= rows || held(k) >= packs) continue;
            pack<N> p, g = load_pack<N>(gain + held(k) * N);
            set_words<T>(p, 0, row[k]);
            EQI_UNROLL
            for (int e = 0; e < N; e++) p.v[e] = p.v[e] * rs * (offset + g.v[e]);
            store_pack(y, r, held(k), p);
        }
        if (r < rows && threadIdx.x == 0) rstd[r] = rs;
    }
}

eqat_status eqi_cuda_rmsnorm(eqi_ctx *ctx, const eqi_view *y, const eqi_view *rstd,
                             const eqi_view *x, const eqi_view *gain, double eps, double offset)
{
    eqi_packs p;
    if (norm_packs(&p, gain, {y, x}))
        return eqi_with(x->dtype, [&](auto type) {
            using T = decltype(type);
            return eqi_launch(ctx, "rmsnorm", rmsnorm_packs_kernel<T>, p.grid, p.block,
                              sizeof(norm_memory), eqi_vector<T>(p, y, 0),
                              static_cast<float *>(rstd->data), eqi_vector<T>(p, x, 1),
                              static_cast<const float *>(gain->data), p.rows, p.packs,
                              static_cast<float>(eps), static_cast<float>(offset));
        });
    return eqi_launch(ctx, "rmsnorm", rmsnorm_kernel, eqi_grid(eqi_cuda_rows(x), 1),
                      eqi_row_block(eqi_cuda_width(x)), sizeof(norm_memory), *y, *rstd, *x, *gain,
                      static_cast<float>(eps), static_cast<float>(offset));
}

/* With n = x rstd, g = dy (offset + gain): dx = rstd (g - n mean(g n)). */
__global__ void __launch_bounds__(EQI_BLOCK)
    rmsnorm_bwd_x_kernel(eqi_view dx, eqi_view dy, eqi_view x, eqi_view gain, eqi_view rstd,
                         float offset, bool acc)
{
    norm_memory *memory = block_memory<norm_memory>();
    int64_t n = width(x);
    for (int64_t r = blockIdx.x; r < rows(x); r += gridDim.x) {
        float rs = get(rstd, r), sum = 0.0f;
        for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
            float g = get(dy, at2(dy, r, j)) * (offset + get(gain, j));
            sum += g * (get(x, at2(x, r, j)) * rs);
        }
        float mean = block_sum(sum, memory->part) / static_cast<float>(n);
        for (int64_t j = threadIdx.x; j < n; j += blockDim.x) {
            float g = get(dy, at2(dy, r, j)) * (offset + get(gain, j));
            add(dx, at2(dx, r, j), rs * (g - get(x, at2(x, r, j)) * rs * mean), acc);
        }
    }
}

/* Sums over rows: a block has EQI_WARP columns, thread i column i % EQI_WARP of every LANES-th row
 * from i / EQI_WARP. */
constexpr int LANES = EQI_BLOCK / EQI_WARP;

struct column_memory {
    float part[LANES][EQI_WARP];
};

static __device__ __forceinline__ int64_t column()
{
    return static_cast<int64_t>(blockIdx.x) * EQI_WARP + threadIdx.x % EQI_WARP;
}

/* The sum of the lanes' sums, for the threads of the first lane. */
static __device__ __forceinline__ float sum_lanes(column_memory *memory, float sum)
{
    memory->part[threadIdx.x / EQI_WARP][threadIdx.x % EQI_WARP] = sum;
    __syncthreads();
    for (int i = 1; i < LANES && threadIdx.x < EQI_WARP; i++) sum += memory->part[i][threadIdx.x];
    return sum;
}

/* part [pieces, H]: sums of dy x rstd over pieces of `per` rows, piece blockIdx.y */
__global__ void __launch_bounds__(EQI_BLOCK)
    rmsnorm_bwd_part_kernel(float *part, int64_t per, eqi_view dy, eqi_view x, eqi_view rstd)
{
    int64_t j = column(), r = blockIdx.y * per, end = r + per;
    if (end > rows(x)) end = rows(x);
    float sum = 0.0f;
    for (r += threadIdx.x / EQI_WARP; r < end && j < width(x); r += LANES)
        sum += get(dy, at2(dy, r, j)) * (get(x, at2(x, r, j)) * get(rstd, r));
    sum = sum_lanes(block_memory<column_memory>(), sum);
    if (threadIdx.x < EQI_WARP && j < width(x)) part[blockIdx.y * width(x) + j] = sum;
}

__global__ void __launch_bounds__(EQI_BLOCK)
    rmsnorm_bwd_gain_kernel(eqi_view dgain, const float *part, int64_t pieces, bool acc)
{
    int64_t n = width(dgain), j = column();
    float sum = 0.0f;
    for (int64_t i = threadIdx.x / EQI_WARP; i < pieces && j < n; i += LANES)
        sum += part[i * n + j];
    sum = sum_lanes(block_memory<column_memory>(), sum);
    if (threadIdx.x < EQI_WARP && j < n) add(dgain, j, sum, acc);
}

static unsigned column_blocks(int64_t n)
{
    return static_cast<unsigned>((n + EQI_WARP - 1) / EQI_WARP);
}

static eqat_status add_parts(eqi_ctx *ctx, const eqi_view *dgain, const void *part, int64_t pieces,
                             bool acc)
{
    return eqi_launch(ctx, "rmsnorm_bwd", rmsnorm_bwd_gain_kernel,
                      column_blocks(eqi_cuda_width(dgain)), EQI_BLOCK, sizeof(column_memory),
                      *dgain, static_cast<const float *>(part), pieces, acc);
}

/* Pieces of at least 32 rows, and at most 256 pieces. */
static eqat_status sum_gain(eqi_ctx *ctx, const eqi_view *dgain, const eqi_view *dy,
                            const eqi_view *x, const eqi_view *rstd, bool acc)
{
    int64_t n = eqi_cuda_width(x), all = eqi_cuda_rows(x), per = (all + 255) / 256;
    if (per < 32) per = 32;
    int64_t pieces = (all + per - 1) / per;
    void *part = nullptr;
    EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_SUMS,
                                  static_cast<size_t>(pieces * n) * sizeof(float), &part));
    EQI_CUDA_TRY(eqi_launch(ctx, "rmsnorm_bwd", rmsnorm_bwd_part_kernel,
                            dim3(column_blocks(n), static_cast<unsigned>(pieces)), EQI_BLOCK,
                            sizeof(column_memory), static_cast<float *>(part), per, *dy, *x,
                            *rstd));
    return add_parts(ctx, dgain, part, pieces, acc);
}

/* Both gradients of rows in packs. With GAIN each block leaves its sums of dy x rstd in a row of
 * part [gridDim.x, H]; shared memory has room for them where it has several rows at a time. */
template <class T, bool GAIN>
__global__ void __launch_bounds__(NORM_BLOCK)
    rmsnorm_bwd_packs_kernel(vector_rows<T> dx, float *part, vector_rows<T> dy, vector_rows<T> x,
                             const float *gain, const float *rstd, int64_t rows, int packs,
                             float offset, bool acc)
{
    constexpr int N = EQI_LANES<T>;
    norm_memory *memory = block_memory<norm_memory>();
    const int width = packs * N;
    pack<N> sums[HELD] = {};
    int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.y; first < rows;
         first += step) {
        int64_t r = first + threadIdx.y;
        uint4 row_dy[HELD], row_x[HELD];
        hold(row_dy, dy, r, rows, packs);
        hold(row_x, x, r, rows, packs);
        float rs = r < rows ? rstd[r] : 0.0f, sum = 0.0f;
        EQI_UNROLL
        for (int k = 0; k < HELD; k++) {
            if (held(k) >= packs) continue;
            pack<N> d, n, g = load_pack<N>(gain + held(k) * N);
            set_words<T>(d, 0, row_dy[k]);
            set_words<T>(n, 0, row_x[k]);
            EQI_UNROLL
            for (int e = 0; e < N; e++) {
                n.v[e] *= rs;
                sum += d.v[e] * (offset + g.v[e]) * n.v[e];
                if (GAIN) sums[k].v[e] += d.v[e] * n.v[e];
            }
        }
        if (!dx.data) continue;
        float mean = row_sum(sum, memory) / static_cast<float>(width);
        EQI_UNROLL
        for (int k = 0; k < HELD; k++) {
            if (r >= rows || held(k) >= packs) continue;
            pack<N> d, n, g = load_pack<N>(gain + held(k) * N);
            set_words<T>(d, 0, row_dy[k]);
            set_words<T>(n, 0, row_x[k]);
            EQI_UNROLL
            for (int e = 0; e < N; e++)
                d.v[e] = rs * (d.v[e] * (offset + g.v[e]) - n.v[e] * rs * mean);
            add_pack(dx, r, held(k), d, acc);
        }
    }
    if (!GAIN) return;
    float *of_rows = reinterpret_cast<float *>(memory + 1),
          *to = part + static_cast<int64_t>(blockIdx.x) * width;
    const bool alone = blockDim.y == 1;
    EQI_UNROLL
    for (int k = 0; k < HELD; k++) {
        if (held(k) >= packs) continue;
        if (alone) store_pack(to + held(k) * N, sums[k]);
        EQI_UNROLL
        for (int e = 0; e < N && !alone; e++)
            of_rows[static_cast<int>(threadIdx.y) * width + held(k) * N + e] = sums[k].v[e];
    }
    if (alone) return;
    __syncthreads();
    for (int j = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x); j < width;
         j += EQI_BLOCK) {
        float sum = of_rows[j];
        for (int i = 1; i < static_cast<int>(blockDim.y); i++) sum += of_rows[i * width + j];
        to[j] = sum;
    }
}

/* Pieces of at least 8 rows of threads, and at most 512 pieces. */
template <class T>
static eqat_status bwd_packs(eqi_ctx *ctx, eqi_packs p, const eqi_view *dx, const eqi_view *dgain,
                             const eqi_view *dy, const eqi_view *x, const eqi_view *gain,
                             const eqi_view *rstd, float offset, bool acc_dx, bool acc_dgain)
{
    void *part = nullptr;
    size_t row = static_cast<size_t>(eqi_cuda_width(x)) * sizeof(float), shared = 0;
    if (dgain) {
        p.grid.x = (p.grid.x + 7) / 8;
        if (p.grid.x > 512) p.grid.x = 512;
        if (p.block.y > 1) shared = p.block.y * row;
        EQI_CUDA_TRY(eqi_cuda_scratch(ctx, EQI_CUDA_SUMS, p.grid.x * row, &part));
    }
    EQI_CUDA_TRY(eqi_launch(
        ctx, "rmsnorm_bwd",
        dgain ? rmsnorm_bwd_packs_kernel<T, true> : rmsnorm_bwd_packs_kernel<T, false>, p.grid,
        p.block, sizeof(norm_memory) + shared, eqi_vector<T>(p, dx, 2), static_cast<float *>(part),
        eqi_vector<T>(p, dy, 0), eqi_vector<T>(p, x, 1), static_cast<const float *>(gain->data),
        static_cast<const float *>(rstd->data), p.rows, p.packs, offset, acc_dx));
    return dgain ? add_parts(ctx, dgain, part, p.grid.x, acc_dgain) : EQAT_OK;
}

eqat_status eqi_cuda_rmsnorm_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dgain,
                                 const eqi_view *dy, const eqi_view *x, const eqi_view *gain,
                                 const eqi_view *rstd, double offset, bool acc_dx, bool acc_dgain)
{
    eqi_packs p;
    if (norm_packs(&p, gain, {dy, x, dx}))
        return eqi_with(x->dtype, [&](auto type) {
            return bwd_packs<decltype(type)>(ctx, p, dx, dgain, dy, x, gain, rstd,
                                             static_cast<float>(offset), acc_dx, acc_dgain);
        });
    if (dgain) EQI_CUDA_TRY(sum_gain(ctx, dgain, dy, x, rstd, acc_dgain));
    if (!dx) return EQAT_OK;
    return eqi_launch(ctx, "rmsnorm_bwd", rmsnorm_bwd_x_kernel, eqi_grid(eqi_cuda_rows(x), 1),
                      eqi_row_block(eqi_cuda_width(x)), sizeof(norm_memory), *dx, *dy, *x, *gain,
                      *rstd, static_cast<float>(offset), acc_dx);
}
