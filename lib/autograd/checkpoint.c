#include "autograd/tape.h"

typedef struct segment {
    eqi_segment_fn fn;
    void *user;
    void (*release)(void *user);
    int n_in;
} segment;

_Static_assert(sizeof(segment) <= EQI_NODE_ATTR, "a segment fits a node");

static void let_go(const segment *s)
{
    if (s->release) s->release(s->user);
}

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    const segment *s = (const segment *)node->attr;
    eqi_tape *inner;
    for (int i = 0; i < s->n_in; i++)
        if (node->in[i]) EQI_RETURN_IF(eqi_tensor_to_device(node->in[i]));
    EQI_RETURN_IF(eqi_tape_create(tape->ctx, &inner));
    inner->replay = true;
    eqi_tensor *out = NULL;
    eqat_status st = s->fn(inner, s->user, node->in, s->n_in, &out);
    if (st == EQAT_OK) st = eqi_tape_backward_from(inner, out, node->out->grad);
    eqi_tape_free(inner);
    if (st == EQAT_OK || out) eqi_tensor_unref(out);
    return st;
}

static void release(eqi_node *node) { let_go((const segment *)node->attr); }

const eqi_op eqi_checkpoint_op = {.name = "checkpoint",
                                  .backward = backward,
                                  .release = release,
                                  .idle = EQI_OUT,
                                  .captures = true};

/* A segment may hand back a tensor that others hold too; the mark "recorded" needs one of its own.
 */
static eqat_status own_output(eqi_tensor **out)
{
    eqi_tensor *y = *out, *view;
    if (y->refs == 1) return EQAT_OK;
    EQI_RETURN_IF(eqi_tensor_slice(y, &view, 0, 0, y->v.shape[0]));
    eqi_tensor_unref(y);
    *out = view;
    return EQAT_OK;
}

eqat_status eqi_tape_checkpoint(eqi_tape *tape, eqi_segment_fn fn, void *user,
                                void (*release_user)(void *user), eqi_tensor *const *in, int n_in,
                                eqi_tensor **out)
{
    segment s = {.fn = fn, .user = user, .release = release_user, .n_in = n_in};
    bool recording = tape->recording, touched = tape->touched;
    eqi_tensor *y = NULL;
    tape->recording = false;
    tape->touched = false;
    eqat_status st = fn(tape, user, in, n_in, &y);
    bool needed = tape->touched;
    tape->recording = recording;
    tape->touched = touched || needed;
    bool recorded = false;
    if (st == EQAT_OK && recording && needed) {
        st = own_output(&y);
        if (st == EQAT_OK)
            st = eqi_tape_append(tape, &eqi_checkpoint_op, in, n_in, y, NULL, 0, &s, sizeof s);
        recorded = st == EQAT_OK;
    }
    if (!recorded) let_go(&s);
    if (st != EQAT_OK) {
        eqi_tensor_unref(y);
        y = NULL;
    }
    *out = y;
    return st;
}
