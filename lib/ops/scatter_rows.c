#include "ops/op.h"

enum { SUM, Y, WEIGHTS, ROWS, SLOTS, INPUTS };

static eqat_status backward_y(eqi_ctx *ctx, const eqi_node *node, const eqi_view *d)
{
    eqi_tensor *const *in = node->in;
    eqi_slot dy;
    eqat_status st = eqi_slot_open(&dy, in[Y], d->dtype, false);
    if (st == EQAT_OK && dy.g)
        st = ctx->backend->gather_rows(ctx, &dy.g->v, d, &in[ROWS]->v, &in[SLOTS]->v,
                                       &in[WEIGHTS]->v);
    return eqi_slot_close(&dy, st);
}

static eqat_status backward_weights(eqi_ctx *ctx, const eqi_node *node, const eqi_view *d)
{
    eqi_tensor *const *in = node->in;
    eqi_slot dw;
    eqat_status st = eqi_slot_open(&dw, in[WEIGHTS], eqi_param_dtype(d->dtype), true);
    if (st == EQAT_OK && dw.g) {
        eqi_view y = eqi_as_rows(in[Y]);
        if (!dw.acc) EQI_GOTO(done, ctx->backend->fill(ctx, &dw.g->v, 0));
        st = ctx->backend->dot_rows(ctx, &dw.g->v, d, &y, &in[ROWS]->v, &in[SLOTS]->v);
    }
done:
    return eqi_slot_close(&dw, st);
}

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    EQI_RETURN_IF(backward_y(tape->ctx, node, &node->out->grad->v));
    EQI_RETURN_IF(backward_weights(tape->ctx, node, &node->out->grad->v));
    return eqi_grad_add(node->in[SUM], node->out->grad);
}

const eqi_op eqi_scatter_rows_op = {
    .name = "scatter_rows", .backward = backward, .idle = EQI_IN(SUM) | EQI_OUT};

static eqat_status check(const eqi_tensor *sum, const eqi_tensor *y, const eqi_tensor *weights,
                         const eqi_tensor *rows, const eqi_tensor *slots)
{
    static const char op[] = "scatter_rows";
    EQI_RETURN_IF(eqi_op_check_x(op, "sum", sum));
    EQI_RETURN_IF(eqi_op_check_ndim(op, "sum", sum, 2));
    EQI_RETURN_IF(eqi_op_check_x(op, "y", y));
    EQI_RETURN_IF(eqi_op_check_dtype(op, "y", y, sum->v.dtype));
    EQI_RETURN_IF(eqi_op_check_ndim(op, "y", y, 2));
    if (y->v.shape[1] != sum->v.shape[1]) return eqi_op_misfit(op, "sum", sum, "y", y);
    EQI_RETURN_IF(eqi_op_check_ndim(op, "weights", weights, 2));
    if (weights->v.shape[0] != sum->v.shape[0])
        return eqi_op_misfit(op, "sum", sum, "weights", weights);
    const eqi_tensor *lists[2] = {rows, slots};
    for (int i = 0; i < 2; i++)
        if (lists[i]->v.ndim != 1 || lists[i]->v.shape[0] != y->v.shape[0])
            return eqi_op_misfit(op, "y", y, i ? "slots" : "rows", lists[i]);
    return EQAT_OK;
}

/* The inputs as the kernels want them, but for the sum. */
static eqat_status gather(eqi_tape *tape, eqi_tensor *sum, eqi_tensor *const *given,
                          eqi_tensor **in)
{
    static const char op[] = "scatter_rows";
    eqi_dtype params = eqi_param_dtype(sum->v.dtype);
    EQI_RETURN_IF(eqi_op_rows(tape, given[Y], &in[Y]));
    EQI_RETURN_IF(eqi_op_param(tape, op, "weights", given[WEIGHTS], params, &in[WEIGHTS]));
    EQI_RETURN_IF(eqi_op_contiguous(tape, given[ROWS], &in[ROWS]));
    EQI_RETURN_IF(eqi_op_contiguous(tape, given[SLOTS], &in[SLOTS]));
    EQI_RETURN_IF(eqi_op_check_index(op, "row", in[ROWS], sum->v.shape[0], false));
    return eqi_op_check_index(op, "slot", in[SLOTS], given[WEIGHTS]->v.shape[1], false);
}

/* Nobody but the caller, who gives its own reference up, can read the sum's memory. */
static bool expendable(const eqi_tensor *sum)
{
    return sum->refs - sum->idle == 1 && sum->storage->refs == 1 && !sum->storage->foreign &&
        eqi_view_is_contiguous(&sum->v);
}

eqat_status eqi_op_scatter_rows(eqi_tape *tape, eqi_tensor **sum, eqi_tensor *y,
                                eqi_tensor *weights, eqi_tensor *rows, eqi_tensor *slots)
{
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *before = *sum, *out = NULL, *given[INPUTS] = {before, y, weights, rows, slots},
               *in[INPUTS] = {before};
    EQI_RETURN_IF(check(before, y, weights, rows, slots));
    eqat_status st = EQAT_OK;
    EQI_GOTO(done,
             expendable(before) && y != before
                 ? eqi_tensor_reshape(before, &out, 2, before->v.shape)
                 : eqi_tensor_cast(before, before->v.dtype, &out));
    EQI_GOTO(done, gather(tape, before, given, in));
    eqi_view y_rows = eqi_as_rows(in[Y]);
    st = ctx->backend->scatter_rows(ctx, &out->v, &y_rows, &in[ROWS]->v, &in[SLOTS]->v,
                                    &in[WEIGHTS]->v);
done:
    st = eqi_op_finish(tape, st, &eqi_scatter_rows_op, in, INPUTS, &out, NULL, 0, NULL, 0);
    for (int i = Y; i < INPUTS; i++) eqi_tensor_unref(in[i]);
    if (st != EQAT_OK) return st;
    eqi_tensor_unref(before);
    *sum = out;
    return EQAT_OK;
}
