#include "ops/op.h"

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    (void)tape;
    return eqi_grad_add(node->in[0], node->out->grad);
}

const eqi_op eqi_contiguous_op = {
    .name = "contiguous", .backward = backward, .idle = EQI_IN(0) | EQI_OUT};

eqat_status eqi_op_contiguous(eqi_tape *tape, eqi_tensor *x, eqi_tensor **out)
{
    if (eqi_view_is_contiguous(&x->v)) {
        *out = eqi_tensor_ref(x);
        return EQAT_OK;
    }
    eqat_status st = eqi_tensor_cast(x, x->v.dtype, out);
    return eqi_op_finish(tape, st, &eqi_contiguous_op, &x, 1, out, NULL, 0, NULL, 0);
}
