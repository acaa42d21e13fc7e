#include "cpu/attention.h"
#include "cpu/backend.h"

/* Where several query heads share a key head, each leaves its dk and dv in f32, and they are added
 * up in order. */
#define PASS_BYTES ((size_t)32 << 20)

typedef struct pass {
    const eqi_simd *simd;
    const eqi_attention_call *call;
    const eqi_view *dq, *dk, *dv, *d_o, *o, *lse;
    int64_t first, per; /* kv heads, counted over sequences; query heads of each */
    int64_t row;        /* values of one head's dk */
    size_t worker_bytes;
    float *parts; /* [kv heads of the pass][per][dk, dv][row] or NULL */
    char *workers;
} pass;

#define SUM_ROWS 64

static void head_task(void *arg, size_t index, int worker)
{
    const pass *p = arg;
    int64_t i = (int64_t)index, head = p->first + i / p->per, kv = p->call->k->shape[2],
            b = head / kv;
    int64_t q = head % kv * p->per + i % p->per;
    eqi_attention_head h = eqi_attention_head_of(p->call, b, q);
    eqi_attention_grad g = {.o = eqi_attention_rows_of(p->o, b, q),
                            .d_o = eqi_attention_rows_of(p->d_o, b, q),
                            .lse = (const float *)p->lse->data +
                                (b * p->call->q->shape[2] + q) * h.queries,
                            .dq = eqi_attention_to(p->dq, b, q)};
    if (p->parts) {
        g.dk =
            (eqi_attention_rows){.data = p->parts + i * 2 * p->row, .dtype = EQI_F32, .ld = h.size};
        g.dv = (eqi_attention_rows){
            .data = p->parts + (i * 2 + 1) * p->row, .dtype = EQI_F32, .ld = h.size};
    } else {
        g.dk = eqi_attention_to(p->dk, b, q);
        g.dv = eqi_attention_to(p->dv, b, q);
    }
    p->simd->attention_bwd(&h, &g, p->workers + (size_t)worker * p->worker_bytes);
}

static void sum_task(void *arg, size_t index, int worker)
{
    (void)worker;
    const pass *p = arg;
    int64_t keys = p->call->k->shape[1], size = p->call->k->shape[3],
            blocks = eqi_ceil_div(keys, SUM_ROWS);
    int64_t i = (int64_t)index / blocks, t0 = (int64_t)index % blocks * SUM_ROWS,
            head = p->first + i, kv = p->call->k->shape[2];
    for (int which = 0; which < 2; which++) {
        eqi_attention_rows to = eqi_attention_to(which ? p->dv : p->dk, head / kv, head % kv);
        float *sum = p->parts + (i * p->per * 2 + which) * p->row;
        for (int64_t t = t0; t < eqi_min64(t0 + SUM_ROWS, keys); t++) {
            for (int64_t other = 1; other < p->per; other++)
                p->simd->finish(sum + t * size, EQI_F32, sum + other * 2 * p->row + t * size, NULL,
                                size, true);
            char *row = (char *)to.data + (size_t)(t * to.ld) * eqi_dtype_size(to.dtype);
            p->simd->finish(row, to.dtype, sum + t * size, NULL, size, false);
        }
    }
}

eqat_status eqi_cpu_attention_bwd(eqi_ctx *ctx, const eqi_view *dq, const eqi_view *dk,
                                  const eqi_view *dv, const eqi_view *d_o, const eqi_view *o,
                                  const eqi_view *lse, const eqi_view *q, const eqi_view *k,
                                  const eqi_view *v, const eqi_view *segments,
                                  const eqi_attention_desc *d)
{
    if (eqi_view_count(k) == 0) return EQAT_OK;
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
    pass p = {.simd = simd,
              .call = &call,
              .dq = dq,
              .dk = dk,
              .dv = dv,
              .d_o = d_o,
              .o = o,
              .lse = lse,
              .per = q->shape[2] / k->shape[2],
              .row = k->shape[1] * k->shape[3]};
    eqi_attention_head any = eqi_attention_head_of(&call, 0, 0);
    p.worker_bytes = simd->attention_bwd_scratch(&any);
    p.workers =
        eqi_cpu_scratch(ctx, EQI_SCRATCH_WORKER, p.worker_bytes * (size_t)eqi_pool_size(ctx->pool));
    if (!p.workers) return EQAT_OUT_OF_MEMORY;
    int64_t all = q->shape[0] * k->shape[2], step = all;
    if (p.per > 1) {
        size_t bytes = (size_t)(p.per * 2 * p.row) * sizeof(float);
        step = eqi_min64(all, eqi_max64((int64_t)(PASS_BYTES / bytes), 1));
        p.parts = eqi_cpu_scratch(ctx, EQI_SCRATCH_OP, (size_t)step * bytes);
        if (!p.parts) return EQAT_OUT_OF_MEMORY;
    }
    for (p.first = 0; p.first < all; p.first += step) {
        int64_t heads = eqi_min64(step, all - p.first);
        EQI_RETURN_IF(eqi_parallel_or_stop(ctx, &stop, (size_t)(heads * p.per), head_task, &p));
        if (p.parts)
            eqi_parallel(ctx, (size_t)(heads * eqi_ceil_div(k->shape[1], SUM_ROWS)), sum_task, &p);
    }
    return EQAT_OK;
}
