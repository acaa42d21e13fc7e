#include "ops/op.h"

/* d x += dloss * 2 (x - other) / count */
static eqat_status side(eqi_ctx *ctx, eqi_tensor *x, const eqi_tensor *other,
                        const eqi_tensor *dloss)
{
    eqi_slot dx = {0};
    eqat_status st = eqi_slot_open(&dx, x, x->v.dtype, true);
    if (st == EQAT_OK && dx.g)
        st = ctx->backend->mse_bwd(ctx, &dx.g->v, &dloss->v, &x->v, &other->v, dx.acc);
    return eqi_slot_close(&dx, st);
}

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    EQI_RETURN_IF(side(tape->ctx, node->in[0], node->in[1], node->out->grad));
    return side(tape->ctx, node->in[1], node->in[0], node->out->grad);
}

const eqi_op eqi_mse_op = {.name = "mse", .backward = backward, .idle = EQI_OUT};

eqat_status eqi_op_mse(eqi_tape *tape, eqi_tensor *x, eqi_tensor *target, eqi_tensor **loss)
{
    *loss = NULL;
    EQI_RETURN_IF(eqi_op_check_x("mse", "x", x));
    EQI_RETURN_IF(eqi_op_check_same("mse", "x", x, "target", target));
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *in[2] = {NULL};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_op_contiguous(tape, x, &in[0]));
    EQI_GOTO(done, eqi_op_contiguous(tape, target, &in[1]));
    EQI_GOTO(done, eqi_tensor_create(ctx, loss, eqi_param_dtype(x->v.dtype), 1, (int64_t[]){1}));
    EQI_GOTO(done, ctx->backend->mse(ctx, &(*loss)->v, &in[0]->v, &in[1]->v));
done:
    st = eqi_op_finish(tape, st, &eqi_mse_op, in, 2, loss, NULL, 0, NULL, 0);
    eqi_tensor_unref(in[0]);
    eqi_tensor_unref(in[1]);
    return st;
}
