/* Instructions of warps and of copies that only PTX has, from compute capability 8.0 on (older code
 * stops there; hosts ask eqi_mma_runs first), each with a model for compilers that are not nvcc.
 * bf16 pairs are one word, the first element in its low half. g is lane / 4, t is lane % 4.
 */
#ifndef EQI_CUDA_MMA_CUH
#define EQI_CUDA_MMA_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <initializer_list>
#include <stdint.h>

/* Can a device of this compute capability run these? A library built for older ones alone has
 * nothing but their code for any device. */
inline bool eqi_mma_runs(int capability)
{
    int newest = 0;
#ifdef __CUDACC__
    for (int arch : {__CUDA_ARCH_LIST__}) newest = arch > newest ? arch : newest;
#else
    newest = 800;
#endif
    return newest >= 800 && capability >= 80;
}

#if defined(__CUDACC__) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define EQI_PTX(...) asm volatile(__VA_ARGS__)
#else
#define EQI_PTX(...) __trap()
#endif

/* Copies that a thread has asked for; the stand-in keeps them until it waits. */
struct async_copies {
#ifndef __CUDACC__
    static constexpr int MOST = 64;
    struct {
        uint4 *to, value;
        int group;
    } copy[MOST];
    int count = 0, group = 0;
#endif
};

#ifdef __CUDACC__

/* d[16, 8] += a[16, 16] b[16, 8]. A lane has
 *   a: (g, 2t) (g + 8, 2t) (g, 2t + 8) (g + 8, 2t + 8), with the next column of each
 *   b: (2t, g) (2t + 8, g), with the next row of each
 *   d: (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1) */
static __device__ __forceinline__ void mma_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                               uint32_t b1)
{
    EQI_PTX("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* An address in shared memory. It is found anew wherever this is called: added constants become
 * part of instructions, where the compiler would rather keep each sum in a register. */
typedef uint32_t shared_place;
static __device__ __forceinline__ shared_place shared_at(void *p)
{
    shared_place at;
    asm volatile("mov.u32 %0, %1;"
                 : "=r"(at)
                 : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(p))));
    return at;
}

/* Four matrices of 8 rows of 8 elements in shared memory; `row` of lane l is row l % 8 of matrix
 * l / 8, aligned to 16 bytes. out[i] is (g, 2t) of matrix i and the next column. */
static __device__ __forceinline__ void load_matrices(uint32_t (&out)[4], shared_place row)
{
    EQI_PTX("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
            : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
            : "r"(row)
            : "memory");
}

/* The same of transposed matrices: (2t, g) and the next row. */
static __device__ __forceinline__ void load_turned(uint32_t (&out)[4], shared_place row)
{
    EQI_PTX("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
            : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
            : "r"(row)
            : "memory");
}

/* Both rounded to bf16. */
static __device__ __forceinline__ uint32_t bf16_pair(float first, float second)
{
    uint32_t pair = 0;
    EQI_PTX("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}

/* Bytes of high:low, one for each of the four lowest nibbles of `picks`, which are below 8. */
static __device__ __forceinline__ uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t picks)
{
    uint32_t picked;
    asm("prmt.b32 %0, %1, %2, %3;" : "=r"(picked) : "r"(low), "r"(high), "r"(picks));
    return picked;
}

/* Begins to copy 16 aligned bytes to shared memory; zeros when not `present`, and `from` is then
 * not read. */
static __device__ __forceinline__ void copy_async(async_copies &, shared_place to, const void *from,
                                                  bool present)
{
    EQI_PTX("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to),
            "l"(__cvta_generic_to_global(from)), "r"(present ? 16 : 0)
            : "memory");
}

/* What was asked for since the last one is a group. */
static __device__ __forceinline__ void end_group(async_copies &)
{
    EQI_PTX("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most the last LEFT groups of this thread are not there; a barrier of the block
 * shows them to the other threads. */
template <int LEFT> static __device__ __forceinline__ void wait_groups(async_copies &)
{
    EQI_PTX("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

#else

static __forceinline__ float bf16_of(uint32_t pair, int second)
{
    return __uint_as_float(second ? pair & 0xffff0000u : pair << 16);
}

static HOSTCUDA_UNCHECKED void mma_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                       uint32_t b1)
{
    uint32_t own[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const hostcuda::shot *all = hostcuda::exchange(0xffffffffu, own, sizeof own);
    int g = hostcuda::lane() / 4, t = hostcuda::lane() % 4;
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 16; k++) {
            const uint32_t *of_a = reinterpret_cast<const uint32_t *>(all[g * 4 + k % 8 / 2].v);
            const uint32_t *of_b =
                reinterpret_cast<const uint32_t *>(all[(2 * t + i % 2) * 4 + k % 8 / 2].v);
            d[i] += bf16_of(of_a[k / 8 * 2 + i / 2], k % 2) * bf16_of(of_b[4 + k / 8], k % 2);
        }
}

static HOSTCUDA_UNCHECKED void deal_rows(uint32_t (&out)[4], const uint4 &row, bool turned)
{
    const hostcuda::shot *all = hostcuda::exchange(0xffffffffu, &row, sizeof row);
    int g = hostcuda::lane() / 4, t = hostcuda::lane() % 4;
    for (int i = 0; i < 4; i++) {
        const hostcuda::shot *rows = all + 8 * i;
        uint16_t pair[2];
        for (int n = 0; n < 2; n++)
            pair[n] = turned ? reinterpret_cast<const uint16_t *>(rows[2 * t + n].v)[g]
                             : reinterpret_cast<const uint16_t *>(rows[g].v)[2 * t + n];
        out[i] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
    }
}

typedef char *shared_place;
static __forceinline__ shared_place shared_at(void *p) { return static_cast<char *>(p); }

static __forceinline__ void load_matrices(uint32_t (&out)[4], shared_place row)
{
    uint4 own = *reinterpret_cast<const uint4 *>(row); /* a load of its own, which is checked */
    deal_rows(out, own, false);
}

static __forceinline__ void load_turned(uint32_t (&out)[4], shared_place row)
{
    uint4 own = *reinterpret_cast<const uint4 *>(row);
    deal_rows(out, own, true);
}

static __forceinline__ uint32_t bf16_pair(float first, float second)
{
    return __bfloat16_as_ushort(__float2bfloat16_rn(first)) |
        static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(second))) << 16;
}

static __forceinline__ uint32_t pick_bytes(uint32_t low, uint32_t high, uint32_t picks)
{
    uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
    uint32_t picked = 0;
    for (int i = 0; i < 4; i++)
        picked |= static_cast<uint32_t>(bytes >> (picks >> 4 * i & 7) * 8 & 255) << 8 * i;
    return picked;
}

/* Until it is waited for, the destination holds NaN. */
static __forceinline__ void copy_async(async_copies &c, shared_place to, const void *from,
                                       bool present)
{
    if (c.count == async_copies::MOST) __builtin_trap();
    auto &copy = c.copy[c.count++];
    copy.to = reinterpret_cast<uint4 *>(to);
    copy.value = present ? *static_cast<const uint4 *>(from) : make_uint4(0, 0, 0, 0);
    copy.group = c.group;
    *copy.to = make_uint4(~0u, ~0u, ~0u, ~0u);
}

static __forceinline__ void end_group(async_copies &c) { c.group++; }

template <int LEFT> static __forceinline__ void wait_groups(async_copies &c)
{
    int left = 0;
    for (int i = 0; i < c.count; i++)
        if (c.copy[i].group < c.group - LEFT)
            *c.copy[i].to = c.copy[i].value;
        else
            c.copy[left++] = c.copy[i];
    c.count = left;
}

#endif
#endif
