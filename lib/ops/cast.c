#include "ops/op.h"

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    (void)tape;
    return eqi_grad_add(node->in[0], node->out->grad);
}

const eqi_op eqi_cast_op = {.name = "cast", .backward = backward, .idle = EQI_IN(0) | EQI_OUT};

eqat_status eqi_op_cast(eqi_tape *tape, eqi_tensor *a, eqi_dtype dtype, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(eqi_op_check_x("cast", "a", a));
    bool f64 = a->v.dtype == EQI_F64;
    if (f64 ? dtype != EQI_F64 : dtype != EQI_F32 && dtype != EQI_BF16)
        return eqi_fail(tape->ctx, EQAT_INVALID_ARGUMENT,
                        "cast: found output dtype %s, expected %s", eqi_dtype_name(dtype),
                        f64 ? "f64" : "f32 or bf16");
    eqat_status st = eqi_tensor_cast(a, dtype, out);
    return eqi_op_finish(tape, st, &eqi_cast_op, &a, 1, out, NULL, 0, NULL, 0);
}
