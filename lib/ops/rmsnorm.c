#include "ops/op.h"

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *x = node->in[0], *gain = node->in[1], *dy = node->out->grad;
    eqi_slot dx = {0}, dgain = {0};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_slot_open(&dx, x, dy->v.dtype, true));
    EQI_GOTO(done, eqi_slot_open(&dgain, gain, gain->v.dtype, gain != x));
    eqi_view dx_rows, x_rows = eqi_as_rows(x), dy_rows = eqi_as_rows(dy);
    if (dx.g) dx_rows = eqi_as_rows(dx.g);
    st = ctx->backend->rmsnorm_bwd(ctx, dx.g ? &dx_rows : NULL, eqi_slot_view(&dgain), &dy_rows,
                                   &x_rows, &gain->v, &node->saved[0]->v,
                                   *(const double *)node->attr, dx.acc, dgain.acc);
done:
    st = eqi_slot_close(&dx, st);
    return eqi_slot_close(&dgain, st);
}

const eqi_op eqi_rmsnorm_op = {.name = "rmsnorm", .backward = backward, .idle = EQI_OUT};

eqat_status eqi_op_rmsnorm(eqi_tape *tape, eqi_tensor *x, eqi_tensor *gain, double eps,
                           double offset, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(eqi_op_check_x("rmsnorm", "x", x));
    if (gain->v.ndim != 1 || gain->v.shape[0] != x->v.shape[x->v.ndim - 1])
        return eqi_op_misfit("rmsnorm", "x", x, "gain", gain);
    eqi_ctx *ctx = tape->ctx;
    eqi_dtype dtype = eqi_param_dtype(x->v.dtype);
    int64_t rows = eqi_view_rows(&x->v);
    eqi_tensor *in[2] = {NULL}, *rstd = NULL;
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_op_rows(tape, x, &in[0]));
    EQI_GOTO(done, eqi_op_param(tape, "rmsnorm", "gain", gain, dtype, &in[1]));
    EQI_GOTO(done, eqi_tensor_create(ctx, &rstd, dtype, 1, &rows));
    EQI_GOTO(done, eqi_tensor_create(ctx, out, x->v.dtype, x->v.ndim, x->v.shape));
    eqi_view x_rows = eqi_as_rows(in[0]), y_rows = eqi_as_rows(*out);
    st = ctx->backend->rmsnorm(ctx, &y_rows, &rstd->v, &x_rows, &in[1]->v, eps, offset);
done:
    st = eqi_op_finish(tape, st, &eqi_rmsnorm_op, in, 2, out, &rstd, 1, &offset, sizeof offset);
    eqi_tensor_unref(in[0]);
    eqi_tensor_unref(in[1]);
    eqi_tensor_unref(rstd);
    return st;
}
