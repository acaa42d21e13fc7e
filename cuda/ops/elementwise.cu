/* fill, copy, axpby, mul, scale_by, ratio. Bytes needed and moved: each element of each argument
 * once, that of an output that is added to twice. Of an element: fill F32 4, BF16 2; copy F32 8,
 * BF16 4, one from the other 6; axpby and mul F32 12, BF16 6; scale_by F32 8, BF16 4. */
#include "../launch.cuh"
#include "../load.cuh"
#include "../vector.cuh"

__global__ void __launch_bounds__(EQI_BLOCK) fill_kernel(eqi_view y, float value)
{
    for (int64_t i = grid_first(); i < count(y); i += grid_step()) put(y, elem(y, i), value);
}

/* The bits of the value in an element of `size` bytes. */
__global__ void __launch_bounds__(EQI_BLOCK)
    fill_bits_kernel(eqi_view y, int size, unsigned long long bits)
{
    for (int64_t i = grid_first(); i < count(y); i += grid_step()) {
        int64_t to = elem(y, i);
        if (size == 8)
            static_cast<unsigned long long *>(y.data)[to] = bits;
        else
            static_cast<unsigned *>(y.data)[to] = static_cast<unsigned>(bits);
    }
}

template <class T>
__global__ void __launch_bounds__(EQI_BLOCK)
    fill_packs_kernel(vector_rows<T> y, int64_t rows, int packs, float value)
{
    constexpr int N = EQI_LANES<T>;
    pack<N> p;
    EQI_UNROLL
    for (int k = 0; k < N; k++) p.v[k] = value;
    for (int64_t r = row_first(); r < rows; r += row_step())
        for (int i = pack_first(); i < packs; i += pack_step()) store_pack(y, r, i, p);
}

/* Whole numbers that f32 does not hold, and f64, are filled by their bits. */
static bool as_bits(eqi_dtype dtype, double value, unsigned long long *bits)
{
    if (dtype == EQI_F64) {
        __builtin_memcpy(bits, &value, sizeof value);
        return true;
    }
    if (dtype != EQI_I32 && dtype != EQI_U32) return false;
    double lo = dtype == EQI_I32 ? -2147483648.0 : 0.0,
           hi = dtype == EQI_I32 ? 2147483647.0 : 4294967295.0,
           r = value != value ? 0.0 : __builtin_rint(value);
    *bits = static_cast<unsigned long long>(static_cast<long long>(r < lo ? lo : r > hi ? hi : r));
    return true;
}

eqat_status eqi_cuda_fill(eqi_ctx *ctx, const eqi_view *y, double value)
{
    eqi_packs p;
    if (eqi_as_packs(&p, {y}))
        return eqi_with(y->dtype, [&](auto type) {
            using T = decltype(type);
            return eqi_launch(ctx, "fill", fill_packs_kernel<T>, p.grid, p.block, 0,
                              eqi_vector<T>(p, y, 0), p.rows, p.packs, static_cast<float>(value));
        });
    unsigned long long bits = 0;
    dim3 grid(eqi_grid(eqi_cuda_count(y), EQI_BLOCK));
    if (as_bits(y->dtype, value, &bits))
        return eqi_launch(ctx, "fill", fill_bits_kernel, grid, EQI_BLOCK, 0, *y,
                          static_cast<int>(eqi_cuda_size(y->dtype)), bits);
    return eqi_launch(ctx, "fill", fill_kernel, grid, EQI_BLOCK, 0, *y, static_cast<float>(value));
}

__global__ void __launch_bounds__(EQI_BLOCK) copy_kernel(eqi_view y, eqi_view x)
{
    for (int64_t i = grid_first(); i < count(y); i += grid_step())
        put(y, elem(y, i), get(x, elem(x, i)));
}

/* One dtype: bytes, so that whole numbers and NaN keep their bits. */
template <class T>
__global__ void __launch_bounds__(EQI_BLOCK) copy_bits_kernel(eqi_view y, eqi_view x)
{
    for (int64_t i = grid_first(); i < count(y); i += grid_step())
        static_cast<T *>(y.data)[elem(y, i)] = static_cast<const T *>(x.data)[elem(x, i)];
}

template <class Y, class X>
__global__ void __launch_bounds__(EQI_BLOCK)
    copy_packs_kernel(vector_rows<Y> y, vector_rows<X> x, int64_t rows, int packs)
{
    constexpr int N = EQI_LANES<Y, X>;
    for (int64_t r = row_first(); r < rows; r += row_step())
        for (int i = pack_first(); i < packs; i += pack_step())
            store_pack(y, r, i, load_pack<N>(x, r, i));
}

/* One dtype, whichever: 16 bytes as they are. */
__global__ void __launch_bounds__(EQI_BLOCK)
    copy_words_kernel(vector_rows<uint4> y, vector_rows<uint4> x, int64_t rows, int packs)
{
    for (int64_t r = row_first(); r < rows; r += row_step())
        for (int i = pack_first(); i < packs; i += pack_step())
            __stwb(y.data + r * y.stride + i, x.data[r * x.stride + i]);
}

template <class Y, class X>
static eqat_status copy_packs(eqi_ctx *ctx, const eqi_packs &p, const eqi_view *y,
                              const eqi_view *x)
{
    return eqi_launch(ctx, "copy", copy_packs_kernel<Y, X>, p.grid, p.block, 0,
                      eqi_vector<Y>(p, y, 0), eqi_vector<X>(p, x, 1), p.rows, p.packs);
}

eqat_status eqi_cuda_copy(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x)
{
    eqi_packs p;
    int lanes = 16 / static_cast<int>(eqi_cuda_size(y->dtype));
    if (y->dtype == x->dtype && eqi_as_packs(&p, lanes, {y, x}))
        return eqi_launch(ctx, "copy", copy_words_kernel, p.grid, p.block, 0,
                          vector_rows<uint4>{static_cast<uint4 *>(y->data), p.stride[0] / lanes},
                          vector_rows<uint4>{static_cast<uint4 *>(x->data), p.stride[1] / lanes},
                          p.rows, p.packs);
    if (y->dtype != x->dtype && eqi_as_packs(&p, {y, x}))
        return y->dtype == EQI_BF16 ? copy_packs<__nv_bfloat16, float>(ctx, p, y, x)
                                    : copy_packs<float, __nv_bfloat16>(ctx, p, y, x);
    dim3 grid(eqi_grid(eqi_cuda_count(y), EQI_BLOCK));
    if (y->dtype != x->dtype)
        return eqi_launch(ctx, "copy", copy_kernel, grid, EQI_BLOCK, 0, *y, *x);
    switch (eqi_cuda_size(y->dtype)) {
    case 1:
        return eqi_launch(ctx, "copy", copy_bits_kernel<unsigned char>, grid, EQI_BLOCK, 0, *y, *x);
    case 2:
        return eqi_launch(ctx, "copy", copy_bits_kernel<unsigned short>, grid, EQI_BLOCK, 0, *y,
                          *x);
    case 4: return eqi_launch(ctx, "copy", copy_bits_kernel<unsigned>, grid, EQI_BLOCK, 0, *y, *x);
    default:
        return eqi_launch(ctx, "copy", copy_bits_kernel<unsigned long long>, grid, EQI_BLOCK, 0, *y,
                          *x);
    }
}

__global__ void __launch_bounds__(EQI_BLOCK)
    axpby_kernel(eqi_view y, float alpha, eqi_view a, float beta, eqi_view b)
{
    for (int64_t i = grid_first(); i < count(y); i += grid_step()) {
        float sum = alpha * get(a, elem(a, i));
        if (b.data) sum += beta * get(b, elem(b, i));
        put(y, elem(y, i), sum);
    }
}

template <class Y, class A, class B>
__global__ void __launch_bounds__(EQI_BLOCK)
    axpby_packs_kernel(vector_rows<Y> y, float alpha, vector_rows<A> a, float beta,
                       vector_rows<B> b, int64_t rows, int packs)
{
    constexpr int N = EQI_LANES<Y, A, B>;
    for (int64_t r = row_first(); r < rows; r += row_step())
        for (int i = pack_first(); i < packs; i += pack_step()) {
            pack<N> sum = load_pack<N>(a, r, i), other = {};
            if (b.data) other = load_pack<N>(b, r, i);
            EQI_UNROLL
            for (int k = 0; k < N; k++) {
                sum.v[k] = alpha * sum.v[k];
                if (b.data) sum.v[k] += beta * other.v[k];
            }
            store_pack(y, r, i, sum);
        }
}

static eqat_status axpby_packs(eqi_ctx *ctx, const eqi_packs &p, const eqi_view *y, float alpha,
                               const eqi_view *a, float beta, const eqi_view *b)
{
    return eqi_with(y->dtype, [&](auto of_y) {
        return eqi_with(a->dtype, [&](auto of_a) {
            return eqi_with(b ? b->dtype : a->dtype, [&](auto of_b) {
                using Y = decltype(of_y);
                using A = decltype(of_a);
                using B = decltype(of_b);
                return eqi_launch(ctx, "axpby", axpby_packs_kernel<Y, A, B>, p.grid, p.block, 0,
                                  eqi_vector<Y>(p, y, 0), alpha, eqi_vector<A>(p, a, 1), beta,
                                  eqi_vector<B>(p, b, 2), p.rows, p.packs);
            });
        });
    });
}

eqat_status eqi_cuda_axpby(eqi_ctx *ctx, const eqi_view *y, double alpha, const eqi_view *a,
                           double beta, const eqi_view *b)
{
    eqi_packs p;
    if (eqi_as_packs(&p, {y, a, b}))
        return axpby_packs(ctx, p, y, static_cast<float>(alpha), a, static_cast<float>(beta), b);
    return eqi_launch(ctx, "axpby", axpby_kernel, eqi_grid(eqi_cuda_count(y), EQI_BLOCK), EQI_BLOCK,
                      0, *y, static_cast<float>(alpha), *a, static_cast<float>(beta),
                      eqi_or_none(b));
}

__global__ void __launch_bounds__(EQI_BLOCK)
    mul_kernel(eqi_view y, eqi_view a, eqi_view b, bool acc)
{
    for (int64_t i = grid_first(); i < count(y); i += grid_step())
        add(y, elem(y, i), get(a, elem(a, i)) * get(b, elem(b, i)), acc);
}

template <class T>
__global__ void __launch_bounds__(EQI_BLOCK)
    mul_packs_kernel(vector_rows<T> y, vector_rows<T> a, vector_rows<T> b, int64_t rows, int packs,
                     bool acc)
{
    constexpr int N = EQI_LANES<T>;
    for (int64_t r = row_first(); r < rows; r += row_step())
        for (int i = pack_first(); i < packs; i += pack_step()) {
            pack<N> product = load_pack<N>(a, r, i), other = load_pack<N>(b, r, i);
            EQI_UNROLL
            for (int k = 0; k < N; k++) product.v[k] = product.v[k] * other.v[k];
            add_pack(y, r, i, product, acc);
        }
}

eqat_status eqi_cuda_mul(eqi_ctx *ctx, const eqi_view *y, const eqi_view *a, const eqi_view *b,
                         bool acc)
{
    eqi_packs p;
    if (y->dtype == a->dtype && y->dtype == b->dtype && eqi_as_packs(&p, {y, a, b}))
        return eqi_with(y->dtype, [&](auto type) {
            using T = decltype(type);
            return eqi_launch(ctx, "mul", mul_packs_kernel<T>, p.grid, p.block, 0,
                              eqi_vector<T>(p, y, 0), eqi_vector<T>(p, a, 1),
                              eqi_vector<T>(p, b, 2), p.rows, p.packs, acc);
        });
    return eqi_launch(ctx, "mul", mul_kernel, eqi_grid(eqi_cuda_count(y), EQI_BLOCK), EQI_BLOCK, 0,
                      *y, *a, *b, acc);
}

__global__ void __launch_bounds__(EQI_BLOCK)
    scale_by_kernel(eqi_view y, eqi_view x, eqi_view factor, bool acc)
{
    for (int64_t i = grid_first(); i < count(y); i += grid_step())
        add(y, elem(y, i), get(factor, 0) * get(x, elem(x, i)), acc);
}

template <class Y, class X>
__global__ void __launch_bounds__(EQI_BLOCK)
    scale_by_packs_kernel(vector_rows<Y> y, vector_rows<X> x, eqi_view factor, int64_t rows,
                          int packs, bool acc)
{
    constexpr int N = EQI_LANES<Y, X>;
    float f = get(factor, 0);
    for (int64_t r = row_first(); r < rows; r += row_step())
        for (int i = pack_first(); i < packs; i += pack_step()) {
            pack<N> product = load_pack<N>(x, r, i);
            EQI_UNROLL
            for (int k = 0; k < N; k++) product.v[k] = f * product.v[k];
            add_pack(y, r, i, product, acc);
        }
}

static eqat_status scale_by_packs(eqi_ctx *ctx, const eqi_packs &p, const eqi_view *y,
                                  const eqi_view *x, const eqi_view *factor, bool acc)
{
    return eqi_with(y->dtype, [&](auto of_y) {
        return eqi_with(x->dtype, [&](auto of_x) {
            using Y = decltype(of_y);
            using X = decltype(of_x);
            return eqi_launch(ctx, "scale_by", scale_by_packs_kernel<Y, X>, p.grid, p.block, 0,
                              eqi_vector<Y>(p, y, 0), eqi_vector<X>(p, x, 1), *factor, p.rows,
                              p.packs, acc);
        });
    });
}

eqat_status eqi_cuda_scale_by(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                              const eqi_view *factor, bool acc)
{
    eqi_packs p;
    if (eqi_as_packs(&p, {y, x})) return scale_by_packs(ctx, p, y, x, factor, acc);
    return eqi_launch(ctx, "scale_by", scale_by_kernel, eqi_grid(eqi_cuda_count(y), EQI_BLOCK),
                      EQI_BLOCK, 0, *y, *x, *factor, acc);
}

__global__ void __launch_bounds__(1) ratio_kernel(eqi_view y, eqi_view a, eqi_view b)
{
    float below = get(b, 0);
    put(y, 0, get(a, 0) / (below < 1.0f ? 1.0f : below));
}

eqat_status eqi_cuda_ratio(eqi_ctx *ctx, const eqi_view *y, const eqi_view *a, const eqi_view *b)
{
    return eqi_launch(ctx, "ratio", ratio_kernel, 1, 1, 0, *y, *a, *b);
}
