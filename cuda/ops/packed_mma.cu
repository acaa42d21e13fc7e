/* packed_linear for at most 16 rows of x in BF16, U8 zero points and groups of whole 64 inputs, on
 * mma.sync: the weight is unpacked into registers, rounded to BF16, sixteen of its rows at a time.
 * Bytes needed and moved: bits / 8 a weight, s and z, each once; y; x once for every block, from
 * the L2. */
#include "../launch.cuh"
#include "../mma.cuh"
#include "../packed.cuh"
#include "../packed_matvec.h"
#include "../reduce.cuh"
#include "../shared.cuh"

constexpr int WARPS = 8, BLOCK = WARPS * EQI_WARP;
constexpr int PIECE = 64;             /* inputs of a row whose weights a lane unpacks at a time */
constexpr int CHUNK = 4 * PIECE;      /* inputs that a warp multiplies at a time */
constexpr int ROWS = 16, COLUMNS = 8; /* of an mma's result: of the weight, of x */
/* Inputs in shared memory at a time: 32 KiB of them. */
template <int TILES> constexpr int STRETCH = 2048 / TILES;

/* Offsets are 32 bits wide. */
struct packed_weight {
    const unsigned *codes;
    const float *scale;
    const unsigned char *zero;
    int rows, words, groups; /* of a row */
    int pieces;              /* of a row */
    int64_t share;           /* piece i is in group 2 i share / 2^32 */
};

/* A piece. */
template <int bits> struct lane_codes {
    unsigned word[2 * bits];
    unsigned zero;
    float scale;
};

/* Piece i of row n; the last row, the last piece for what lies beyond: their products are of inputs
 * that are 0, or not stored. */
template <int bits>
__device__ __forceinline__ void read_codes(lane_codes<bits> *to, const packed_weight &p, int n,
                                           int i)
{
    const int row = n < p.rows ? n : p.rows - 1, piece = i < p.pieces ? i : p.pieces - 1;
    const int group = row * p.groups + static_cast<int>(2 * piece * p.share >> 32);
    const unsigned *at = p.codes + (row * p.words + piece * 2 * bits);
    EQI_UNROLL
    for (int w = 0; w < 2 * bits; w += bits == 3 ? 2 : 4) {
        if constexpr (bits == 3) {
            uint2 v = *reinterpret_cast<const uint2 *>(at + w);
            to->word[w] = v.x, to->word[w + 1] = v.y;
        } else {
            uint4 v = *reinterpret_cast<const uint4 *>(at + w);
            to->word[w] = v.x, to->word[w + 1] = v.y;
            to->word[w + 2] = v.z, to->word[w + 3] = v.w;
        }
    }
    to->zero = p.zero[group];
    to->scale = p.scale[group];
}

/* What the weights of a piece are made with: of 2 and 3 bits a table, of 4 bits arithmetic. */
template <int bits> struct piece_weights;

__device__ __forceinline__ code_terms terms_of_piece(unsigned zero, unsigned top, float scale)
{
    return {__uint_as_float((zero < top ? zero : top) | EQI_CODE_BASE), scale};
}

__device__ __forceinline__ uint32_t two_values(unsigned code, const code_terms &t)
{
    return bf16_pair(value_of(code, t), value_of(code + 1, t));
}

template <> struct piece_weights<2> {
    uint32_t low, high; /* values 0 and 1, 2 and 3 */

    __device__ __forceinline__ piece_weights(const lane_codes<2> &l)
    {
        const code_terms t = terms_of_piece(l.zero, 3, l.scale);
        low = two_values(0, t), high = two_values(2, t);
    }
    /* w[m]: the weights of codes 2 m and 2 m + 1 of sixteen i, in BF16. A code picks two bytes. */
    __device__ __forceinline__ void get(uint32_t (&w)[8], const lane_codes<2> &l, int i) const
    {
        EQI_UNROLL
        for (int half = 0; half < 2; half++) {
            /* Even codes of a byte beside odd ones, of two bytes. */
            const uint32_t beside = pick_bytes(l.word[i], l.word[i] >> 2, half ? 0x7362u : 0x5140u);
            EQI_UNROLL
            for (int m = 0; m < 2; m++) {
                const uint32_t picks = (beside >> 4 * m & 0x03030303u) * 0x22u + 0x10101010u;
                w[4 * half + m] = pick_bytes(low, high, picks);
                w[4 * half + m + 2] = pick_bytes(low, high, picks >> 16);
            }
        }
    }
};

/* Codes spread apart: what `mask` has stays, the rest moves up. */
__device__ __forceinline__ uint32_t spread(uint32_t codes, uint32_t mask, int by)
{
    return (codes & mask) | (codes << by & ~mask);
}

template <> struct piece_weights<3> {
    uint32_t lower[2], upper[2]; /* the bytes of values 0 to 3, 4 to 7 */

    __device__ __forceinline__ piece_weights(const lane_codes<3> &l)
    {
        const code_terms t = terms_of_piece(l.zero, 7, l.scale);
        EQI_UNROLL
        for (int i = 0; i < 2; i++) {
            const uint32_t a = two_values(4 * i, t), b = two_values(4 * i + 2, t);
            lower[i] = pick_bytes(a, b, 0x6420u);
            upper[i] = pick_bytes(a, b, 0x7531u);
        }
    }
    /* The same. Four codes, in nibbles, pick their lower bytes, then their upper ones. */
    __device__ __forceinline__ void get(uint32_t (&w)[8], const lane_codes<3> &l, int i) const
    {
        EQI_UNROLL
        for (int half = 0; half < 2; half++) {
            const int bit = i * 48 + half * 24, shift = bit % 32;
            uint32_t codes = l.word[bit / 32] >> shift;
            if (shift > 8) codes |= l.word[bit / 32 + 1] << (32 - shift);
            codes = spread(codes, 0x00000fffu, 4);
            codes = spread(codes, 0x003f003fu, 2);
            codes = spread(codes, 0x07070707u, 1) & 0x77777777u;
            EQI_UNROLL
            for (int m = 0; m < 2; m++) {
                const uint32_t picks = m ? codes >> 16 : codes,
                               a = pick_bytes(lower[0], lower[1], picks),
                               b = pick_bytes(upper[0], upper[1], picks);
                w[4 * half + 2 * m] = pick_bytes(a, b, 0x5140u);
                w[4 * half + 2 * m + 1] = pick_bytes(a, b, 0x7362u);
            }
        }
    }
};

template <> struct piece_weights<4> {
    code_terms terms;

    __device__ __forceinline__ piece_weights(const lane_codes<4> &l)
        : terms(terms_of_piece(l.zero, 15, l.scale))
    {
    }
    /* The same. A mask leaves four codes alone in bytes of their own, each of which one instruction
     * then puts under the exponent of 2^23. */
    __device__ __forceinline__ void get(uint32_t (&w)[8], const lane_codes<4> &l, int i) const
    {
        EQI_UNROLL
        for (int m = 0; m < 8; m++) {
            const uint32_t codes = l.word[2 * i + m / 4];
            float v[2];
            EQI_UNROLL
            for (int odd = 0; odd < 2; odd++) {
                const uint32_t base = pick_bytes(codes >> 4 * odd & 0x0f0f0f0fu, EQI_CODE_BASE,
                                                 0x7440u + static_cast<unsigned>(m % 4));
                v[odd] = __fmul_rn(__fsub_rn(__uint_as_float(base), terms.below), terms.scale);
            }
            w[m] = bf16_pair(v[0], v[1]);
        }
    }
};

/* Where eight inputs of row g of x lie, half h of sixteen i of piece t of chunk c. The lanes that
 * read at the same time, of two rows and four pieces, meet all banks, and so do those that write.
 */
__device__ __forceinline__ unsigned input_place(unsigned c, unsigned t, unsigned i, unsigned g,
                                                unsigned h)
{
    const unsigned at = (g * 2 + h) ^ (t & 1) ^ (t & 2) << 1 ^ i << 1;
    return ((c * 4 + t) * 4 + i) * 2 * COLUMNS + at;
}

/* Inputs k0 to k0 + STRETCH of the rows of x that are there; 0 beyond their end. */
template <int TILES>
__device__ __forceinline__ void read_inputs(uint4 *to, const eqi_view &x, int k0)
{
    constexpr int EIGHTS = STRETCH<TILES> / 8, STEP = BLOCK / EIGHTS;
    const unsigned eight = threadIdx.x % EIGHTS;
    const int k = k0 + static_cast<int>(eight) * 8, first = static_cast<int>(threadIdx.x / EIGHTS);
    const __nv_bfloat16 *from =
        static_cast<const __nv_bfloat16 *>(x.data) + at2(x, first, k < width(x) ? k : 0);
    const int64_t step = at2(x, STEP, 0);
    uint4 v[COLUMNS];
    EQI_UNROLL
    for (int i = 0; i < COLUMNS; i++) {
        v[i] = make_uint4(0, 0, 0, 0);
        if (first + i * STEP < x.shape[2] && k < width(x))
            v[i] = *reinterpret_cast<const uint4 *>(from + i * step);
    }
    EQI_UNROLL
    for (int i = 0; i < COLUMNS; i++) {
        const int r = first + i * STEP;
        to[r / COLUMNS * EIGHTS * COLUMNS +
           input_place(eight / 32, eight / 8 % 4, eight / 2 % 4, r % COLUMNS, eight % 2)] = v[i];
    }
}

/* sum += the weights of the lane's pieces of rows g and g + 8 times its inputs: chunk c of those in
 * shared memory. The order of sixteen inputs within four mma is one for both. */
template <int bits, int TILES>
__device__ __forceinline__ void multiply(float (&sum)[TILES][4], const lane_codes<bits> (&l)[2],
                                         const uint4 *inputs, unsigned c, unsigned g, unsigned t)
{
    const piece_weights<bits> weights[2] = {l[0], l[1]};
    EQI_UNROLL
    for (int i = 0; i < PIECE / 16; i++) {
        uint32_t w[2][8];
        weights[0].get(w[0], l[0], i);
        weights[1].get(w[1], l[1], i);
        EQI_UNROLL
        for (int tile = 0; tile < TILES; tile++) {
            const uint4 *from = inputs + tile * (STRETCH<TILES> / 8) * COLUMNS;
            EQI_UNROLL
            for (int h = 0; h < 2; h++) {
                const uint4 x = from[input_place(c, t, i, g, h)];
                const int m = h * 4;
                mma_add(sum[tile], {w[0][m], w[1][m], w[0][m + 1], w[1][m + 1]}, x.x, x.y);
                mma_add(sum[tile], {w[0][m + 2], w[1][m + 2], w[0][m + 3], w[1][m + 3]}, x.z, x.w);
            }
        }
    }
}

/* y[R, N] = x[R, K] w^[N, K]^T + bias[N]. A block has `teams` times 16 rows of the weight; the
 * warps of a team take its chunks in turn. */
template <int bits, int TILES>
__global__ void __launch_bounds__(BLOCK, 2)
    packed_mma_kernel(eqi_view y, eqi_view x, packed_weight p, eqi_view bias, int teams)
{
    uint4 *inputs = block_memory<uint4>();
    float *sums = block_memory<float>(); /* in their place: [WARPS][ROWS][TILES * COLUMNS] */
    const int lane = static_cast<int>(threadIdx.x) % EQI_WARP, g = lane / 4, t = lane % 4,
              warp = static_cast<int>(threadIdx.x) / EQI_WARP, parts = WARPS / teams,
              of_block = teams * ROWS, n0 = static_cast<int>(blockIdx.x) * of_block,
              n = n0 + warp % teams * ROWS + g;
    float sum[TILES][4] = {};
    lane_codes<bits> now[2], next[2];
    int piece = warp / teams * 4 + t;
    read_codes(&now[0], p, n, piece);
    read_codes(&now[1], p, n + 8, piece);
    EQI_ROLLED
    for (int k0 = 0; k0 < p.pieces * PIECE; k0 += STRETCH<TILES>) {
        __syncthreads(); /* the inputs before may still be in use */
        read_inputs<TILES>(inputs, x, k0);
        __syncthreads();
        const int left = (p.pieces * PIECE - k0 + CHUNK - 1) / CHUNK,
                  chunks = left < STRETCH<TILES> / CHUNK ? left : STRETCH<TILES> / CHUNK;
        EQI_ROLLED
        for (int c = warp / teams; c < chunks; c += parts) {
            piece += parts * 4;
            read_codes(&next[0], p, n, piece);
            read_codes(&next[1], p, n + 8, piece);
            multiply<bits, TILES>(sum, now, inputs, c, g, t);
            now[0] = next[0], now[1] = next[1];
        }
    }
    __syncthreads();
    EQI_UNROLL
    for (int e = 0; e < TILES * 4; e++)
        sums[((warp * ROWS + g + e % 4 / 2 * 8) * TILES + e / 4) * COLUMNS + 2 * t + e % 2] =
            sum[e / 4][e % 4];
    __syncthreads();
    for (int e = static_cast<int>(threadIdx.x); e < static_cast<int>(x.shape[2]) * of_block;
         e += BLOCK) {
        const int r = e / of_block, i = e % of_block;
        if (n0 + i >= p.rows) continue;
        float v = 0.0f;
        for (int part = 0; part < parts; part++)
            v += sums[(part * of_block + i) * TILES * COLUMNS + r];
        if (bias.data) v += get(bias, n0 + i);
        put(y, at2(y, r, n0 + i), v);
    }
}

using mma_kernel = void (*)(eqi_view, eqi_view, packed_weight, eqi_view, int);

template <int TILES> static mma_kernel of_bits(int bits)
{
    return bits == 2 ? packed_mma_kernel<2, TILES>
        : bits == 3  ? packed_mma_kernel<3, TILES>
                     : packed_mma_kernel<4, TILES>;
}

bool eqi_cuda_packed_mma_fits(eqi_ctx *ctx, const eqi_view *x, const eqi_view *codes,
                              const eqi_view *z, const eqi_quant_desc *q)
{
    const int64_t most = INT64_C(1) << 30, k = eqi_cuda_width(x);
    return x->dtype == EQI_BF16 && z->dtype == EQI_U8 && q->group % PIECE == 0 && k % PIECE == 0 &&
        eqi_cuda_rows(codes) * eqi_cuda_width(codes) < most && k / PIECE * q->group < most &&
        eqi_cuda_packs(codes, q->bits == 3 ? 8 : 16) && x->stride[x->ndim - 1] == 1 &&
        (eqi_cuda_stride(x) % 8 == 0 || eqi_cuda_rows(x) == 1) &&
        reinterpret_cast<uintptr_t>(x->data) % 16 == 0 &&
        eqi_mma_runs(eqi_cuda_of(ctx)->capability);
}

eqat_status eqi_cuda_packed_mma(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                const eqi_view *codes, const eqi_view *s, const eqi_view *z,
                                const eqi_view *bias, const eqi_quant_desc *q)
{
    const int tiles = eqi_cuda_rows(x) > COLUMNS ? 2 : 1;
    const int64_t n = eqi_cuda_rows(codes), per_group = q->group / PIECE;
    const packed_weight p = {
        static_cast<const unsigned *>(codes->data),
        static_cast<const float *>(s->data),
        static_cast<const unsigned char *>(z->data),
        static_cast<int>(n),
        static_cast<int>(eqi_cuda_width(codes)),
        static_cast<int>(eqi_cuda_width(s)),
        static_cast<int>(eqi_cuda_width(x) / PIECE),
        ((INT64_C(1) << 31) + per_group - 1) / per_group,
    };
    /* More teams have x in common; fewer leave blocks for all processors, but no more warps each
     * than a stretch has chunks. */
    int teams = 4;
    while (teams > tiles && n / (teams * ROWS) < 256) teams /= 2;
    const auto blocks = static_cast<unsigned>((n + teams * ROWS - 1) / (teams * ROWS));
    return eqi_launch(ctx, "packed_linear", tiles == 2 ? of_bits<2>(q->bits) : of_bits<1>(q->bits),
                      blocks, BLOCK, size_t{32768}, *y, *x, p, eqi_or_none(bias), teams);
}
