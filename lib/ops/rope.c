#include "ops/op.h"

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *dy = node->out->grad;
    eqi_slot dx = {0};
    eqat_status st = eqi_slot_open_over(&dx, node->in[0], dy);
    if (st == EQAT_OK && dx.g)
        st = ctx->backend->rope(ctx, &dx.g->v, &dy->v, &node->in[1]->v, &node->in[2]->v,
                                eqi_opt(node->in[3]), -1);
    return eqi_slot_close(&dx, st);
}

const eqi_op eqi_rope_op = {.name = "rope", .backward = backward, .idle = EQI_IN(0) | EQI_OUT};

static eqat_status check(const eqi_tensor *x, const eqi_tensor *cos, const eqi_tensor *sin,
                         const eqi_tensor *pos)
{
    EQI_RETURN_IF(eqi_op_check_x("rope", "x", x));
    EQI_RETURN_IF(eqi_op_check_ndim("rope", "x", x, 4));
    EQI_RETURN_IF(eqi_op_check_ndim("rope", "cos", cos, 2));
    EQI_RETURN_IF(eqi_op_check_same("rope", "cos", cos, "sin", sin));
    if (2 * cos->v.shape[1] > x->v.shape[3]) return eqi_op_misfit("rope", "x", x, "cos", cos);
    if (!pos)
        return x->v.shape[1] > cos->v.shape[0] ? eqi_op_misfit("rope", "x", x, "cos", cos)
                                               : EQAT_OK;
    if (pos->v.ndim != 2 || pos->v.shape[0] != x->v.shape[0] || pos->v.shape[1] != x->v.shape[1])
        return eqi_op_misfit("rope", "x", x, "positions", pos);
    return EQAT_OK;
}

eqat_status eqi_op_rope(eqi_tape *tape, eqi_tensor *x, eqi_tensor *cos, eqi_tensor *sin,
                        eqi_tensor *pos, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(check(x, cos, sin, pos));
    eqi_ctx *ctx = tape->ctx;
    eqi_dtype dtype = eqi_param_dtype(x->v.dtype);
    eqi_tensor *in[4] = {NULL};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done,
             x->v.stride[3] == 1 ? (in[0] = eqi_tensor_ref(x), EQAT_OK)
                                 : eqi_op_contiguous(tape, x, &in[0]));
    EQI_GOTO(done, eqi_op_param(tape, "rope", "cos", cos, dtype, &in[1]));
    EQI_GOTO(done, eqi_op_param(tape, "rope", "sin", sin, dtype, &in[2]));
    if (pos) EQI_GOTO(done, eqi_op_contiguous(tape, pos, &in[3]));
    if (pos) EQI_GOTO(done, eqi_op_check_index("rope", "position", in[3], cos->v.shape[0], false));
    EQI_GOTO(done, eqi_tensor_create(ctx, out, x->v.dtype, 4, x->v.shape));
    EQI_GOTO(
        done,
        ctx->backend->rope(ctx, &(*out)->v, &in[0]->v, &in[1]->v, &in[2]->v, eqi_opt(in[3]), 1));
done:
    /* Only x can train: the angles are given. */
    st = eqi_op_finish(tape, st, &eqi_rope_op, in, 4, out, NULL, 0, NULL, 0);
    for (int i = 0; i < 4; i++) eqi_tensor_unref(in[i]);
    return st;
}
