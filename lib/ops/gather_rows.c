#include "ops/op.h"

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_ctx *ctx = tape->ctx;
    const eqi_view *dy = &node->out->grad->v;
    eqi_slot dx;
    eqat_status st = eqi_slot_open(&dx, node->in[0], dy->dtype, true);
    if (st == EQAT_OK && dx.g) {
        if (!dx.acc) EQI_GOTO(done, ctx->backend->fill(ctx, &dx.g->v, 0));
        st = ctx->backend->scatter_rows(ctx, &dx.g->v, dy, &node->in[1]->v, NULL, NULL);
    }
done:
    return eqi_slot_close(&dx, st);
}

const eqi_op eqi_gather_rows_op = {
    .name = "gather_rows", .backward = backward, .idle = EQI_IN(0) | EQI_OUT};

eqat_status eqi_op_gather_rows(eqi_tape *tape, eqi_tensor *x, eqi_tensor *rows, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(eqi_op_check_x("gather_rows", "x", x));
    EQI_RETURN_IF(eqi_op_check_ndim("gather_rows", "x", x, 2));
    EQI_RETURN_IF(eqi_op_check_ndim("gather_rows", "rows", rows, 1));
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *in[2] = {NULL};
    int64_t shape[2] = {rows->v.shape[0], x->v.shape[1]};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_op_rows(tape, x, &in[0]));
    EQI_GOTO(done, eqi_op_contiguous(tape, rows, &in[1]));
    EQI_GOTO(done, eqi_op_check_index("gather_rows", "row", in[1], x->v.shape[0], false));
    EQI_GOTO(done, eqi_tensor_create(ctx, out, x->v.dtype, 2, shape));
    eqi_view x_rows = eqi_as_rows(in[0]);
    st = ctx->backend->gather_rows(ctx, &(*out)->v, &x_rows, &in[1]->v, NULL, NULL);
done:
    st = eqi_op_finish(tape, st, &eqi_gather_rows_op, in, 2, out, NULL, 0, NULL, 0);
    eqi_tensor_unref(in[0]);
    eqi_tensor_unref(in[1]);
    return st;
}
