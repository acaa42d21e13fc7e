/* gather_rows, scatter_rows, dot_rows. Bytes moved: y once and the named rows of x once, where they
 * are written twice.
 *
 * Sums one after the other without atomics: entries of the list that name the same row form a chain
 * in their order, and whoever has the first entry of a chain goes along it. Finding the chains
 * reads the list once for each entry. */
#include "../launch.cuh"
#include "../load.cuh"
#include "../reduce.cuh"

/* An entry of the list: the next one of its chain, the length of the list after the last. `first`
 * is 0 in all but the first, and in entries out of range. */
struct chain_link {
    int64_t next, first;
};

/* What the entries of a list may name: rows, and slots of a row. */
struct places {
    int64_t rows, slots;
    int where; /* eqi_trouble_place of the rows */
};

static __device__ __forceinline__ int64_t slot_of(const eqi_view &slot, int64_t i)
{
    return slot.data ? get_int(slot, i) : 0;
}

/* The row that entry i names; -1 when it or its slot is out of range. */
static __device__ __forceinline__ int64_t row_of(const places &all, const eqi_view &row,
                                                 const eqi_view &slot, int64_t i)
{
    int64_t r = get_int(row, i), s = slot_of(slot, i);
    if (r < 0 || r >= all.rows || s < 0 || s >= all.slots) return -1;
    return r;
}

static __device__ __forceinline__ bool named(eqi_trouble *trouble, const places &all,
                                             const eqi_view &row, const eqi_view &slot, int64_t i)
{
    return in_range(trouble, all.where, get_int(row, i), all.rows) &&
        in_range(trouble, EQI_TROUBLE_SLOT, slot_of(slot, i), all.slots);
}

static __device__ __forceinline__ float weight_of(const eqi_view &weights, const eqi_view &row,
                                                  const eqi_view &slot, int64_t i)
{
    return weights.data ? get(weights, at2(weights, get_int(row, i), get_int(slot, i))) : 1.0f;
}

/* links [n]; row, slot [n]. A block is a warp and has one entry. */
__global__ void __launch_bounds__(EQI_WARP)
    link_kernel(chain_link *links, places all, eqi_view row, eqi_view slot, eqi_trouble *trouble)
{
    int64_t n = width(row);
    for (int64_t i = blockIdx.x; i < n; i += gridDim.x) {
        int64_t r = row_of(all, row, slot, i), next = n;
        bool before = false;
        if (r >= 0) {
            for (int64_t k = threadIdx.x; k < i && !before; k += EQI_WARP)
                before = row_of(all, row, slot, k) == r;
            for (int64_t k = i + 1 + threadIdx.x; k < n && next == n; k += EQI_WARP)
                if (row_of(all, row, slot, k) == r) next = k;
        }
        before = __any_sync(EQI_FULL, before);
        next = warp_min(next);
        if (threadIdx.x == 0) {
            links[i].next = next;
            links[i].first = named(trouble, all, row, slot, i) && !before;
        }
    }
}

static eqat_status link_up(eqi_ctx *ctx, const char *name, const places &all, const eqi_view *row,
                           const eqi_view *slot, chain_link **out)
{
    int64_t n = eqi_cuda_width(row);
    void *links = nullptr;
    EQI_CUDA_TRY(
        eqi_cuda_scratch(ctx, EQI_CUDA_OP, static_cast<size_t>(n) * sizeof(chain_link), &links));
    *out = static_cast<chain_link *>(links);
    return eqi_launch(ctx, name, link_kernel, eqi_grid(n, 1), EQI_WARP, 0, *out, all, *row,
                      eqi_or_none(slot), eqi_cuda_of(ctx)->trouble);
}

/* y [n, H]; x [R, H]; weights [R, k]. A block has a row of y, which becomes 0 where its entry is
 * out of range. */
__global__ void __launch_bounds__(EQI_BLOCK)
    gather_kernel(eqi_view y, eqi_view x, eqi_view row, eqi_view slot, eqi_view weights, places all,
                  eqi_trouble *trouble)
{
    for (int64_t i = blockIdx.x; i < rows(y); i += gridDim.x) {
        bool there = named(trouble, all, row, slot, i);
        int64_t r = get_int(row, i);
        float w = there ? weight_of(weights, row, slot, i) : 0.0f;
        for (int64_t j = threadIdx.x; j < width(y); j += blockDim.x)
            put(y, at2(y, i, j), there ? w * get(x, at2(x, r, j)) : 0.0f);
    }
}

eqat_status eqi_cuda_gather_rows(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                 const eqi_view *row, const eqi_view *slot, const eqi_view *weights)
{
    places all = {eqi_cuda_rows(x), weights ? eqi_cuda_width(weights) : 1, EQI_TROUBLE_ROW};
    return eqi_launch(ctx, "gather_rows", gather_kernel, eqi_grid(eqi_cuda_rows(y), 1),
                      eqi_row_block(eqi_cuda_width(y)), 0, *y, *x, *row, eqi_or_none(slot),
                      eqi_or_none(weights), all, eqi_cuda_of(ctx)->trouble);
}

/* x [R, H] += w y [n, H] along chains. A block has the first entry of a chain and some columns. */
__global__ void __launch_bounds__(EQI_BLOCK)
    add_rows_kernel(eqi_view x, eqi_view y, eqi_view row, eqi_view slot, eqi_view weights,
                    const chain_link *links)
{
    int64_t n = rows(y), step = static_cast<int64_t>(gridDim.y) * blockDim.x;
    for (int64_t i = blockIdx.x; i < n; i += gridDim.x) {
        if (!links[i].first) continue;
        int64_t r = get_int(row, i), j = static_cast<int64_t>(blockIdx.y) * blockDim.x;
        for (j += threadIdx.x; j < width(x); j += step) {
            float sum = get(x, at2(x, r, j));
            for (int64_t k = i; k < n; k = links[k].next)
                sum = as(x.dtype, sum + weight_of(weights, row, slot, k) * get(y, at2(y, k, j)));
            put(x, at2(x, r, j), sum);
        }
    }
}

eqat_status eqi_cuda_add_rows(eqi_ctx *ctx, const char *name, int where, const eqi_view *x,
                              const eqi_view *y, const eqi_view *row, const eqi_view *slot,
                              const eqi_view *weights)
{
    places all = {eqi_cuda_rows(x), weights ? eqi_cuda_width(weights) : 1, where};
    int64_t n = eqi_cuda_rows(y), columns = eqi_cuda_width(x);
    unsigned block = eqi_row_block(columns);
    chain_link *links = nullptr;
    EQI_CUDA_TRY(link_up(ctx, name, all, row, slot, &links));
    return eqi_launch(ctx, name, add_rows_kernel, dim3(eqi_grid(n, 1), eqi_grid(columns, block)),
                      block, 0, *x, *y, *row, eqi_or_none(slot), eqi_or_none(weights),
                      static_cast<const chain_link *>(links));
}

eqat_status eqi_cuda_scatter_rows(eqi_ctx *ctx, const eqi_view *x, const eqi_view *y,
                                  const eqi_view *row, const eqi_view *slot,
                                  const eqi_view *weights)
{
    return eqi_cuda_add_rows(ctx, "scatter_rows", EQI_TROUBLE_ROW, x, y, row, slot, weights);
}

struct dot_memory {
    float part[EQI_BLOCK / EQI_WARP];
};

/* dweights [R, k] += <x [R, H], y [n, H]> along chains. A block has the first entry of a chain.
 * With registers for more than four blocks, some generations spill. */
__global__ void __launch_bounds__(EQI_BLOCK, 4)
    dot_kernel(eqi_view dweights, eqi_view x, eqi_view y, eqi_view row, eqi_view slot,
               const chain_link *links)
{
    dot_memory *memory = block_memory<dot_memory>();
    int64_t n = rows(y);
    for (int64_t i = blockIdx.x; i < n; i += gridDim.x) {
        if (!links[i].first) continue; /* the same for the whole block */
        int64_t r = get_int(row, i);
        for (int64_t k = i; k < n; k = links[k].next) {
            float dot = 0.0f;
            for (int64_t j = threadIdx.x; j < width(y); j += blockDim.x)
                dot += get(x, at2(x, r, j)) * get(y, at2(y, k, j));
            dot = block_sum(dot, memory->part);
            if (threadIdx.x == 0) add(dweights, at2(dweights, r, get_int(slot, k)), dot, true);
        }
    }
}

eqat_status eqi_cuda_dot_rows(eqi_ctx *ctx, const eqi_view *dweights, const eqi_view *x,
                              const eqi_view *y, const eqi_view *row, const eqi_view *slot)
{
    places all = {eqi_cuda_rows(x), eqi_cuda_width(dweights), EQI_TROUBLE_ROW};
    chain_link *links = nullptr;
    EQI_CUDA_TRY(link_up(ctx, "dot_rows", all, row, slot, &links));
    return eqi_launch(ctx, "dot_rows", dot_kernel, eqi_grid(eqi_cuda_rows(y), 1),
                      eqi_row_block(eqi_cuda_width(y)), sizeof(dot_memory), *dweights, *x, *y, *row,
                      *slot, static_cast<const chain_link *>(links));
}
