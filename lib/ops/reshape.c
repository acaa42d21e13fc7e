#include "ops/op.h"

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    (void)tape;
    eqi_tensor *in = node->in[0], *g;
    EQI_RETURN_IF(eqi_tensor_reshape(node->out->grad, &g, in->v.ndim, in->v.shape));
    return eqi_grad_give(in, g);
}

const eqi_op eqi_reshape_op = {
    .name = "reshape", .backward = backward, .idle = EQI_IN(0) | EQI_OUT};

eqat_status eqi_op_reshape(eqi_tape *tape, eqi_tensor *a, int ndim, const int64_t *shape,
                           eqi_tensor **out)
{
    eqi_tensor *in[1];
    *out = NULL;
    EQI_RETURN_IF(eqi_op_contiguous(tape, a, &in[0]));
    eqat_status st = eqi_tensor_reshape(in[0], out, ndim, shape);
    st = eqi_op_finish(tape, st, &eqi_reshape_op, in, 1, out, NULL, 0, NULL, 0);
    eqi_tensor_unref(in[0]);
    return st;
}
