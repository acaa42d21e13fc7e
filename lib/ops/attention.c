#include "ops/op.h"

_Static_assert(sizeof(eqi_attention_desc) <= EQI_NODE_ATTR, "a descriptor fits a node");

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_ctx *ctx = tape->ctx;
    const eqi_tensor *dy = node->out->grad;
    eqi_tensor *const *in = node->in;
    eqi_slot d[3] = {0};
    eqat_status st = EQAT_OK;
    for (int i = 0; i < 3; i++) EQI_GOTO(done, eqi_slot_open_always(&d[i], in[i], dy->v.dtype));
    st = ctx->backend->attention_bwd(ctx, &d[0].g->v, &d[1].g->v, &d[2].g->v, &dy->v, &node->out->v,
                                     &node->saved[0]->v, &in[0]->v, &in[1]->v, &in[2]->v,
                                     eqi_opt(in[3]), (const eqi_attention_desc *)node->attr);
done:
    for (int i = 0; i < 3; i++) st = eqi_slot_close(&d[i], st);
    return st;
}

const eqi_op eqi_attention_op = {.name = "attention", .backward = backward};

static eqat_status check(const eqi_tensor *q, const eqi_tensor *k, const eqi_tensor *v,
                         const eqi_tensor *segments, const eqi_attention_desc *d)
{
    eqi_ctx *ctx = eqi_tensor_ctx(q);
    EQI_RETURN_IF(eqi_op_check_x("attention", "q", q));
    EQI_RETURN_IF(eqi_op_check_x("attention", "k", k));
    EQI_RETURN_IF(eqi_op_check_ndim("attention", "q", q, 4));
    EQI_RETURN_IF(eqi_op_check_ndim("attention", "k", k, 4));
    EQI_RETURN_IF(eqi_op_check_dtype("attention", "k", k, q->v.dtype));
    EQI_RETURN_IF(eqi_op_check_same("attention", "k", k, "v", v));
    const int64_t *qs = q->v.shape, *ks = k->v.shape;
    if (qs[0] != ks[0] || qs[3] != ks[3] || qs[2] % ks[2] != 0)
        return eqi_op_misfit("attention", "q", q, "k", k);
    if (segments &&
        (segments->v.ndim != 2 || segments->v.shape[0] != ks[0] || segments->v.shape[1] != ks[1]))
        return eqi_op_misfit("attention", "k", k, "segments", segments);
    if (d->window < 0 || d->q_offset < 0)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "attention: found window %lld and query offset %lld, expected at least 0",
                        (long long)d->window, (long long)d->q_offset);
    /* Otherwise a query could be left with no key at all. */
    if ((d->causal || d->window || segments) &&
        (d->q_offset > ks[1] || qs[1] > ks[1] - d->q_offset))
        return eqi_fail(
            ctx, EQAT_INVALID_ARGUMENT,
            "attention: found %lld queries from position %lld on, expected at most %lld positions",
            (long long)qs[1], (long long)d->q_offset, (long long)ks[1]);
    return segments ? eqi_op_check_dtype("attention", "segments", segments, EQI_I32) : EQAT_OK;
}

eqat_status eqi_op_attention(eqi_tape *tape, eqi_tensor *q, eqi_tensor *k, eqi_tensor *v,
                             eqi_tensor *segments, const eqi_attention_desc *d, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(check(q, k, v, segments, d));
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *given[4] = {q, k, v, segments}, *in[4] = {NULL}, *lse = NULL;
    int64_t lse_shape[3] = {q->v.shape[0], q->v.shape[2], q->v.shape[1]};
    eqat_status st = EQAT_OK;
    for (int i = 0; i < 4; i++) {
        if (!given[i]) continue;
        if (i < 3 && given[i]->v.stride[3] == 1)
            in[i] = eqi_tensor_ref(given[i]);
        else
            EQI_GOTO(done, eqi_op_contiguous(tape, given[i], &in[i]));
    }
    EQI_GOTO(done, eqi_tensor_create(ctx, &lse, eqi_param_dtype(q->v.dtype), 3, lse_shape));
    EQI_GOTO(done, eqi_tensor_create(ctx, out, q->v.dtype, 4, q->v.shape));
    EQI_GOTO(done,
             ctx->backend->attention(ctx, &(*out)->v, &lse->v, &in[0]->v, &in[1]->v, &in[2]->v,
                                     eqi_opt(in[3]), d));
done:
    st = eqi_op_finish(tape, st, &eqi_attention_op, in, 4, out, &lse, 1, d, sizeof *d);
    for (int i = 0; i < 4; i++) eqi_tensor_unref(in[i]);
    eqi_tensor_unref(lse);
    return st;
}
