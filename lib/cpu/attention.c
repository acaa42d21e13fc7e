#include "cpu/attention.h"

#include "cpu/backend.h"

/* Packed keys and values of the heads in progress. */
#define PASS_BYTES ((size_t)16 << 20)

typedef struct pass {
    const eqi_simd *simd;
    const eqi_attention_call *call;
    const eqi_view *o, *lse;
    int64_t first, heads; /* kv heads, counted over sequences */
    int64_t key_blocks, query_blocks, per;
    size_t k_bytes, v_bytes, worker_bytes;
    char *keys, *workers;
} pass;

static void *head_of(const eqi_view *v, int64_t b, int64_t h)
{
    return (char *)v->data +
        (size_t)(b * v->stride[0] + h * v->stride[2]) * eqi_dtype_size(v->dtype);
}

eqi_rows eqi_attention_rows_of(const eqi_view *v, int64_t b, int64_t h)
{
    return (eqi_rows){.kind = EQI_ROWS_DENSE,
                      .dtype = v->dtype,
                      .data = head_of(v, b, h),
                      .ld = v->stride[1],
                      .rows = v->shape[1],
                      .cols = v->shape[3]};
}

eqi_attention_rows eqi_attention_to(const eqi_view *v, int64_t b, int64_t h)
{
    return (eqi_attention_rows){.data = head_of(v, b, h), .dtype = v->dtype, .ld = v->stride[1]};
}

eqi_attention_head eqi_attention_head_of(const eqi_attention_call *c, int64_t b, int64_t h)
{
    int64_t hk = h / (c->q->shape[2] / c->k->shape[2]);
    return (eqi_attention_head){.desc = c->desc,
                                .queries = c->q->shape[1],
                                .keys = c->k->shape[1],
                                .size = c->q->shape[3],
                                .q = eqi_attention_rows_of(c->q, b, h),
                                .k = eqi_attention_rows_of(c->k, b, hk),
                                .v = eqi_attention_rows_of(c->v, b, hk),
                                .segments = c->segments ? (const int32_t *)c->segments->data +
                                        b * c->segments->stride[0]
                                                        : NULL,
                                .elem = c->elem,
                                .stop = c->stop};
}

eqi_elem eqi_attention_elem(const eqi_simd *simd, eqi_dtype dtype)
{
    return dtype == EQI_BF16 && simd->bf16 ? EQI_ELEM_BF16 : EQI_ELEM_F32;
}

static char *worker_of(const pass *p, int worker)
{
    return p->workers + (size_t)worker * p->worker_bytes;
}

static eqi_attention_keys keys_of(const pass *p, int64_t head)
{
    char *k = p->keys + (size_t)(head - p->first) * (p->k_bytes + p->v_bytes);
    return (eqi_attention_keys){.k = k, .v = k + p->k_bytes};
}

static void pack_task(void *arg, size_t index, int worker)
{
    const pass *p = arg;
    int64_t head = p->first + (int64_t)index / p->key_blocks, kv = p->call->k->shape[2];
    eqi_attention_head h = eqi_attention_head_of(p->call, head / kv, head % kv * p->per);
    char *k = p->keys + (size_t)(head - p->first) * (p->k_bytes + p->v_bytes);
    p->simd->attention_keys(&h, k, k + p->k_bytes, (int64_t)index % p->key_blocks,
                            worker_of(p, worker));
}

static void query_task(void *arg, size_t index, int worker)
{
    const pass *p = arg;
    int64_t i = (int64_t)index, per_head = p->query_blocks,
            head = p->first + i / (per_head * p->per), kv = p->call->k->shape[2];
    int64_t q = head % kv * p->per + i / per_head % p->per;
    /* The last queries see most keys; first come the long tasks. */
    int64_t q0 = (per_head - 1 - i % per_head) * EQI_ATT_Q;
    eqi_attention_head h = eqi_attention_head_of(p->call, head / kv, q);
    eqi_attention_keys keys = keys_of(p, head);
    eqi_attention_out out = {.o = eqi_attention_to(p->o, head / kv, q),
                             .lse = p->lse ? (float *)p->lse->data +
                                     (head / kv * p->call->q->shape[2] + q) * h.queries
                                           : NULL};
    p->simd->attention(&h, &keys, q0, &out, worker_of(p, worker));
}

eqat_status eqi_cpu_attention(eqi_ctx *ctx, const eqi_view *o, const eqi_view *lse,
                              const eqi_view *q, const eqi_view *k, const eqi_view *v,
                              const eqi_view *segments, const eqi_attention_desc *d)
{
    if (eqi_view_count(q) == 0) return EQAT_OK;
    const eqi_simd *simd = eqi_cpu_of(ctx)->simd;
    eqi_stop stop;
    eqi_stop_init(&stop, ctx);
    eqi_attention_call call = {.q = q,
                               .k = k,
                               .v = v,
                               .segments = segments,
                               .desc = d,
                               .elem = eqi_attention_elem(simd, q->dtype),
                               .stop = &stop};
    pass p = {.simd = simd, .call = &call, .o = o, .lse = lse, .per = q->shape[2] / k->shape[2]};
    eqi_attention_head any = eqi_attention_head_of(&call, 0, 0);
    size_t size = eqi_elem_size(call.elem);
    p.key_blocks = eqi_att_blocks(any.keys);
    p.query_blocks = eqi_ceil_div(any.queries, EQI_ATT_Q);
    p.k_bytes = (size_t)(p.key_blocks * EQI_ATT_K * eqi_att_inner(any.size)) * size;
    p.v_bytes = (size_t)(p.key_blocks * EQI_ATT_K * eqi_att_outer(any.size)) * size;
    p.worker_bytes = simd->attention_scratch(&any);
    int64_t all = q->shape[0] * k->shape[2];
    int64_t step =
        eqi_min64(all, eqi_max64((int64_t)(PASS_BYTES / (p.k_bytes + p.v_bytes + 1)), 1));
    p.keys = eqi_cpu_scratch(ctx, EQI_SCRATCH_B, (size_t)step * (p.k_bytes + p.v_bytes));
    p.workers =
        eqi_cpu_scratch(ctx, EQI_SCRATCH_WORKER, p.worker_bytes * (size_t)eqi_pool_size(ctx->pool));
    if (!p.keys || !p.workers) return EQAT_OUT_OF_MEMORY;
    for (p.first = 0; p.first < all; p.first += step) {
        p.heads = eqi_min64(step, all - p.first);
        EQI_RETURN_IF(
            eqi_parallel_or_stop(ctx, &stop, (size_t)(p.heads * p.key_blocks), pack_task, &p));
        EQI_RETURN_IF(eqi_parallel_or_stop(ctx, &stop, (size_t)(p.heads * p.per * p.query_blocks),
                                           query_task, &p));
    }
    return EQAT_OK;
}
