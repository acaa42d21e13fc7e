#include "ops/op.h"

typedef struct range {
    int dim;
    int64_t start, length;
} range;

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_ctx *ctx = tape->ctx;
    const range *r = (const range *)node->attr;
    const eqi_view *dy = &node->out->grad->v;
    eqi_tensor *whole, *part;
    bool acc;
    EQI_RETURN_IF(eqi_grad_of(node->in[0], &whole, &acc));
    if (!acc) EQI_RETURN_IF(ctx->backend->fill(ctx, &whole->v, 0));
    EQI_RETURN_IF(eqi_tensor_slice(whole, &part, r->dim, r->start, r->length));
    eqat_status st = acc ? ctx->backend->axpby(ctx, &part->v, 1, &part->v, 1, dy)
                         : ctx->backend->copy(ctx, &part->v, dy);
    eqi_tensor_unref(part);
    return st;
}

const eqi_op eqi_slice_op = {.name = "slice", .backward = backward, .idle = EQI_IN(0) | EQI_OUT};

eqat_status eqi_op_slice(eqi_tape *tape, eqi_tensor *a, int dim, int64_t start, int64_t length,
                         eqi_tensor **out)
{
    range r = {dim, start, length};
    eqat_status st = eqi_tensor_slice(a, out, dim, start, length);
    return eqi_op_finish(tape, st, &eqi_slice_op, &a, 1, out, NULL, 0, &r, sizeof r);
}
