/* Kernels that move 16 bytes an access: 8 elements of 16 bits or 4 of F32, as f32 values in
 * registers. An op takes them where its tensors are rows whose starts and widths allow that (the
 * host looks: eqi_as_rows, eqi_fits); all others go to its plain kernel. Nothing is divided in such
 * a kernel: threadIdx.x and blockIdx.x run along a row, threadIdx.y and blockIdx.y over rows. */
#ifndef EQI_CUDA_VECTOR_CUH
#define EQI_CUDA_VECTOR_CUH

#include <initializer_list>

#include "launch.cuh"
#include "load.cuh"

/* Elements of a pack where tensors of these types meet: 16 bytes of the narrowest. */
template <class... T> constexpr int EQI_LANES = ((sizeof(T) == 2) || ...) ? 8 : 4;

template <int N> struct pack {
    float v[N];
};

/* Rows of T on the device. */
template <class T> struct vector_rows {
    T *data;
    int64_t stride;
};

/* ---- kernels ---- */
/* The two elements of 16 bits in a word, the first one below. */
__device__ __forceinline__ float lower(unsigned word, __nv_bfloat16)
{
    return __uint_as_float(word << 16);
}
__device__ __forceinline__ float upper(unsigned word, __nv_bfloat16)
{
    return __uint_as_float(word & 0xffff0000u);
}
__device__ __forceinline__ float lower(unsigned word, __half)
{
    return __half2float(__ushort_as_half(static_cast<unsigned short>(word & 0xffffu)));
}
__device__ __forceinline__ float upper(unsigned word, __half)
{
    return __half2float(__ushort_as_half(static_cast<unsigned short>(word >> 16)));
}
__device__ __forceinline__ unsigned rounded(float x)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

/* Word i of a pack of T (F32, BF16; F16 to be read). */
template <class T, int N> __device__ __forceinline__ void set_word(pack<N> &p, int i, unsigned word)
{
    if constexpr (sizeof(T) == 4) {
        p.v[i] = __uint_as_float(word);
    } else {
        p.v[2 * i] = lower(word, T());
        p.v[2 * i + 1] = upper(word, T());
    }
}
template <class T, int N> __device__ __forceinline__ unsigned word_of(const pack<N> &p, int i)
{
    if constexpr (sizeof(T) == 4)
        return __float_as_uint(p.v[i]);
    else
        return rounded(p.v[2 * i]) | rounded(p.v[2 * i + 1]) << 16;
}

/* Words 4 i to 4 i + 3 of a pack. */
template <class T, int N> __device__ __forceinline__ void set_words(pack<N> &p, int i, uint4 q)
{
    set_word<T>(p, 4 * i, q.x);
    set_word<T>(p, 4 * i + 1, q.y);
    set_word<T>(p, 4 * i + 2, q.z);
    set_word<T>(p, 4 * i + 3, q.w);
}

/* N elements of global memory that begin at a multiple of 16 bytes. (nvcc cuts some assignments of
 * 16 bytes into four: __stwb.) */
template <int N, class T> __device__ __forceinline__ pack<N> load_pack(const T *from)
{
    pack<N> p;
    EQI_UNROLL
    for (int i = 0; i < N * static_cast<int>(sizeof(T)) / 16; i++)
        set_words<T>(p, i, reinterpret_cast<const uint4 *>(from)[i]);
    return p;
}
template <int N, class T> __device__ __forceinline__ void store_pack(T *to, const pack<N> &p)
{
    EQI_UNROLL
    for (int i = 0; i < N * static_cast<int>(sizeof(T)) / 16; i++)
        __stwb(reinterpret_cast<uint4 *>(to) + i,
               make_uint4(word_of<T>(p, 4 * i), word_of<T>(p, 4 * i + 1), word_of<T>(p, 4 * i + 2),
                          word_of<T>(p, 4 * i + 3)));
}

/* Pack i of row r. */
template <int N, class T>
__device__ __forceinline__ pack<N> load_pack(const vector_rows<T> &a, int64_t r, int i)
{
    return load_pack<N>(a.data + r * a.stride + static_cast<int64_t>(i) * N);
}
template <int N, class T>
__device__ __forceinline__ void store_pack(const vector_rows<T> &a, int64_t r, int i,
                                           const pack<N> &p)
{
    store_pack(a.data + r * a.stride + static_cast<int64_t>(i) * N, p);
}
/* The sum is one operation of f32, as that of `add`. */
template <int N, class T>
__device__ __forceinline__ void add_pack(const vector_rows<T> &a, int64_t r, int i, pack<N> p,
                                         bool acc)
{
    if (acc) {
        pack<N> old = load_pack<N>(a, r, i);
        EQI_UNROLL
        for (int k = 0; k < N; k++) p.v[k] = old.v[k] + p.v[k];
    }
    store_pack(a, r, i, p);
}

/* First one and stride of a thread's loops over rows, and over the packs of one. */
__device__ __forceinline__ int64_t row_first()
{
    return static_cast<int64_t>(blockIdx.y) * blockDim.y + threadIdx.y;
}
__device__ __forceinline__ int64_t row_step()
{
    return static_cast<int64_t>(gridDim.y) * blockDim.y;
}
__device__ __forceinline__ int pack_first()
{
    return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}
__device__ __forceinline__ int pack_step() { return static_cast<int>(gridDim.x * blockDim.x); }

/* ---- the host ---- */
constexpr int64_t EQI_MOST_PACKS = 1 << 30; /* of a row: one and a step are an int, too */

/* Views of one shape as the fewest rows that all of them have in common, cut into packs, and the
 * blocks for them. */
struct eqi_packs {
    int64_t rows, stride[5];
    int packs; /* of a row */
    dim3 grid, block;
};

/* Elements of a pack where these views meet; 0: one of them is neither F32 nor BF16. */
inline int eqi_lanes(std::initializer_list<const eqi_view *> views)
{
    int lanes = 4;
    for (const eqi_view *v : views) {
        if (v && v->dtype == EQI_BF16)
            lanes = 8;
        else if (v && v->dtype != EQI_F32)
            return 0;
    }
    return lanes;
}

/* Rows and their width; false where those of one view are not contiguous, or not at one stride. */
inline bool eqi_as_rows(eqi_packs *out, int64_t *width,
                        std::initializer_list<const eqi_view *> views)
{
    const eqi_view *first = *views.begin();
    int d = first->ndim - 1;
    /* Does dimension d go on where `size` elements, or rows, end? */
    auto goes_on = [&](int64_t size, bool of_rows) {
        bool all = true;
        int i = 0;
        for (const eqi_view *v : views) {
            all &= !v || v->stride[d] == size * (of_rows ? out->stride[i] : 1);
            i++;
        }
        return all || first->shape[d] == 1;
    };
    *width = out->rows = 1;
    for (; d >= 0 && goes_on(*width, false); d--) *width *= first->shape[d];
    int i = 0;
    for (const eqi_view *v : views) out->stride[i++] = v && d >= 0 ? v->stride[d] : *width;
    for (; d >= 0 && goes_on(out->rows, true); d--) out->rows *= first->shape[d];
    return d < 0;
}

/* Threads and blocks: as many threads along a row as it has packs, and rows above each other. More
 * blocks than fill any device are of no use; their threads loop. */
inline void eqi_tile(eqi_packs *p)
{
    constexpr unsigned MOST = 8192;
    int x = 1, y = 1;
    while (x < EQI_BLOCK && x < p->packs) x *= 2;
    while (y < EQI_BLOCK / x && y < p->rows) y *= 2;
    unsigned across = eqi_grid(p->packs, x), down = eqi_grid(p->rows, y);
    if (across > MOST) across = MOST;
    if (across && down > MOST / across) down = MOST / across;
    p->grid = dim3(across, down);
    p->block = dim3(static_cast<unsigned>(x), static_cast<unsigned>(y));
}

/* Cuts rows of this width into packs; false: width, strides or addresses do not allow it. */
inline bool eqi_cut(eqi_packs *out, int64_t width, int lanes,
                    std::initializer_list<const eqi_view *> views)
{
    if (!lanes || width % lanes || width / lanes > EQI_MOST_PACKS) return false;
    int i = 0;
    for (const eqi_view *v : views) {
        if (v && reinterpret_cast<uintptr_t>(v->data) % 16) return false;
        if (out->stride[i++] % lanes) return false;
    }
    out->packs = static_cast<int>(width / lanes);
    eqi_tile(out);
    return true;
}

/* Views of one shape (the first is there, others may be NULL) in packs of `lanes` elements; false:
 * they do not fit. */
inline bool eqi_as_packs(eqi_packs *out, int lanes, std::initializer_list<const eqi_view *> views)
{
    int64_t width;
    return eqi_as_rows(out, &width, views) && eqi_cut(out, width, lanes, views);
}
inline bool eqi_as_packs(eqi_packs *out, std::initializer_list<const eqi_view *> views)
{
    return eqi_as_packs(out, eqi_lanes(views), views);
}

/* The same of views with rows, each of which stays one; `rows` counts those of the first. */
inline bool eqi_rows_as_packs(eqi_packs *out, int lanes,
                              std::initializer_list<const eqi_view *> views)
{
    const eqi_view *first = *views.begin();
    int i = 0;
    for (const eqi_view *v : views) out->stride[i++] = v ? eqi_cuda_stride(v) : 0;
    out->rows = eqi_cuda_rows(first);
    return eqi_cut(out, eqi_cuda_width(first), lanes, views);
}

template <class T> inline vector_rows<T> eqi_vector(const eqi_packs &p, const eqi_view *v, int i)
{
    return {v ? static_cast<T *>(v->data) : nullptr, p.stride[i]};
}

/* Calls f with a value of the type that a dtype stands for, F32 or BF16. */
template <class F> inline eqat_status eqi_with(eqi_dtype dtype, F f)
{
    return dtype == EQI_BF16 ? f(__nv_bfloat16()) : f(float());
}

#endif
