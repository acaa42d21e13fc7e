/* packed_linear for at most 16 rows of x: products of vectors with packed codes of 2, 3 or 4 bits;
 * the weight never lies in memory. Bytes needed and moved: bits / 8 a weight, s and z, x and y;
 * each word once; every block reads x from the L2, which serves 16 rows of the weight or more.
 * Operations of a weight beside R fmaf: 7.6 (BF16) or 5.6 (F32) at 2 bits, to take it out of its
 * word and round it to the dtype of x; they, not bytes, bound one row. */
#include "../launch.cuh"
#include "../packed.cuh"
#include "../packed_matvec.h"
#include "../reduce.cuh"
#include "../shared.cuh"

#ifdef __CUDACC__
#define KEEP_LOOP _Pragma("unroll 1")
#else
#define KEEP_LOOP
#endif

constexpr int BLOCK = 128;
/* Rows of the weight that a lane works on; a number of x that it has read serves all of them. */
constexpr int SHARE = 4;
/* Between the inputs of two lanes in shared memory, in floats: 32 of each of R rows, and 4 more, so
 * that eight lanes reading 16 bytes each meet all banks. */
template <int R> constexpr int PITCH = R * 32 + 4;

/* The codes of a lane: a block of 32 in each of its rows. */
template <int bits> struct lane_codes {
    code_block<bits> block[SHARE];
    code_terms terms[SHARE];
};

/* Block `at` of rows n to n + SHARE; the last row, the last block for what would be beyond. */
template <int bits>
__device__ __forceinline__ void read_codes(lane_codes<bits> *to, const eqi_view &codes,
                                           const eqi_view &s, const eqi_view &z,
                                           const eqi_quant_desc &q, int64_t n, int64_t at)
{
    const int64_t blocks = width(codes) / bits, b = at < blocks ? at : blocks - 1;
    const int64_t group = static_cast<unsigned>(b) / static_cast<unsigned>(q.group / 32);
    const unsigned *words = static_cast<const unsigned *>(codes.data);
    EQI_UNROLL
    for (int i = 0; i < SHARE; i++) {
        int64_t row = n + i < rows(codes) ? n + i : rows(codes) - 1;
        to->block[i] = read_block<bits>(words + (row * blocks + b) * bits);
        to->terms[i] = terms_of(s, z, row * width(s) + group, quant_top(q));
    }
}

template <eqi_dtype dtype> __device__ __forceinline__ float get_input(const eqi_view &x, int64_t at)
{
    if constexpr (dtype == EQI_BF16)
        return __bfloat162float(static_cast<const __nv_bfloat16 *>(x.data)[at]);
    else
        return static_cast<const float *>(x.data)[at];
}

/* Blocks first to first + lanes of all rows of x as f32; 0 for rows that it lacks. */
template <int R, eqi_dtype dtype>
__device__ __forceinline__ void read_inputs(float *to, const eqi_view &x, int64_t first, int lanes)
{
    for (int e = static_cast<int>(threadIdx.x); e < lanes * 32; e += BLOCK) {
        int64_t k = first * 32 + e;
        if (k >= width(x)) break;
        EQI_UNROLL
        for (int r = 0; r < R; r++)
            to[e / 32 * PITCH<R> + r * 32 + e % 32] =
                r < x.shape[2] ? get_input<dtype>(x, at2(x, r, k)) : 0.0f;
    }
}

/* sum[i][r] += the weights of row i times those inputs of row r that this lane has. Four inputs at
 * a time; the loop stays one, since 16 rows unrolled would be more code than the caches hold. */
template <int bits, int R, eqi_dtype dtype>
__device__ __forceinline__ void multiply(float (*sum)[R], lane_codes<bits> c, const float *inputs)
{
    KEEP_LOOP
    for (int k = 0; k < 32; k += 4) {
        float w[SHARE][4];
        EQI_UNROLL
        for (int i = 0; i < SHARE; i++) {
            EQI_UNROLL
            for (int j = 0; j < 4; j++)
                w[i][j] = as(dtype, value_of(code_of<bits>(c.block[i], j), c.terms[i]));
        }
        EQI_UNROLL
        for (int i = 0; i < SHARE; i++) drop_codes<bits, 4>(&c.block[i]);
        EQI_UNROLL
        for (int r = 0; r < R; r++) {
            float4 v = *reinterpret_cast<const float4 *>(inputs + r * 32 + k);
            EQI_UNROLL
            for (int i = 0; i < SHARE; i++) {
                sum[i][r] = __fmaf_rn(w[i][0], v.x, sum[i][r]);
                sum[i][r] = __fmaf_rn(w[i][1], v.y, sum[i][r]);
                sum[i][r] = __fmaf_rn(w[i][2], v.z, sum[i][r]);
                sum[i][r] = __fmaf_rn(w[i][3], v.w, sum[i][r]);
            }
        }
    }
}

/* The sums of a team's lanes, by butterflies: to[i * R + r] */
template <int R>
__device__ __forceinline__ void leave(float *to, const float (*sum)[R], int lane, int lanes)
{
    EQI_UNROLL
    for (int i = 0; i < SHARE; i++) {
        EQI_UNROLL
        for (int r = 0; r < R; r++) {
            float v = sum[i][r];
            for (int m = lanes / 2; m; m /= 2) v += __shfl_xor_sync(EQI_FULL, v, m);
            if (lane == 0) to[i * R + r] = v;
        }
    }
}

/* y[R, N] = x[R, K] w^[N, K]^T + bias[N]. `lanes` threads, a power of two, share SHARE rows of the
 * weight: each takes every lanes-th block of 32 inputs. */
template <int bits, int R, eqi_dtype dtype>
__global__ void __launch_bounds__(BLOCK, R > 2 ? 2 : 4)
    packed_matvec_kernel(eqi_view y, eqi_view x, eqi_view codes, eqi_view s, eqi_view z,
                         eqi_view bias, eqi_quant_desc q, int lanes)
{
    float *inputs = block_memory<float>(), *sums = inputs; /* one after the other */
    const int lane = static_cast<int>(threadIdx.x) & (lanes - 1),
              team = static_cast<int>(threadIdx.x) / lanes, per_block = BLOCK / lanes * SHARE;
    const int64_t blocks = width(codes) / bits, step = static_cast<int64_t>(gridDim.x) * per_block;
    for (int64_t n0 = static_cast<int64_t>(blockIdx.x) * per_block; n0 < rows(codes); n0 += step) {
        const int64_t n = n0 + team * SHARE;
        float sum[SHARE][R] = {};
        lane_codes<bits> now, next;
        read_codes<bits>(&now, codes, s, z, q, n, lane);
        for (int64_t b = 0; b < blocks; b += lanes) {
            __syncthreads(); /* the inputs before may still be in use */
            read_inputs<R, dtype>(inputs, x, b, lanes);
            __syncthreads();
            read_codes<bits>(&next, codes, s, z, q, n, b + lanes + lane);
            if (b + lane < blocks) multiply<bits, R, dtype>(sum, now, inputs + lane * PITCH<R>);
            now = next;
        }
        __syncthreads();
        leave<R>(sums + team * SHARE * R, sum, lane, lanes);
        __syncthreads();
        for (int e = static_cast<int>(threadIdx.x); e < per_block * R; e += BLOCK) {
            int r = e / per_block, i = e % per_block;
            if (r >= x.shape[2] || n0 + i >= rows(codes)) continue;
            float v = sums[i * R + r];
            if (bias.data) v += get(bias, n0 + i);
            put(y, at2(y, r, n0 + i), v);
        }
    }
}

using matvec_kernel = void (*)(eqi_view, eqi_view, eqi_view, eqi_view, eqi_view, eqi_view,
                               eqi_quant_desc, int);

template <int R, eqi_dtype dtype> static matvec_kernel of_bits(int bits)
{
    return bits == 2 ? packed_matvec_kernel<2, R, dtype>
        : bits == 3  ? packed_matvec_kernel<3, R, dtype>
                     : packed_matvec_kernel<4, R, dtype>;
}

template <int R> static matvec_kernel of_dtype(int bits, eqi_dtype dtype)
{
    return dtype == EQI_BF16 ? of_bits<R, EQI_BF16>(bits) : of_bits<R, EQI_F32>(bits);
}

bool eqi_cuda_packed_matvec_fits(const eqi_view *x, const eqi_view *codes, const eqi_view *s,
                                 const eqi_view *z, const eqi_quant_desc *q)
{
    return eqi_cuda_rows(x) >= 1 && eqi_cuda_rows(x) <= 16 && eqi_cuda_rows(codes) &&
        (x->dtype == EQI_BF16 || x->dtype == EQI_F32) && q->bits >= 2 && q->bits <= 4 &&
        q->group % 32 == 0 && eqi_cuda_width(x) / 32 <= INT32_MAX &&
        eqi_cuda_packs(codes, eqi_code_alignment(q->bits)) && eqi_cuda_packs(s, 1) &&
        eqi_cuda_packs(z, 1);
}

eqat_status eqi_cuda_packed_matvec(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                   const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                   const eqi_view *bias, const eqi_quant_desc *q)
{
    if (eqi_cuda_packed_mma_fits(ctx, x, codes, z, q))
        return eqi_cuda_packed_mma(ctx, y, x, codes, s, z, bias, q);
    const int64_t count = eqi_cuda_rows(x), blocks = eqi_cuda_width(x) / 32;
    const int r = count > 8 ? 16
        : count > 4         ? 8
        : count > 2         ? 4
                            : static_cast<int>(count),
              most = r > 8 ? 16 : 32; /* what shared memory holds */
    int lanes = 4; /* so that the sums of a block find room where its inputs lay */
    while (lanes < most && lanes < blocks) lanes *= 2;
    matvec_kernel kernel = r == 1 ? of_dtype<1>(q->bits, x->dtype)
        : r == 2                  ? of_dtype<2>(q->bits, x->dtype)
        : r == 4                  ? of_dtype<4>(q->bits, x->dtype)
        : r == 8                  ? of_dtype<8>(q->bits, x->dtype)
                                  : of_dtype<16>(q->bits, x->dtype);
    return eqi_launch(ctx, "packed_linear", kernel,
                      eqi_grid(eqi_cuda_rows(codes), BLOCK / lanes * SHARE), BLOCK,
                      static_cast<size_t>(lanes * (r * 32 + 4)) * sizeof(float), *y, *x, *codes, *s,
                      *z, eqi_or_none(bias), *q, lanes);
}
