/* route, route_bwd. Bytes moved: the logits (k + 2 times, all but the first from the cache), index
 * and weights once; backward logits and index from the cache, dlogits once. A block is a warp and
 * has one row. */
#include "../launch.cuh"
#include "../load.cuh"
#include "../reduce.cuh"

/* An expert and its logit; they go by the larger logit, and of equal ones by the smaller number. */
struct expert {
    float logit;
    int number;
};

static __device__ __forceinline__ bool ahead(const expert &a, const expert &b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.number < b.number);
}

/* Expert e of row r; a NaN goes among the smallest. */
static __device__ __forceinline__ expert expert_of(const eqi_view &logits, int64_t r, int64_t e)
{
    float x = get(logits, at2(logits, r, e));
    return {x != x ? -INFINITY : x, static_cast<int>(e)};
}

/* Who comes next after `last` among all of row r; there is one. */
static __device__ __forceinline__ expert next_of(const eqi_view &logits, int64_t r, expert last)
{
    expert best = {-INFINITY, 0x7fffffff};
    for (int64_t e = threadIdx.x; e < width(logits); e += EQI_WARP) {
        expert x = expert_of(logits, r, e);
        if (ahead(last, x) && ahead(x, best)) best = x;
    }
    for (int m = EQI_WARP / 2; m; m >>= 1) {
        expert other;
        other.logit = __shfl_xor_sync(EQI_FULL, best.logit, m);
        other.number = __shfl_xor_sync(EQI_FULL, best.number, m);
        if (ahead(other, best)) best = other;
    }
    return best;
}

/* Sum of exp(logit - top) over all experts of row r; NaN when a logit is. */
static __device__ __forceinline__ float sum_all(const eqi_view &logits, int64_t r, float top)
{
    float sum = 0.0f;
    for (int64_t e = threadIdx.x; e < width(logits); e += EQI_WARP)
        sum += expf(get(logits, at2(logits, r, e)) - top);
    return warp_sum(sum);
}

/* weights, index [R, k]; logits [R, E]. The thread that wrote a slot reads it again. */
__global__ void __launch_bounds__(EQI_WARP)
    route_kernel(eqi_view weights, eqi_view index, eqi_view logits, bool normalised)
{
    int64_t k = width(index);
    for (int64_t r = blockIdx.x; r < rows(logits); r += gridDim.x) {
        expert last = {INFINITY, -1};
        float top = 0.0f, chosen = 0.0f;
        for (int64_t slot = 0; slot < k; slot++) {
            last = next_of(logits, r, last);
            if (slot == 0) top = last.logit;
            if (slot % EQI_WARP != threadIdx.x) continue;
            float share = expf(last.logit - top);
            chosen += share;
            static_cast<int *>(index.data)[at2(index, r, slot)] = last.number;
            put(weights, at2(weights, r, slot), share);
        }
        chosen = warp_sum(chosen);
        float all = sum_all(logits, r, top), sum = normalised && all == all ? chosen : all;
        for (int64_t slot = threadIdx.x; slot < k; slot += EQI_WARP) {
            int64_t to = at2(weights, r, slot);
            put(weights, to, get(weights, to) / sum);
        }
    }
}

eqat_status eqi_cuda_route(eqi_ctx *ctx, const eqi_view *weights, const eqi_view *index,
                           const eqi_view *logits, bool normalised)
{
    return eqi_launch(ctx, "route", route_kernel, eqi_grid(eqi_cuda_rows(logits), 1), EQI_WARP, 0,
                      *weights, *index, *logits, normalised);
}

static __device__ __forceinline__ float share_of(const eqi_view &logits, int64_t r, int64_t e,
                                                 float top)
{
    return expf(get(logits, at2(logits, r, e)) - top);
}

/* The slot of expert e in row r; k when it has none. */
static __device__ __forceinline__ int64_t slot_of(const eqi_view &index, int64_t r, int64_t e)
{
    int64_t slot = 0;
    while (slot < width(index) && get_int(index, at2(index, r, slot)) != e) slot++;
    return slot;
}

/* dlogits, logits [R, E]; dweights, index [R, k]. With p the softmax: dlogit_e = p_e (dweight_e -
 * sum of p dweight), where dweight is 0 for those without a slot. */
__global__ void __launch_bounds__(EQI_WARP)
    route_bwd_kernel(eqi_view dlogits, eqi_view dweights, eqi_view logits, eqi_view index,
                     bool normalised, bool acc)
{
    int64_t k = width(index);
    for (int64_t r = blockIdx.x; r < rows(logits); r += gridDim.x) {
        float top = get(logits, at2(logits, r, get_int(index, at2(index, r, 0))));
        float chosen = 0.0f, mean = 0.0f;
        for (int64_t slot = threadIdx.x; slot < k; slot += EQI_WARP) {
            float share = share_of(logits, r, get_int(index, at2(index, r, slot)), top);
            chosen += share;
            mean += share * get(dweights, at2(dweights, r, slot));
        }
        chosen = warp_sum(chosen);
        float sum = normalised ? chosen : sum_all(logits, r, top);
        mean = warp_sum(mean) / sum;
        for (int64_t e = threadIdx.x; e < width(logits); e += EQI_WARP) {
            int64_t slot = slot_of(index, r, e);
            float p = slot == k && normalised ? 0.0f : share_of(logits, r, e, top) / sum;
            float d = slot == k ? 0.0f : get(dweights, at2(dweights, r, slot));
            add(dlogits, at2(dlogits, r, e), p * (d - mean), acc);
        }
    }
}

eqat_status eqi_cuda_route_bwd(eqi_ctx *ctx, const eqi_view *dlogits, const eqi_view *dweights,
                               const eqi_view *logits, const eqi_view *index, bool normalised,
                               bool acc)
{
    return eqi_launch(ctx, "route_bwd", route_bwd_kernel, eqi_grid(eqi_cuda_rows(logits), 1),
                      EQI_WARP, 0, *dlogits, *dweights, *logits, *index, normalised, acc);
}
