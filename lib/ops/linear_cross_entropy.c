#include "ops/op.h"

/* saved: the gradients of the sum for x and w, and the number of labels. */
enum { DX, DW, COUNT, SAVED };

static eqat_status spread(eqi_ctx *ctx, eqi_tensor *t, eqi_tensor **saved, const eqi_tensor *factor)
{
    eqi_tensor *g = *saved;
    *saved = NULL;
    if (!g) return EQAT_OK;
    eqat_status st = ctx->backend->scale_by(ctx, &g->v, &g->v, &factor->v, false);
    if (st == EQAT_OK) return eqi_grad_give(t, g);
    eqi_tensor_unref(g);
    return st;
}

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_ctx *ctx = tape->ctx;
    const eqi_tensor *dloss = node->out->grad;
    eqi_tensor *factor;
    EQI_RETURN_IF(eqi_tensor_create(ctx, &factor, dloss->v.dtype, 1, dloss->v.shape));
    eqat_status st = ctx->backend->ratio(ctx, &factor->v, &dloss->v, &node->saved[COUNT]->v);
    if (st == EQAT_OK) st = spread(ctx, node->in[0], &node->saved[DX], factor);
    if (st == EQAT_OK) st = spread(ctx, node->in[1], &node->saved[DW], factor);
    eqi_tensor_unref(factor);
    return st;
}

const eqi_op eqi_linear_cross_entropy_op = {.name = "linear_cross_entropy",
                                            .backward = backward,
                                            .idle = EQI_IN(0) | EQI_IN(1) | EQI_IN(2) | EQI_OUT};

static eqat_status check(const eqi_tensor *x, const eqi_tensor *w, const eqi_tensor *labels)
{
    const char *op = eqi_linear_cross_entropy_op.name;
    EQI_RETURN_IF(eqi_op_check_x(op, "x", x));
    EQI_RETURN_IF(eqi_op_check_weight(op, "w", w, x));
    if (x->v.ndim != labels->v.ndim + 1) return eqi_op_misfit(op, "x", x, "labels", labels);
    for (int i = 0; i < labels->v.ndim; i++)
        if (x->v.shape[i] != labels->v.shape[i]) return eqi_op_misfit(op, "x", x, "labels", labels);
    return EQAT_OK;
}

static eqat_status check_teacher(const eqi_distill *from, const eqi_tensor *x, const eqi_tensor *w)
{
    const char *op = eqi_linear_cross_entropy_op.name;
    EQI_RETURN_IF(eqi_op_check_x(op, "teacher's x", from->x));
    EQI_RETURN_IF(eqi_op_check_weight(op, "teacher's w", from->w, from->x));
    EQI_RETURN_IF(eqi_op_check_dtype(op, "teacher's x", from->x, x->v.dtype));
    bool fits = from->x->v.ndim == x->v.ndim && from->w->v.shape[0] == w->v.shape[0];
    for (int i = 0; fits && i + 1 < x->v.ndim; i++) fits = from->x->v.shape[i] == x->v.shape[i];
    if (!fits) return eqi_op_misfit(op, "teacher's x", from->x, "x", x);
    if (from->share >= 0 && from->share <= 1) return EQAT_OK;
    return eqi_fail(eqi_tensor_ctx(x), EQAT_INVALID_ARGUMENT,
                    "%s: share: found %g, expected 0 to 1", op, from->share);
}

/* The teacher's part of the call; *owned (2) are to be freed. */
static eqat_status take_teacher(eqi_tape *tape, const eqi_distill *from, eqi_tensor **owned,
                                eqi_teacher *out)
{
    if (!from) return EQAT_OK;
    EQI_RETURN_IF(eqi_op_contiguous(tape, from->x, &owned[0]));
    EQI_RETURN_IF(eqi_op_contiguous(tape, from->w, &owned[1]));
    *out = (eqi_teacher){.x = eqi_as_rows(owned[0]), .w = owned[1]->v, .share = from->share};
    return EQAT_OK;
}

eqat_status eqi_op_linear_cross_entropy(eqi_tape *tape, eqi_tensor *x, eqi_tensor *w,
                                        eqi_tensor *labels, const eqi_distill *from,
                                        eqi_tensor **loss, eqi_tensor **count)
{
    const char *op = eqi_linear_cross_entropy_op.name;
    *loss = NULL;
    if (count) *count = NULL;
    EQI_RETURN_IF(check(x, w, labels));
    if (from) EQI_RETURN_IF(check_teacher(from, x, w));
    eqi_teacher teacher;
    eqi_tensor *owned[2] = {NULL};
    eqi_ctx *ctx = tape->ctx;
    eqi_dtype dtype = eqi_param_dtype(x->v.dtype);
    eqi_tensor *in[3] = {NULL}, *saved[SAVED] = {NULL}, *stats = NULL, *sum = NULL;
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, eqi_op_contiguous(tape, x, &in[0]));
    EQI_GOTO(done, eqi_op_contiguous(tape, w, &in[1]));
    EQI_GOTO(done, eqi_op_contiguous(tape, labels, &in[2]));
    EQI_GOTO(done, take_teacher(tape, from, owned, &teacher));
    EQI_GOTO(done, eqi_op_check_index(op, "label", in[2], w->v.shape[0], true));
    if (eqi_tape_records(tape, &in[0], 1))
        EQI_GOTO(done, eqi_tensor_create(ctx, &saved[DX], x->v.dtype, x->v.ndim, x->v.shape));
    if (eqi_tape_records(tape, &in[1], 1))
        EQI_GOTO(done, eqi_tensor_zeros(ctx, &saved[DW], dtype, 2, w->v.shape));
    EQI_GOTO(done, eqi_tensor_create(ctx, &stats, dtype, 1, (int64_t[]){2}));
    EQI_GOTO(done, eqi_tensor_slice(stats, &sum, 0, 0, 1));
    EQI_GOTO(done, eqi_tensor_slice(stats, &saved[COUNT], 0, 1, 1));
    EQI_GOTO(done, eqi_tensor_create(ctx, loss, dtype, 1, (int64_t[]){1}));
    eqi_view x_rows = eqi_as_rows(in[0]), flat = eqi_as_flat(in[2]), dx_rows;
    if (saved[DX]) dx_rows = eqi_as_rows(saved[DX]);
    EQI_GOTO(done,
             ctx->backend->linear_cross_entropy(ctx, &stats->v, saved[DX] ? &dx_rows : NULL,
                                                eqi_opt(saved[DW]), &x_rows, &in[1]->v, &flat,
                                                from ? &teacher : NULL));
    EQI_GOTO(done, ctx->backend->ratio(ctx, &(*loss)->v, &sum->v, &saved[COUNT]->v));
done:
    st = eqi_op_finish(tape, st, &eqi_linear_cross_entropy_op, in, 3, loss, saved, SAVED, NULL, 0);
    if (st == EQAT_OK && count) *count = eqi_tensor_ref(saved[COUNT]);
    for (int i = 0; i < 3; i++) eqi_tensor_unref(in[i]);
    for (int i = 0; i < 2; i++) eqi_tensor_unref(owned[i]);
    for (int i = 0; i < SAVED; i++) eqi_tensor_unref(saved[i]);
    eqi_tensor_unref(stats);
    eqi_tensor_unref(sum);
    return st;
}
