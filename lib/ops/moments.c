#include "ops/op.h"

eqat_status eqi_second_moments(eqi_tensor *x, eqi_tensor *sum)
{
    eqi_ctx *ctx = eqi_tensor_ctx(x);
    EQI_RETURN_IF(eqi_op_check_x("second moments", "x", x));
    const int64_t k = x->v.shape[x->v.ndim - 1];
    if (sum->v.shape[0] != k || sum->v.shape[sum->v.ndim - 1] != k || sum->v.ndim > 2)
        return eqi_op_misfit("second moments", "x", x, "sum", sum);
    eqi_view all = eqi_as_rows(x);
    if (sum->v.ndim == 2) return ctx->backend->linear_bwd_w(ctx, &sum->v, &all, &all, true);
    eqi_tensor *squares;
    EQI_RETURN_IF(eqi_tensor_create(ctx, &squares, x->v.dtype, x->v.ndim, x->v.shape));
    eqat_status st = ctx->backend->mul(ctx, &squares->v, &x->v, &x->v, false);
    eqi_view rows = eqi_as_rows(squares);
    if (st == EQAT_OK) st = ctx->backend->bias_bwd(ctx, &sum->v, &rows, true);
    eqi_tensor_unref(squares);
    return st;
}
