#include "faults.h"

#include "cuda_bf16.h"

/* Stands for the product's helper. */
template <class T> __device__ inline T *block_memory()
{
    return static_cast<T *>(hostcuda::dynamic_shared());
}

template <class... P, class... A>
static cudaError_t launch(cudaStream_t s, const char *name, dim3 grid, dim3 block, size_t shared,
                          void (*kernel)(P...), A... a)
{
    cudaLaunchConfig_t c = {};
    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = shared;
    c.stream = s;
    hostcuda::name_next_launch(name);
    return cudaLaunchKernelEx(&c, kernel, a...);
}

static __device__ float warp_sum(float v)
{
    for (int m = 16; m; m >>= 1) v += __shfl_xor_sync(0xffffffffu, v, m);
    return v;
}

/* ---- rows, by barriers and shuffles ---- */
struct norm_memory {
    float part[8];
};

static __global__ void __launch_bounds__(256)
    normalize_kernel(float *y, const float *x, const float *gain, int rows, int n, planted fault)
{
    norm_memory *s = block_memory<norm_memory>();
    int t = (int)threadIdx.x;
    for (int r = (int)blockIdx.x; r < rows; r += (int)gridDim.x) {
        const float *row = x + (size_t)r * n;
        float sum = 0;
        for (int i = t; i < n + (fault == TAIL ? 1 : 0); i += 256) sum += row[i] * row[i];
        unsigned mask = fault == MASK && t == 7 ? 0xffff0000u : 0xffffffffu;
        if (fault != LANE || t % 32 != 31) sum = warp_sum(__shfl_sync(mask, sum, t % 32));
        if (t % 32 == 0) s->part[t / 32 + (fault == SHARED_END ? 1 : 0)] = sum;
        if (fault == TWO_BARRIERS && t >= 128)
            __syncthreads();
        else if (fault != BARRIER)
            __syncthreads();
        float total = 0;
        for (int i = 0; i < 8; i++) total += s->part[i];
        float scale = rsqrtf(total / (float)n + 1e-5f);
        for (int i = t; i < n; i += 256) y[(size_t)r * n + i] = row[i] * scale * gain[i];
        if (fault != LAST_BARRIER) __syncthreads();
    }
}

cudaError_t normalize(cudaStream_t s, float *y, const float *x, const float *gain, int rows, int n,
                      planted fault)
{
    return launch(s, "normalize", 4, 256, sizeof(norm_memory), normalize_kernel, y, x, gain, rows,
                  n, fault);
}

/* ---- across blocks ---- */
static __global__ void sum_kernel(int *out, const int *x, int n, planted fault)
{
    int v = 0;
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < n; i += gridDim.x * blockDim.x)
        v += x[i];
    for (int m = 16; m; m >>= 1) v += __shfl_down_sync(0xffffffffu, v, (unsigned)m);
    if (threadIdx.x % 32) return;
    if (fault == PLAIN_SUM)
        *out += v;
    else
        atomicAdd(out, v);
    if (fault == PLAIN_READ && *out == -1) *out = 0;
}

cudaError_t sum_all(cudaStream_t s, int *out, const int *x, int n, planted fault)
{
    /* One warp a block, so that only blocks can conflict. */
    return launch(s, "sum_all", 4, 32, 0, sum_kernel, out, x, n, fault);
}

/* ---- mma fragments ---- */
static __device__ __forceinline__ float half_of(uint32_t w, int high)
{
    return __uint_as_float(high ? w & 0xffff0000u : w << 16);
}

/* d[16,8] += a[16,16] b[16,8]: registers and lanes as PTX documents mma.m16n8k16. */
static __device__ HOSTCUDA_UNCHECKED void mma(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const hostcuda::shot *all = hostcuda::exchange(0xffffffffu, mine, sizeof mine);
    int lane = hostcuda::lane();
    for (int i = 0; i < 4; i++) {
        int row = (lane >> 2) + (i >> 1) * 8, col = (lane & 3) * 2 + (i & 1);
        for (int k = 0; k < 16; k++) {
            const uint32_t *wa = (const uint32_t *)all[(row & 7) * 4 + (k & 7) / 2].v;
            const uint32_t *wb = (const uint32_t *)all[col * 4 + (k & 7) / 2].v;
            d[i] +=
                half_of(wa[(k >> 3) * 2 + (row >> 3)], k & 1) * half_of(wb[4 + (k >> 3)], k & 1);
        }
    }
}

static __global__ void product_kernel(float *c, const uint16_t *a, const uint16_t *b, int n, int k,
                                      planted fault)
{
    int lane = (int)threadIdx.x, g = lane >> 2, t = (lane & 3) * 2;
    const uint16_t *pa = a + (size_t)blockIdx.y * 16 * k, *pb = b + (size_t)blockIdx.x * 8 * k;
    float d[4] = {0, 0, 0, 0};
    int swap = fault == FRAGMENT ? 3 : 0;
    for (int i = 0; i < k; i += 16) {
        uint32_t fa[4], fb[2];
        fa[0] = *(const uint32_t *)(pa + (size_t)g * k + i + t);
        fa[1 ^ swap] = *(const uint32_t *)(pa + (size_t)(g + 8) * k + i + t);
        fa[2 ^ swap] = *(const uint32_t *)(pa + (size_t)g * k + i + t + 8);
        fa[3] = *(const uint32_t *)(pa + (size_t)(g + 8) * k + i + t + 8);
        fb[0] = *(const uint32_t *)(pb + (size_t)g * k + i + t);
        fb[1] = *(const uint32_t *)(pb + (size_t)g * k + i + t + 8);
        mma(d, fa, fb);
    }
    for (int i = 0; i < 4; i++)
        c[((size_t)blockIdx.y * 16 + g + (i >> 1) * 8) * n + blockIdx.x * 8 + t + (i & 1)] = d[i];
}

cudaError_t product(cudaStream_t s, float *c, const uint16_t *a, const uint16_t *b, int m, int n,
                    int k, planted fault)
{
    return launch(s, "product", dim3((unsigned)n / 8, (unsigned)m / 16), 32, 0, product_kernel, c,
                  a, b, n, k, fault);
}

/* ---- warps ---- */
static __global__ void reverse_kernel(int *y, const int *x, int n, planted fault)
{
    int *s = block_memory<int>(), t = (int)threadIdx.x;
    int i = (int)(blockIdx.x * blockDim.x) + t;
    s[t] = i < n ? x[i] : 0;
    if (fault == NO_FENCE)
        t = __shfl_sync(0xffffffffu, t, t % 32);
    else if (fault != SYNCWARP)
        __syncwarp();
    if (i < n) y[i] = s[t ^ 31];
}

cudaError_t reverse(cudaStream_t s, int *y, const int *x, int n, planted fault)
{
    return launch(s, "reverse", ((unsigned)n + 63) / 64, 64, 64 * sizeof(int), reverse_kernel, y, x,
                  n, fault);
}

/* Warp w works in parts of 4 << w lanes; x and y hold a number for each of 96 threads. */
static __global__ void parts_kernel(int *y, const int *x, planted fault)
{
    int *s = block_memory<int>(), t = (int)threadIdx.x, lane = t % 32, size = 4 << t / 32;
    int first = lane / size * size, base = t - lane;
    unsigned mask = ((size == 32 ? 0 : 1u << size) - 1) << first;
    s[t] = x[t];
    __syncwarp(mask);
    for (int round = 0; round <= first / size; round++) {
        int sum = 0;
        for (int i = first; i < first + size; i++)
            sum += s[base + (fault == PART_SYNC ? i ^ size : i)];
        __syncwarp(mask);
        s[t] = sum;
        __syncwarp(mask);
    }
    __syncwarp();
    y[t] = s[base + (31 - lane)];
}

cudaError_t parts(cudaStream_t s, int *y, const int *x, planted fault)
{
    return launch(s, "parts", 1, 96, 96 * sizeof(int), parts_kernel, y, x, fault);
}

static __global__ void count_kernel(int *y, const int *x, int n, planted fault)
{
    int *s = block_memory<int>(), t = (int)threadIdx.x;
    if (t < 16) s[t] = 0;
    __syncthreads();
    for (int i = t; i < n; i += (int)blockDim.x) atomicAdd(&s[x[i] & 15], 1);
    if (fault != SHARED_COUNT) __syncthreads();
    if (t < 16) y[t] = s[t];
}

cudaError_t count(cudaStream_t s, int *y, const int *x, int n, planted fault)
{
    return launch(s, "count", 1, 128, 16 * sizeof(int), count_kernel, y, x, n, fault);
}

/* Shuffles put the lanes' accesses in a row, and order none: thread 1 reads, then `reader`, then
 * `writer` reads and writes. */
static __global__ void change_kernel(int *y, int reader, int writer)
{
    int t = (int)(blockIdx.x * blockDim.x + threadIdx.x), seen = 0;
    if (t == 1) seen = *y;
    __shfl_sync(0xffffffffu, t, 0);
    if (t == reader) seen = *y;
    __shfl_sync(0xffffffffu, t, 0);
    if (t == writer) *y = *y + 1 + seen;
}

cudaError_t change(cudaStream_t s, int *y, planted fault)
{
    int writer = fault == OTHER_WARP ? 40 : fault == OTHER_BLOCK ? 70 : 1;
    int reader = fault == OTHER_LANE ? 2 : 1;
    return launch(s, "change", 2, 64, 0, change_kernel, y, reader, writer);
}

static __global__ void interpret_kernel(int *y, const step *steps, int rounds)
{
    int *s = block_memory<int>(), t = (int)threadIdx.x, seen = 0;
    if (t < 4) s[t] = t;
    __syncthreads();
    for (int r = 0; r < rounds; r++) {
        const step *now = steps + r * 64 + t;
        int what = now->what, cell = now->cell;
        if (what == step::READ) seen += s[cell];
        if (what == step::WRITE) s[cell] = t;
        if (what == step::ATOMIC) atomicAdd(&s[cell], 1);
        if (now->mask) __syncwarp(now->mask);
        if (now->barrier) __syncthreads();
    }
    y[t] = seen;
}

cudaError_t interpret(cudaStream_t s, int *y, const step *steps, int rounds)
{
    return launch(s, "interpret", 1, 64, 4 * sizeof(int), interpret_kernel, y, steps, rounds);
}

static __global__ void votes_kernel(int *y)
{
    int t = (int)threadIdx.x;
    unsigned odd = __ballot_sync(0xffffffffu, t & 1);
    int any = __any_sync(0xffffffffu, t == 5), all = __all_sync(0xffffffffu, t < 31);
    unsigned low = t < 16 ? __ballot_sync(0xffffu, t < 3) : 0;
    int count = __syncthreads_count(t % 3 == 0), none = __syncthreads_or(0);
    int64_t up = __shfl_up_sync(0xffffffffu, (int64_t)t << 40, 1);
    double down = __shfl_down_sync(0xffffffffu, (double)t, 1);
    if (t != 3) return;
    y[0] = odd == 0xaaaaaaaau;
    y[1] = any && !all;
    y[2] = low == 7;
    y[3] = count == 11 && !none;
    y[4] = up == (int64_t)2 << 40 && down == 4.0;
    y[5] = __float2int_rn(2.5f) == 2 && __float2int_rn(-1e20f) == -2147483647 - 1;
    y[6] = __bfloat16_as_ushort(__float2bfloat16_rn(1.00390625f)) == 0x3f80;
    y[7] = min(3, -4) == -4 && max(2.5f, -1.0f) == 2.5f;
}

cudaError_t votes(cudaStream_t s, int *y) { return launch(s, "votes", 1, 32, 0, votes_kernel, y); }

/* ---- plain memory ---- */
static __global__ void copy4_kernel(float *y, const float *x, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i >= n) return;
    float4 v = *(const float4 *)(x + i);
    *(float4 *)(y + i) = v;
}

cudaError_t copy4(cudaStream_t s, float *y, const float *x, int n)
{
    return launch(s, "copy4", ((unsigned)n + 255) / 256, 64, 0, copy4_kernel, y, x, n);
}

static __global__ void copy_mixed_kernel(unsigned char *y, const unsigned char *x, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i + 8 > n) return;
    *(uint32_t *)(y + i) = *(const uint32_t *)(x + i);
    *(uint16_t *)(y + i + 4) = *(const uint16_t *)(x + i + 4);
    y[i + 6] = x[i + 6];
    y[i + 7] = x[i + 7];
}

cudaError_t copy_mixed(cudaStream_t s, unsigned char *y, const unsigned char *x, int n)
{
    return launch(s, "copy_mixed", ((unsigned)n + 511) / 512, 64, 0, copy_mixed_kernel, y, x, n);
}

static __global__ void fill_kernel(float *y, float value, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) y[i] = value;
}

cudaError_t fill(cudaStream_t s, float *y, float value, int n)
{
    return launch(s, "fill", ((unsigned)n + 127) / 128, 128, 0, fill_kernel, y, value, n);
}

static __global__ void add_kernel(float *y, const float *x, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n) y[i] += x[i];
}

cudaError_t add(cudaStream_t s, float *y, const float *x, int n)
{
    return launch(s, "add", ((unsigned)n + 127) / 128, 128, 0, add_kernel, y, x, n);
}

static __global__ void peek_kernel(int *y, planted fault)
{
    int **place = block_memory<int *>();
    int mine = (int)threadIdx.x, *at = fault == NULL_POINTER ? nullptr : &mine;
    if (threadIdx.x == 0) *place = at;
    __syncthreads();
    if (fault == OTHER_STACK || fault == NULL_POINTER) at = *place;
    y[threadIdx.x] = *at;
}

cudaError_t peek(cudaStream_t s, int *y, planted fault)
{
    return launch(s, "peek", 1, 32, sizeof(int *), peek_kernel, y, fault);
}

static __global__ void busy_kernel(float *y, const float *x, int n, int rounds)
{
    for (int r = 0; r < rounds; r++)
        for (int i = (int)threadIdx.x; i < n; i += (int)blockDim.x) y[i] += x[i];
}

cudaError_t busy(cudaStream_t s, float *y, const float *x, int n, int rounds)
{
    return launch(s, "busy", 1, 256, 0, busy_kernel, y, x, n, rounds);
}

/* ---- launches ---- */
static __global__ void nothing_kernel() {}

cudaError_t configured(cudaStream_t s, dim3 grid, dim3 block, size_t shared)
{
    return launch(s, "nothing", grid, block, shared, nothing_kernel);
}

cudaError_t raise_shared(int size)
{
    return cudaFuncSetAttribute(nothing_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, size);
}

static __global__ void big_kernel(big) {}
static __global__ void bigger_kernel(big, char) {}

cudaError_t with_parameters(cudaStream_t s, bool too_many)
{
    return too_many ? launch(s, "bigger", 1, 1, 0, bigger_kernel, big(), 'x')
                    : launch(s, "big", 1, 1, 0, big_kernel, big());
}
