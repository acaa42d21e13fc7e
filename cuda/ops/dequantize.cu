/* dequantize: codes [N, K/32*bits], s and z [N, G] to w^ [N, K]. Bytes needed: bits / 8 a weight
 * read, 2 or 4 written, and s and z. Bytes moved: the same; neighbouring threads read words, s and
 * z once more, from the L1. */
#include "../launch.cuh"
#include "../packed.cuh"
#include "../vector.cuh"

/* Any group, any address. */
__global__ void __launch_bounds__(EQI_BLOCK)
    dequantize_kernel(eqi_view what, eqi_view codes, eqi_view s, eqi_view z, eqi_quant_desc q)
{
    for (int64_t i = grid_first(); i < count(what); i += grid_step()) {
        int64_t n = i / width(what), k = i % width(what);
        put(what, at(what, n, k), packed_value(codes, s, z, q, n, k));
    }
}

/* Groups of whole blocks of 32, all contiguous: a thread makes 16 bytes of w^, all of one group.
 * known: the number of bits, 0 where only q has it. */
template <int known, class T>
__global__ void __launch_bounds__(EQI_BLOCK)
    dequantize_wide_kernel(T *what, const unsigned *codes, eqi_view s, eqi_view z, int64_t pieces,
                           eqi_quant_desc q)
{
    constexpr int n = EQI_LANES<T>;
    const int bits = known ? known : q.bits;
    for (int64_t i = grid_first(); i < pieces; i += grid_step()) {
        unsigned block = static_cast<unsigned>(i * n / 32);
        code_terms t = terms_of(s, z, block / static_cast<unsigned>(q.group / 32), quant_top(q));
        unsigned long long held = codes_from<n>(codes, bits, i * n);
        pack<n> value;
        EQI_UNROLL
        for (int j = 0; j < n; j++)
            value.v[j] = value_of(static_cast<unsigned>(held >> j * bits) & ((1u << bits) - 1u), t);
        store_pack(what + i * n, value);
    }
}

template <class T>
static eqat_status wide(eqi_ctx *ctx, const eqi_view *what, const eqi_view *codes,
                        const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    const int64_t pieces = eqi_cuda_count(what) / EQI_LANES<T>;
    auto kernel = q->bits == 2 ? dequantize_wide_kernel<2, T>
        : q->bits == 3         ? dequantize_wide_kernel<3, T>
        : q->bits == 4         ? dequantize_wide_kernel<4, T>
                               : dequantize_wide_kernel<0, T>;
    return eqi_launch(ctx, "dequantize", kernel, eqi_grid(pieces, EQI_BLOCK), EQI_BLOCK, 0,
                      static_cast<T *>(what->data), static_cast<const unsigned *>(codes->data), *s,
                      *z, pieces, *q);
}

/* A tensor's blocks of 32 are counted in 32 bits. */
static bool is_wide(const eqi_view *what, const eqi_view *codes, const eqi_view *s,
                    const eqi_view *z, const eqi_quant_desc *q)
{
    return q->group % 32 == 0 && eqi_cuda_count(what) / 32 <= UINT32_MAX &&
        eqi_cuda_packs(what, 16) && eqi_cuda_packs(codes, 4) && eqi_cuda_packs(s, 1) &&
        eqi_cuda_packs(z, 1);
}

eqat_status eqi_cuda_dequantize(eqi_ctx *ctx, const eqi_view *what, const eqi_view *codes,
                                const eqi_view *s, const eqi_view *z, const eqi_quant_desc *q)
{
    if (is_wide(what, codes, s, z, q) && what->dtype == EQI_BF16)
        return wide<__nv_bfloat16>(ctx, what, codes, s, z, q);
    if (is_wide(what, codes, s, z, q) && what->dtype == EQI_F32)
        return wide<float>(ctx, what, codes, s, z, q);
    return eqi_launch(ctx, "dequantize", dequantize_kernel,
                      eqi_grid(eqi_cuda_count(what), EQI_BLOCK), EQI_BLOCK, 0, *what, *codes, *s,
                      *z, *q);
}
