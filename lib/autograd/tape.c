#include "autograd/tape.h"

#include <string.h>

#include "backend/backend.h"

eqat_status eqi_tape_create(eqi_ctx *ctx, eqi_tape **out)
{
    eqi_tape *tape = *out = eqi_calloc(ctx, 1, sizeof *tape, "a tape");
    if (!tape) return EQAT_OUT_OF_MEMORY;
    tape->ctx = eqi_ctx_ref(ctx);
    tape->recording = true;
    return EQAT_OK;
}

void eqi_tape_free(eqi_tape *tape)
{
    if (!tape) return;
    eqi_ctx *ctx = tape->ctx;
    eqi_tape_clear(tape);
    eqi_free(ctx, tape->nodes);
    eqi_free(ctx, tape);
    eqi_ctx_unref(ctx);
}

static eqi_tensor *hold(eqi_tensor *t, bool idle)
{
    if (!t) return NULL;
    return idle ? eqi_tensor_ref_idle(t) : eqi_tensor_ref(t);
}

static void let_go(eqi_tensor *t, bool idle)
{
    if (idle)
        eqi_tensor_unref_idle(t);
    else
        eqi_tensor_unref(t);
}

static bool is_leaf(const eqi_tensor *t) { return t && !t->on_tape; }

static void pop(eqi_tape *tape)
{
    eqi_node *node = &tape->nodes[--tape->count];
    if (node->op->release) node->op->release(node);
    node->out->on_tape = node->out->requires_grad = false;
    eqi_tensor_zero_grad(node->out);
    let_go(node->out, node->op->idle & EQI_OUT);
    if (node->op->captures) tape->captures--;
    for (size_t i = 0; i < EQI_COUNT(node->in); i++) {
        if (is_leaf(node->in[i])) node->in[i]->uses--;
        let_go(node->in[i], node->op->idle & EQI_IN(i));
    }
    for (size_t i = 0; i < EQI_COUNT(node->saved); i++) eqi_tensor_unref(node->saved[i]);
}

void eqi_tape_clear(eqi_tape *tape)
{
    while (tape->count) pop(tape);
}

void eqi_tape_set_recording(eqi_tape *tape, bool on) { tape->recording = on; }
void eqi_tape_set_offload(eqi_tape *tape, bool on) { tape->offload = on; }
void eqi_tape_set_last(eqi_tape *tape, bool on) { tape->last = on; }
bool eqi_tape_is_blind(const eqi_tape *tape) { return tape->replay && tape->last; }
bool eqi_tape_captures(const eqi_tape *tape) { return tape->captures > 0; }

static bool any_requires(eqi_tensor *const *in, int n_in)
{
    for (int i = 0; i < n_in; i++)
        if (in[i] && in[i]->requires_grad) return true;
    return false;
}

bool eqi_tape_records(const eqi_tape *tape, eqi_tensor *const *in, int n_in)
{
    return tape->recording && any_requires(in, n_in);
}

static eqat_status grow(eqi_tape *tape)
{
    eqi_node *nodes =
        eqi_grow(tape->ctx, tape->nodes, tape->count, &tape->capacity, sizeof *nodes, "a tape");
    if (!nodes) return EQAT_OUT_OF_MEMORY;
    tape->nodes = nodes;
    return EQAT_OK;
}

eqat_status eqi_tape_record(eqi_tape *tape, const eqi_op *op, eqi_tensor *const *in, int n_in,
                            eqi_tensor *out, eqi_tensor *const *saved, int n_saved,
                            const void *attr, size_t attr_size)
{
    if (!any_requires(in, n_in)) return EQAT_OK;
    tape->touched = true;
    if (!tape->recording) return EQAT_OK;
    return eqi_tape_append(tape, op, in, n_in, out, saved, n_saved, attr, attr_size);
}

eqat_status eqi_tape_append(eqi_tape *tape, const eqi_op *op, eqi_tensor *const *in, int n_in,
                            eqi_tensor *out, eqi_tensor *const *saved, int n_saved,
                            const void *attr, size_t attr_size)
{
    eqi_ctx *ctx = tape->ctx;
    if (n_in < 0 || n_in > EQI_NODE_TENSORS)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "%s: found %d inputs, expected at most %d",
                        op->name, n_in, EQI_NODE_TENSORS);
    if (out->requires_grad)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "%s: the output is trainable or recorded already", op->name);
    EQI_RETURN_IF(grow(tape));
    eqi_node *node = &tape->nodes[tape->count++];
    memset(node, 0, sizeof *node);
    node->op = op;
    for (int i = 0; i < n_in; i++) {
        node->in[i] = hold(in[i], op->idle & EQI_IN(i));
        if (is_leaf(in[i])) in[i]->uses++;
    }
    if (op->captures) tape->captures++;
    for (int i = 0; i < n_saved; i++) node->saved[i] = hold(saved[i], false);
    node->out = hold(out, op->idle & EQI_OUT);
    if (attr_size) memcpy(node->attr, attr, attr_size);
    out->requires_grad = out->on_tape = true;
    return EQAT_OK;
}

/* `t` is a leaf and the node at the tape's end is the last to reach it. */
static bool completes(const eqi_tensor *t)
{
    return is_leaf(t) && t->requires_grad && t->uses == 1;
}

static eqat_status hand_over(const eqi_node *node, const eqi_sink *sink)
{
    for (size_t i = 0; i < EQI_COUNT(node->in); i++)
        if (completes(node->in[i]) && node->in[i]->grad)
            EQI_RETURN_IF(sink->take(sink->user, node->in[i]));
    return EQAT_OK;
}

bool eqi_tape_takes_update(const eqi_tape *tape, eqi_tensor *t, eqi_update *update)
{
    return tape->sink && completes(t) && !t->grad &&
        tape->sink->update(tape->sink->user, t, update);
}

/* Walks the tape from its end; what is not on a path from the seeded gradient has none and is only
 * released. */
static eqat_status walk(eqi_tape *tape, eqat_status st, const eqi_sink *sink)
{
    bool recording = tape->recording;
    tape->recording = false;
    tape->sink = sink;
    while (tape->count) {
        eqi_node *node = &tape->nodes[tape->count - 1];
        /* With a sink, what was updated on the way would stay so. */
        if (st == EQAT_OK && !sink) st = eqi_check_cancel(tape->ctx);
        if (st == EQAT_OK && node->out->grad) {
            if (node->op->backward)
                st = node->op->backward(tape, node);
            else
                st = eqi_fail(tape->ctx, EQAT_UNSUPPORTED, "%s: has no backward rule",
                              node->op->name);
        }
        if (st == EQAT_OK && sink) st = hand_over(node, sink);
        pop(tape);
    }
    tape->recording = recording;
    tape->sink = NULL;
    return st;
}

static eqat_status seed(eqi_tape *tape, eqi_tensor *loss, double scale)
{
    eqi_ctx *ctx = tape->ctx;
    char a[EQI_SHAPE_TEXT];
    if (eqi_view_count(&loss->v) != 1)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "backward: found a loss of shape %s, expected one element",
                        eqi_view_shape_text(&loss->v, a, sizeof a));
    if (!loss->on_tape)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "backward: the loss was not recorded: nothing it depends on is trainable");
    eqi_tensor *grad;
    bool acc;
    EQI_RETURN_IF(eqi_grad_of(loss, &grad, &acc));
    return ctx->backend->fill(ctx, &grad->v, scale);
}

eqat_status eqi_tape_backward(eqi_tape *tape, eqi_tensor *loss, double scale)
{
    return walk(tape, seed(tape, loss, scale), NULL);
}

eqat_status eqi_tape_backward_into(eqi_tape *tape, eqi_tensor *loss, double scale,
                                   const eqi_sink *sink)
{
    return walk(tape, seed(tape, loss, scale), sink);
}

static eqat_status seed_from(eqi_tape *tape, eqi_tensor *out, const eqi_tensor *grad)
{
    eqi_ctx *ctx = tape->ctx;
    char a[EQI_SHAPE_TEXT], b[EQI_SHAPE_TEXT];
    if (!out->requires_grad)
        return eqi_fail(
            ctx, EQAT_INVALID_ARGUMENT,
            "backward: the output was not recorded: nothing it depends on is trainable");
    if (!eqi_view_same_shape(&out->v, &grad->v))
        return eqi_fail(
            ctx, EQAT_INVALID_ARGUMENT, "backward: found a gradient of shape %s, expected %s",
            eqi_view_shape_text(&grad->v, a, sizeof a), eqi_view_shape_text(&out->v, b, sizeof b));
    return eqi_grad_add(out, (eqi_tensor *)grad);
}

eqat_status eqi_tape_backward_from(eqi_tape *tape, eqi_tensor *out, const eqi_tensor *grad)
{
    return walk(tape, seed_from(tape, out, grad), NULL);
}
