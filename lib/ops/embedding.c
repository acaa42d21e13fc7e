#include "ops/op.h"

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_ctx *ctx = tape->ctx;
    const eqi_tensor *dy = node->out->grad;
    eqi_slot dtable = {0};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_slot_open(&dtable, node->in[1], eqi_param_dtype(dy->v.dtype), true));
    if (!dtable.g) return EQAT_OK;
    if (!dtable.acc) EQI_GOTO(done, ctx->backend->fill(ctx, &dtable.g->v, 0));
    eqi_view ids = eqi_as_flat(node->in[0]), dy_rows = eqi_as_rows(dy);
    st = ctx->backend->embedding_bwd(ctx, &dtable.g->v, &ids, &dy_rows);
done:
    return eqi_slot_close(&dtable, st);
}

const eqi_op eqi_embedding_op = {
    .name = "embedding", .backward = backward, .idle = EQI_IN(1) | EQI_OUT};

static eqat_status check(eqi_tensor *ids, eqi_tensor *table, eqi_dtype dtype)
{
    eqi_ctx *ctx = eqi_tensor_ctx(table);
    EQI_RETURN_IF(eqi_op_check_ndim("embedding", "table", table, 2));
    bool f64 = table->v.dtype == EQI_F64;
    if (!eqi_dtype_is_float(table->v.dtype) || (f64 && !ctx->backend->f64))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "embedding: found table of dtype %s, expected f32, bf16 or f16",
                        eqi_dtype_name(table->v.dtype));
    if (f64 ? dtype != EQI_F64 : dtype != EQI_F32 && dtype != EQI_BF16)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "embedding: found output dtype %s, expected %s",
                        eqi_dtype_name(dtype), f64 ? "f64" : "f32 or bf16");
    char a[EQI_SHAPE_TEXT];
    if (ids->v.ndim >= EQI_MAX_DIMS || eqi_view_count(&ids->v) == 0)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "embedding: found ids %s, expected 1 to %d dimensions, none of them 0",
                        eqi_view_shape_text(&ids->v, a, sizeof a), EQI_MAX_DIMS - 1);
    return EQAT_OK;
}

eqat_status eqi_op_embedding(eqi_tape *tape, eqi_tensor *ids, eqi_tensor *table, eqi_dtype dtype,
                             eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(check(ids, table, dtype));
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *in[2] = {NULL};
    int64_t shape[EQI_MAX_DIMS];
    for (int i = 0; i < ids->v.ndim; i++) shape[i] = ids->v.shape[i];
    shape[ids->v.ndim] = table->v.shape[1];
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_op_contiguous(tape, ids, &in[0]));
    EQI_GOTO(done, eqi_op_contiguous(tape, table, &in[1]));
    EQI_GOTO(done, eqi_op_check_index("embedding", "id", in[0], table->v.shape[0], false));
    EQI_GOTO(done, eqi_tensor_create(ctx, out, dtype, ids->v.ndim + 1, shape));
    eqi_view flat = eqi_as_flat(in[0]), y_rows = eqi_as_rows(*out);
    st = ctx->backend->embedding(ctx, &y_rows, &flat, &in[1]->v);
done:
    st = eqi_op_finish(tape, st, &eqi_embedding_op, in, 2, out, NULL, 0, NULL, 0);
    eqi_tensor_unref(in[0]);
    eqi_tensor_unref(in[1]);
    return st;
}
