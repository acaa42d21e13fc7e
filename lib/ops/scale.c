#include "ops/op.h"

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_ctx *ctx = tape->ctx;
    const double *alpha = (const double *)node->attr;
    const eqi_tensor *dy = node->out->grad;
    eqi_slot da;
    eqat_status st = eqi_slot_open(&da, node->in[0], dy->v.dtype, true);
    if (st == EQAT_OK && da.g)
        st = ctx->backend->axpby(ctx, &da.g->v, *alpha, &dy->v, 1, da.acc ? &da.g->v : NULL);
    return eqi_slot_close(&da, st);
}

const eqi_op eqi_scale_op = {.name = "scale", .backward = backward, .idle = EQI_IN(0) | EQI_OUT};

eqat_status eqi_op_scale(eqi_tape *tape, eqi_tensor *a, double alpha, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(eqi_op_check_x("scale", "a", a));
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *in[1] = {NULL};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_op_contiguous(tape, a, &in[0]));
    EQI_GOTO(done, eqi_tensor_create(ctx, out, a->v.dtype, a->v.ndim, a->v.shape));
    EQI_GOTO(done, ctx->backend->axpby(ctx, &(*out)->v, alpha, &in[0]->v, 0, NULL));
done:
    st = eqi_op_finish(tape, st, &eqi_scale_op, in, 1, out, NULL, 0, &alpha, sizeof alpha);
    eqi_tensor_unref(in[0]);
    return st;
}
