#include "ops/op.h"

enum { X, W, S, Z, BIAS, CODES, INPUTS };

_Static_assert(sizeof(eqi_quant_desc) <= EQI_NODE_ATTR, "a descriptor fits a node");

static eqat_status backward_x(eqi_ctx *ctx, eqi_node *node, const eqi_view *dy)
{
    const eqi_quant_desc *q = (const eqi_quant_desc *)node->attr;
    eqi_tensor *const *in = node->in;
    eqi_slot dx;
    eqat_status st = eqi_slot_open(&dx, in[X], dy->dtype, true);
    if (st == EQAT_OK && dx.g) {
        eqi_view rows = eqi_as_rows(dx.g), w;
        if (in[CODES]) {
            st = ctx->backend->packed_linear_bwd_x(ctx, &rows, dy, &in[CODES]->v, &in[S]->v,
                                                   &in[Z]->v, q, dx.acc);
        } else if (in[S]) {
            st = ctx->backend->fq_linear_bwd_x(ctx, &rows, dy, &in[W]->v, &in[S]->v, &in[Z]->v, q,
                                               dx.acc);
        } else {
            w = eqi_as_rows(in[W]);
            st = ctx->backend->linear_bwd_x(ctx, &rows, dy, &w, dx.acc);
        }
    }
    return eqi_slot_close(&dx, st);
}

static eqat_status backward_dense(eqi_ctx *ctx, eqi_node *node, const eqi_view *dy,
                                  const eqi_view *x)
{
    eqi_slot dw;
    eqat_status st = eqi_slot_open(&dw, node->in[W], eqi_param_dtype(dy->dtype), true);
    if (st == EQAT_OK && dw.g) st = ctx->backend->linear_bwd_w(ctx, &dw.g->v, dy, x, dw.acc);
    return eqi_slot_close(&dw, st);
}

static eqat_status update_fq(eqi_ctx *ctx, eqi_node *node, const eqi_view *dy, const eqi_view *x,
                             const eqi_update *update)
{
    eqi_tensor *const *in = node->in;
    eqi_slot d[2] = {0};
    eqat_status st = EQAT_OK;
    for (int i = 0; i < 2; i++)
        EQI_GOTO(done, eqi_slot_open(&d[i], in[S + i], eqi_param_dtype(dy->dtype), false));
    EQI_GOTO(done,
             ctx->backend->fq_linear_update(ctx, update, eqi_slot_view(&d[0]), eqi_slot_view(&d[1]),
                                            dy, x, &in[W]->v, &in[S]->v, &in[Z]->v,
                                            (const eqi_quant_desc *)node->attr));
done:
    for (int i = 0; i < 2; i++) st = eqi_slot_close(&d[i], st);
    return st;
}

static eqat_status backward_fq(eqi_tape *tape, eqi_node *node, const eqi_view *dy,
                               const eqi_view *x)
{
    eqi_ctx *ctx = tape->ctx;
    eqi_tensor *const *in = node->in;
    eqi_dtype dtype = eqi_param_dtype(dy->dtype);
    eqi_slot d[3] = {0};
    eqi_update update;
    bool acc;
    eqat_status st = EQAT_OK;
    if (eqi_tape_takes_update(tape, in[W], &update)) return update_fq(ctx, node, dy, x, &update);
    for (int i = 0; i < 3; i++) EQI_GOTO(done, eqi_slot_open(&d[i], in[W + i], dtype, true));
    if (!d[0].g && !d[1].g && !d[2].g) return EQAT_OK;
    EQI_GOTO(done, eqi_slots_agree(ctx, d, 3, &acc));
    st = ctx->backend->fq_linear_bwd_w(ctx, eqi_slot_view(&d[0]), eqi_slot_view(&d[1]),
                                       eqi_slot_view(&d[2]), dy, x, &in[W]->v, &in[S]->v, &in[Z]->v,
                                       (const eqi_quant_desc *)node->attr, acc);
done:
    for (int i = 0; i < 3; i++) st = eqi_slot_close(&d[i], st);
    return st;
}

static eqat_status backward_packed(eqi_ctx *ctx, eqi_node *node, const eqi_view *dy,
                                   const eqi_view *x)
{
    eqi_tensor *const *in = node->in;
    eqi_dtype dtype = eqi_param_dtype(dy->dtype);
    eqi_slot d[2] = {0};
    bool acc;
    eqat_status st = EQAT_OK;
    if (!in[S]->requires_grad && !in[Z]->requires_grad) return EQAT_OK;
    EQI_GOTO(done,
             in[S]->requires_grad ? eqi_slot_open(&d[0], in[S], dtype, true)
                                  : eqi_slot_open_always(&d[0], in[S], dtype));
    EQI_GOTO(done, eqi_slot_open(&d[1], in[Z], dtype, true));
    EQI_GOTO(done, eqi_slots_agree(ctx, d, 2, &acc));
    st = ctx->backend->packed_linear_bwd_sz(ctx, &d[0].g->v, eqi_slot_view(&d[1]), dy, x,
                                            &in[CODES]->v, &in[S]->v, &in[Z]->v,
                                            (const eqi_quant_desc *)node->attr, acc);
done:
    st = eqi_slot_close(&d[0], st);
    return eqi_slot_close(&d[1], st);
}

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    eqi_ctx *ctx = tape->ctx;
    eqi_view dy = eqi_as_rows(node->out->grad), x = eqi_as_rows(node->in[X]);
    EQI_RETURN_IF(backward_x(ctx, node, &dy));
    if (node->in[CODES])
        EQI_RETURN_IF(backward_packed(ctx, node, &dy, &x));
    else if (node->in[S])
        EQI_RETURN_IF(backward_fq(tape, node, &dy, &x));
    else
        EQI_RETURN_IF(backward_dense(ctx, node, &dy, &x));
    eqi_slot dbias;
    eqat_status st = eqi_slot_open(&dbias, node->in[BIAS], eqi_param_dtype(dy.dtype), true);
    if (st == EQAT_OK && dbias.g) st = ctx->backend->bias_bwd(ctx, &dbias.g->v, &dy, dbias.acc);
    return eqi_slot_close(&dbias, st);
}

const eqi_op eqi_linear_op = {.name = "linear", .backward = backward, .idle = EQI_OUT};

static eqat_status check(const eqi_tensor *x, const eqi_weight *w)
{
    eqi_ctx *ctx = eqi_tensor_ctx(x);
    EQI_RETURN_IF(eqi_op_check_x("linear", "x", x));
    if ((w->w != NULL) == (w->codes != NULL) || (w->s != NULL) != (w->z != NULL) ||
        (w->codes && !w->s))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "linear: expected a weight w, or w with s and z, or codes with s and z");
    if (w->codes)
        EQI_RETURN_IF(eqi_op_check_codes("linear", w));
    else if (w->s)
        EQI_RETURN_IF(eqi_op_check_groups("linear", w->w, w->s, w->z, &w->q));
    const char *name = w->w ? "w" : "codes";
    const eqi_tensor *weight = w->w ? w->w : w->codes;
    if (w->w) EQI_RETURN_IF(eqi_op_check_weight("linear", "w", weight, x));
    if (x->v.shape[x->v.ndim - 1] != eqi_weight_in(w))
        return eqi_op_misfit("linear", "x", x, name, weight);
    if (w->bias && (w->bias->v.ndim != 1 || w->bias->v.shape[0] != weight->v.shape[0]))
        return eqi_op_misfit("linear", name, weight, "bias", w->bias);
    return EQAT_OK;
}

/* The inputs as the kernels of this form want them. */
static eqat_status gather(eqi_tape *tape, eqi_tensor *x, const eqi_weight *w, eqi_tensor **in)
{
    eqi_dtype params = eqi_param_dtype(x->v.dtype);
    EQI_RETURN_IF(eqi_op_rows(tape, x, &in[X]));
    EQI_RETURN_IF(eqi_op_param(tape, "linear", "bias", w->bias, params, &in[BIAS]));
    EQI_RETURN_IF(eqi_op_param(tape, "linear", "s", w->s, params, &in[S]));
    if (w->z && w->codes && w->z->v.dtype == EQI_U8)
        EQI_RETURN_IF(eqi_op_contiguous(tape, w->z, &in[Z]));
    else
        EQI_RETURN_IF(eqi_op_param(tape, "linear", "z", w->z, params, &in[Z]));
    if (w->codes) return eqi_op_contiguous(tape, w->codes, &in[CODES]);
    return w->s ? eqi_op_param(tape, "linear", "w", w->w, params, &in[W])
                : eqi_op_rows(tape, w->w, &in[W]);
}

static eqat_status compute(eqi_ctx *ctx, eqi_tensor *out, eqi_tensor *const *in,
                           const eqi_quant_desc *q)
{
    eqi_view y = eqi_as_rows(out), x = eqi_as_rows(in[X]);
    const eqi_view *bias = eqi_opt(in[BIAS]);
    if (in[CODES])
        return ctx->backend->packed_linear(ctx, &y, &x, &in[CODES]->v, &in[S]->v, &in[Z]->v, bias,
                                           q);
    if (in[S])
        return ctx->backend->fq_linear(ctx, &y, &x, &in[W]->v, &in[S]->v, &in[Z]->v, bias, q);
    eqi_view w = eqi_as_rows(in[W]);
    return ctx->backend->linear(ctx, &y, &x, &w, bias);
}

eqat_status eqi_op_linear(eqi_tape *tape, eqi_tensor *x, const eqi_weight *w, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(check(x, w));
    eqi_tensor *in[INPUTS] = {NULL};
    int64_t shape[EQI_MAX_DIMS];
    for (int i = 0; i < x->v.ndim; i++) shape[i] = x->v.shape[i];
    shape[x->v.ndim - 1] = eqi_weight_out(w);
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, gather(tape, x, w, in));
    EQI_GOTO(done, eqi_tensor_create(tape->ctx, out, x->v.dtype, x->v.ndim, shape));
    if (!eqi_tape_is_blind(tape)) EQI_GOTO(done, compute(tape->ctx, *out, in, &w->q));
done:
    st = eqi_op_finish(tape, st, &eqi_linear_op, in, INPUTS, out, NULL, 0, &w->q, sizeof w->q);
    for (int i = 0; i < INPUTS; i++) eqi_tensor_unref(in[i]);
    return st;
}
