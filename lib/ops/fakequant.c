#include "ops/op.h"

_Static_assert(sizeof(eqi_quant_desc) <= EQI_NODE_ATTR, "a descriptor fits a node");

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *const *in = node->in, *dwhat = NULL;
    eqi_slot d[3] = {0};
    bool acc;
    eqat_status st = EQAT_OK;
    eqi_dtype dtype = in[0]->v.dtype;
    EQI_GOTO(done, eqi_op_param(tape, "fakequant", "gradient", node->out->grad, dtype, &dwhat));
    for (int i = 0; i < 3; i++) EQI_GOTO(done, eqi_slot_open(&d[i], in[i], dtype, true));
    EQI_GOTO(done, eqi_slots_agree(ctx, d, 3, &acc));
    st = ctx->backend->fakequant_bwd(ctx, eqi_slot_view(&d[0]), eqi_slot_view(&d[1]),
                                     eqi_slot_view(&d[2]), &dwhat->v, &in[0]->v, &in[1]->v,
                                     &in[2]->v, (const eqi_quant_desc *)node->attr, acc);
done:
    for (int i = 0; i < 3; i++) st = eqi_slot_close(&d[i], st);
    eqi_tensor_unref(dwhat);
    return st;
}

const eqi_op eqi_fakequant_op = {.name = "fakequant", .backward = backward, .idle = EQI_OUT};

static eqat_status check(eqi_tensor *w, eqi_tensor *s, eqi_tensor *z, const eqi_quant_desc *q,
                         eqi_dtype dtype)
{
    eqi_ctx *ctx = eqi_tensor_ctx(w);
    EQI_RETURN_IF(eqi_op_check_x("fakequant", "w", w));
    bool f64 = w->v.dtype == EQI_F64;
    if (f64 ? dtype != EQI_F64 : dtype != EQI_F32 && dtype != EQI_BF16)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "fakequant: found output dtype %s, expected %s",
                        eqi_dtype_name(dtype), f64 ? "f64" : "f32 or bf16");
    return eqi_op_check_groups("fakequant", w, s, z, q);
}

eqat_status eqi_op_fakequant(eqi_tape *tape, eqi_tensor *w, eqi_tensor *s, eqi_tensor *z,
                             const eqi_quant_desc *q, eqi_dtype dtype, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(check(w, s, z, q, dtype));
    eqi_ctx *ctx = tape->ctx;
    eqi_dtype params = eqi_param_dtype(dtype);
    eqi_tensor *in[3] = {NULL};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_op_param(tape, "fakequant", "w", w, params, &in[0]));
    EQI_GOTO(done, eqi_op_param(tape, "fakequant", "s", s, params, &in[1]));
    EQI_GOTO(done, eqi_op_param(tape, "fakequant", "z", z, params, &in[2]));
    EQI_GOTO(done, eqi_tensor_create(ctx, out, dtype, 2, w->v.shape));
    EQI_GOTO(done, ctx->backend->fakequant(ctx, &(*out)->v, &in[0]->v, &in[1]->v, &in[2]->v, q));
done:
    st = eqi_op_finish(tape, st, &eqi_fakequant_op, in, 3, out, NULL, 0, q, sizeof *q);
    for (int i = 0; i < 3; i++) eqi_tensor_unref(in[i]);
    return st;
}
