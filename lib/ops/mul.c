#include "ops/op.h"

/* d a += dy * b */
static eqat_status side(eqi_ctx *ctx, eqi_tensor *a, const eqi_tensor *b, const eqi_tensor *dy)
{
    eqi_slot da;
    eqat_status st = eqi_slot_open(&da, a, dy->v.dtype, true);
    if (st == EQAT_OK && da.g) st = ctx->backend->mul(ctx, &da.g->v, &dy->v, &b->v, da.acc);
    return eqi_slot_close(&da, st);
}

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    EQI_RETURN_IF(side(tape->ctx, node->in[0], node->in[1], node->out->grad));
    return side(tape->ctx, node->in[1], node->in[0], node->out->grad);
}

const eqi_op eqi_mul_op = {.name = "mul", .backward = backward, .idle = EQI_OUT};

eqat_status eqi_op_mul(eqi_tape *tape, eqi_tensor *a, eqi_tensor *b, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(eqi_op_check_x("mul", "a", a));
    EQI_RETURN_IF(eqi_op_check_same("mul", "a", a, "b", b));
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *in[2] = {a, b};
    EQI_RETURN_IF(eqi_tensor_create(ctx, out, a->v.dtype, a->v.ndim, a->v.shape));
    eqat_status st = ctx->backend->mul(ctx, &(*out)->v, &a->v, &b->v, false);
    return eqi_op_finish(tape, st, &eqi_mul_op, in, 2, out, NULL, 0, NULL, 0);
}
