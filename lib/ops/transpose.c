#include "ops/op.h"

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    (void)tape;
    const int *dim = (const int *)node->attr;
    eqi_tensor *g;
    EQI_RETURN_IF(eqi_tensor_transpose(node->out->grad, &g, dim[0], dim[1]));
    return eqi_grad_give(node->in[0], g);
}

const eqi_op eqi_transpose_op = {
    .name = "transpose", .backward = backward, .idle = EQI_IN(0) | EQI_OUT};

eqat_status eqi_op_transpose(eqi_tape *tape, eqi_tensor *a, int dim0, int dim1, eqi_tensor **out)
{
    int dim[2] = {dim0, dim1};
    eqat_status st = eqi_tensor_transpose(a, out, dim0, dim1);
    return eqi_op_finish(tape, st, &eqi_transpose_op, &a, 1, out, NULL, 0, dim, sizeof dim);
}
