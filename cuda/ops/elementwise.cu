/* fill, copy, axpby, mul, scale_by, ratio. Bytes moved: each element of each argument once. */
#include "../launch.cuh"
#include "../load.cuh"

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

eqat_status eqi_cuda_copy(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x)
{
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

eqat_status eqi_cuda_axpby(eqi_ctx *ctx, const eqi_view *y, double alpha, const eqi_view *a,
                           double beta, const eqi_view *b)
{
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

eqat_status eqi_cuda_mul(eqi_ctx *ctx, const eqi_view *y, const eqi_view *a, const eqi_view *b,
                         bool acc)
{
    return eqi_launch(ctx, "mul", mul_kernel, eqi_grid(eqi_cuda_count(y), EQI_BLOCK), EQI_BLOCK, 0,
                      *y, *a, *b, acc);
}

__global__ void __launch_bounds__(EQI_BLOCK)
    scale_by_kernel(eqi_view y, eqi_view x, eqi_view factor, bool acc)
{
    for (int64_t i = grid_first(); i < count(y); i += grid_step())
        add(y, elem(y, i), get(factor, 0) * get(x, elem(x, i)), acc);
}

eqat_status eqi_cuda_scale_by(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                              const eqi_view *factor, bool acc)
{
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
