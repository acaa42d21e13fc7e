#include "ops/op.h"

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    (void)tape;
    EQI_RETURN_IF(eqi_grad_add(node->in[0], node->out->grad));
    return eqi_grad_add(node->in[1], node->out->grad);
}

const eqi_op eqi_add_op = {
    .name = "add", .backward = backward, .idle = EQI_IN(0) | EQI_IN(1) | EQI_OUT};

eqat_status eqi_op_add(eqi_tape *tape, eqi_tensor *a, eqi_tensor *b, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(eqi_op_check_x("add", "a", a));
    EQI_RETURN_IF(eqi_op_check_same("add", "a", a, "b", b));
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *in[2] = {NULL};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_op_contiguous(tape, a, &in[0]));
    EQI_GOTO(done, eqi_op_contiguous(tape, b, &in[1]));
    EQI_GOTO(done, eqi_tensor_create(ctx, out, a->v.dtype, a->v.ndim, a->v.shape));
    if (!eqi_tape_is_blind(tape))
        EQI_GOTO(done, ctx->backend->axpby(ctx, &(*out)->v, 1, &in[0]->v, 1, &in[1]->v));
done:
    st = eqi_op_finish(tape, st, &eqi_add_op, in, 2, out, NULL, 0, NULL, 0);
    eqi_tensor_unref(in[0]);
    eqi_tensor_unref(in[1]);
    return st;
}
