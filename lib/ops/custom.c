#include <stdio.h>

#include "ops/op.h"

typedef struct custom {
    eqi_custom_backward backward;
    void (*release)(void *user);
    void *user;
    int n_in;
    char name[EQI_NODE_ATTR - 4 * sizeof(void *)];
} custom;

_Static_assert(sizeof(custom) <= EQI_NODE_ATTR, "a custom op fits a node");

static eqat_status backward(eqi_tape *tape, eqi_node *node)
{
    custom c = *(const custom *)node->attr;
    tape->ctx->error[0] = 0;
    eqat_status st = c.backward(c.user, tape, node->out->grad, node->in, c.n_in);
    if (st == EQAT_OK) return EQAT_OK;
    if (tape->ctx->error[0]) return eqi_fail_in(tape->ctx, st, "%s", c.name);
    return eqi_fail(tape->ctx, st, "%s: its backward rule failed: %s", c.name,
                    eqat_status_name(st));
}

static void release(eqi_node *node)
{
    const custom *c = (const custom *)node->attr;
    if (c->release) c->release(c->user);
}

const eqi_op eqi_custom_op = {
    .name = "custom", .backward = backward, .release = release, .idle = EQI_OUT};

eqat_status eqi_op_custom(eqi_tape *tape, const char *name, eqi_tensor *const *in, int n_in,
                          eqi_tensor *out, eqi_custom_backward rule,
                          void (*release_user)(void *user), void *user)
{
    custom c = {.backward = rule, .release = release_user, .user = user, .n_in = n_in};
    snprintf(c.name, sizeof c.name, "%s", name ? name : "custom");
    bool held = eqi_tape_records(tape, in, n_in);
    eqat_status st = eqi_tape_record(tape, &eqi_custom_op, in, n_in, out, NULL, 0, &c, sizeof c);
    if (st != EQAT_OK) st = eqi_fail_in(tape->ctx, st, "%s", c.name);
    if (!(held && st == EQAT_OK) && release_user) release_user(user);
    return st;
}
