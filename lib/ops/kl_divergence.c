#include "ops/op.h"

enum { X, TARGET, LABELS, INPUTS };
/* saved: ln sum exp of both, and the number of rows. */
enum { LSE, COUNT, SAVED };

static eqat_status to_x(eqi_ctx *ctx, const eqi_node *node, eqi_slot *dx)
{
    eqi_tensor *factor, *const *in = node->in, *const *saved = node->saved;
    const eqi_view *dloss = &node->out->grad->v;
    EQI_RETURN_IF(eqi_tensor_create(ctx, &factor, dloss->dtype, 1, dloss->shape));
    eqi_view x = eqi_as_rows(in[X]), target = eqi_as_rows(in[TARGET]), to = eqi_as_rows(dx->g),
             labels;
    if (in[LABELS]) labels = eqi_as_flat(in[LABELS]);
    eqat_status st = ctx->backend->ratio(ctx, &factor->v, dloss, &saved[COUNT]->v);
    if (st == EQAT_OK)
        st = ctx->backend->kl_divergence_bwd(ctx, &to, &factor->v, &saved[LSE]->v, &x, &target,
                                             in[LABELS] ? &labels : NULL, dx->acc);
    eqi_tensor_unref(factor);
    return st;
}

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_slot dx = {0};
    eqat_status st = eqi_slot_open(&dx, node->in[X], node->in[X]->v.dtype, true);
    if (st == EQAT_OK && dx.g) st = to_x(tape->ctx, node, &dx);
    return eqi_slot_close(&dx, st);
}

const eqi_op eqi_kl_divergence_op = {
    .name = "kl_divergence", .backward = backward, .idle = EQI_OUT};

static eqat_status check(const eqi_tensor *x, const eqi_tensor *target, const eqi_tensor *labels)
{
    const char *op = eqi_kl_divergence_op.name;
    EQI_RETURN_IF(eqi_op_check_x(op, "logits", x));
    EQI_RETURN_IF(eqi_op_check_dtype(op, "logits", x, eqi_param_dtype(x->v.dtype)));
    EQI_RETURN_IF(eqi_op_check_same(op, "logits", x, "target", target));
    if (!labels) return EQAT_OK;
    EQI_RETURN_IF(eqi_op_check_dtype(op, "labels", labels, EQI_I32));
    bool fits = x->v.ndim == labels->v.ndim + 1;
    for (int i = 0; i < labels->v.ndim; i++) fits = fits && x->v.shape[i] == labels->v.shape[i];
    return fits ? EQAT_OK : eqi_op_misfit(op, "logits", x, "labels", labels);
}

eqat_status eqi_op_kl_divergence(eqi_tape *tape, eqi_tensor *x, eqi_tensor *target,
                                 eqi_tensor *labels, eqi_tensor **loss)
{
    *loss = NULL;
    EQI_RETURN_IF(check(x, target, labels));
    eqi_ctx *ctx = tape->ctx;
    eqi_dtype dtype = x->v.dtype;
    eqi_tensor *in[INPUTS] = {NULL}, *saved[SAVED] = {NULL}, *stats = NULL, *sum = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_op_contiguous(tape, x, &in[X]));
    EQI_GOTO(done, eqi_op_contiguous(tape, target, &in[TARGET]));
    if (labels) EQI_GOTO(done, eqi_op_contiguous(tape, labels, &in[LABELS]));
    eqi_view x_rows = eqi_as_rows(in[X]), target_rows = eqi_as_rows(in[TARGET]), flat;
    if (labels) flat = eqi_as_flat(in[LABELS]);
    EQI_GOTO(done, eqi_tensor_create(ctx, &saved[LSE], dtype, 2, (int64_t[]){x_rows.shape[0], 2}));
    EQI_GOTO(done, eqi_tensor_create(ctx, &stats, dtype, 1, (int64_t[]){2}));
    EQI_GOTO(done, eqi_tensor_slice(stats, &sum, 0, 0, 1));
    EQI_GOTO(done, eqi_tensor_slice(stats, &saved[COUNT], 0, 1, 1));
    EQI_GOTO(done, eqi_tensor_create(ctx, loss, dtype, 1, (int64_t[]){1}));
    EQI_GOTO(done,
             ctx->backend->kl_divergence(ctx, &stats->v, &saved[LSE]->v, &x_rows, &target_rows,
                                         labels ? &flat : NULL));
    st = ctx->backend->ratio(ctx, &(*loss)->v, &sum->v, &saved[COUNT]->v);
done:
    st = eqi_op_finish(tape, st, &eqi_kl_divergence_op, in, INPUTS, loss, saved, SAVED, NULL, 0);
    for (int i = 0; i < INPUTS; i++) eqi_tensor_unref(in[i]);
    for (int i = 0; i < SAVED; i++) eqi_tensor_unref(saved[i]);
    eqi_tensor_unref(stats);
    eqi_tensor_unref(sum);
    return st;
}
