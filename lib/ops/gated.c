#include "ops/op.h"

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *gate = node->in[0], *up = node->in[1], *dy = node->out->grad;
    eqi_slot dgate = {0}, dup = {0};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done,
             gate->requires_grad ? eqi_slot_open_over(&dgate, gate, dy)
                                 : eqi_slot_open_always(&dgate, gate, dy->v.dtype));
    EQI_GOTO(done, eqi_slot_open_always(&dup, up, dy->v.dtype));
    eqi_view gate_rows = eqi_as_rows(gate), up_rows = eqi_as_rows(up), dy_rows = eqi_as_rows(dy);
    eqi_view dgate_rows = eqi_as_rows(dgate.g), dup_rows = eqi_as_rows(dup.g);
    st = ctx->backend->gated_bwd(ctx, &dgate_rows, &dup_rows, &dy_rows, &gate_rows, &up_rows,
                                 *(const eqi_activation *)node->attr);
done:
    st = eqi_slot_close(&dgate, st);
    return eqi_slot_close(&dup, st);
}

const eqi_op eqi_gated_op = {.name = "gated", .backward = backward, .idle = EQI_OUT};

eqat_status eqi_op_gated(eqi_tape *tape, eqi_tensor *gate, eqi_tensor *up,
                         eqi_activation activation, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(eqi_op_check_x("gated", "gate", gate));
    EQI_RETURN_IF(eqi_op_check_same("gated", "gate", gate, "up", up));
    eqi_ctx *ctx = tape->ctx;
    if ((unsigned)activation >= EQI_ACTIVATION_COUNT)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "gated: found activation %d, expected 0 to %d",
                        (int)activation, EQI_ACTIVATION_COUNT - 1);
    eqi_tensor *in[2] = {NULL};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_op_rows(tape, gate, &in[0]));
    EQI_GOTO(done, eqi_op_rows(tape, up, &in[1]));
    EQI_GOTO(done, eqi_tensor_create(ctx, out, gate->v.dtype, gate->v.ndim, gate->v.shape));
    eqi_view gate_rows = eqi_as_rows(in[0]), up_rows = eqi_as_rows(in[1]),
             y_rows = eqi_as_rows(*out);
    st = ctx->backend->gated(ctx, &y_rows, &gate_rows, &up_rows, activation);
done:
    st =
        eqi_op_finish(tape, st, &eqi_gated_op, in, 2, out, NULL, 0, &activation, sizeof activation);
    eqi_tensor_unref(in[0]);
    eqi_tensor_unref(in[1]);
    return st;
}
