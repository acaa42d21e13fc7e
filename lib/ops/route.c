#include "ops/op.h"

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_tensor *logits = node->in[0];
    eqi_slot dlogits;
    eqat_status st = eqi_slot_open(&dlogits, logits, logits->v.dtype, true);
    if (st == EQAT_OK && dlogits.g) {
        eqi_view d_rows = eqi_as_rows(dlogits.g), rows = eqi_as_rows(logits),
                 dweights = eqi_as_rows(node->out->grad), index = eqi_as_rows(node->saved[0]);
        st = tape->ctx->backend->route_bwd(tape->ctx, &d_rows, &dweights, &rows, &index,
                                           *(const bool *)node->attr, dlogits.acc);
    }
    return eqi_slot_close(&dlogits, st);
}

const eqi_op eqi_route_op = {.name = "route", .backward = backward, .idle = EQI_OUT};

static eqat_status check(const eqi_tensor *logits, int64_t k)
{
    EQI_RETURN_IF(eqi_op_check_x("route", "logits", logits));
    int64_t experts = logits->v.shape[logits->v.ndim - 1];
    if (k >= 1 && k <= experts) return EQAT_OK;
    return eqi_fail(eqi_tensor_ctx(logits), EQAT_INVALID_ARGUMENT,
                    "route: found %lld experts a row, expected 1 to %lld", (long long)k,
                    (long long)experts);
}

eqat_status eqi_op_route(eqi_tape *tape, eqi_tensor *logits, int64_t k, bool normalised,
                         eqi_tensor **weights, eqi_tensor **index)
{
    *weights = *index = NULL;
    EQI_RETURN_IF(check(logits, k));
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *in[1] = {NULL};
    int ndim = logits->v.ndim;
    int64_t shape[EQI_MAX_DIMS];
    for (int i = 0; i < ndim; i++) shape[i] = i + 1 < ndim ? logits->v.shape[i] : k;
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_op_rows(tape, logits, &in[0]));
    EQI_GOTO(done, eqi_tensor_create(ctx, weights, eqi_param_dtype(logits->v.dtype), ndim, shape));
    EQI_GOTO(done, eqi_tensor_create(ctx, index, EQI_I32, ndim, shape));
    eqi_view w_rows = eqi_as_rows(*weights), i_rows = eqi_as_rows(*index),
             rows = eqi_as_rows(in[0]);
    st = ctx->backend->route(ctx, &w_rows, &i_rows, &rows, normalised);
done:
    st = eqi_op_finish(tape, st, &eqi_route_op, in, 1, weights, index, 1, &normalised,
                       sizeof normalised);
    if (st != EQAT_OK) {
        eqi_tensor_unref(*index);
        *index = NULL;
    }
    eqi_tensor_unref(in[0]);
    return st;
}
