#include <math.h>

#include "model/model.h"

/* A decoder block: x + attention(norm(x)), then that + mlp(norm(that)). B batch, T time, H hidden,
 * D head_dim. Every intermediate goes as soon as it was used; what backward needs the tape holds.
 */

static void drop(eqi_tensor **t)
{
    eqi_tensor_unref(*t);
    *t = NULL;
}

/* q or k: [B, T, H] -> [B, T, heads, D], normalised per head where the family does, rotated. */
static eqat_status rotated(eqi_tape *tape, const eqat_model *m, const eqi_linear *l,
                           const eqi_norm *norm, eqi_tensor *x, const int64_t *shape,
                           eqi_tensor *cos, eqi_tensor *sin, eqi_tensor *positions,
                           eqi_tensor **out)
{
    eqi_tensor *flat = NULL, *heads = NULL, *normed = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_op_linear(tape, x, &l->weight, &flat));
    EQI_GOTO(done, eqi_op_reshape(tape, flat, 4, shape, &heads));
    drop(&flat);
    if (norm->size) {
        EQI_GOTO(done, eqi_op_rmsnorm(tape, heads, norm->gain, m->config.eps, &normed));
        drop(&heads);
    }
    st = eqi_op_rope(tape, normed ? normed : heads, cos, sin, positions, out);
done:
    drop(&flat);
    drop(&heads);
    drop(&normed);
    return st;
}

static eqat_status attention(eqi_tape *tape, const eqat_model *m, const eqi_block *b, eqi_tensor *x,
                             eqi_tensor *cos, eqi_tensor *sin, eqi_tensor *positions,
                             eqi_tensor *segments, eqi_tensor **out)
{
    const eqi_config *c = &m->config;
    int64_t batch = x->v.shape[0], time = x->v.shape[1];
    int64_t queries[4] = {batch, time, c->heads, c->head_dim},
            keys[4] = {batch, time, c->kv_heads, c->head_dim};
    int64_t joined[3] = {batch, time, c->heads * c->head_dim};
    eqi_attention_desc d = {.scale = (float)(1 / sqrt((double)c->head_dim)), .causal = true};
    if (b->index >= c->window_from) d.window = c->window;
    eqi_tensor *normed = NULL, *q = NULL, *k = NULL, *v_flat = NULL, *v = NULL, *mixed = NULL,
               *flat = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_op_rmsnorm(tape, x, b->norms[EQI_NORM_ATTN].gain, c->eps, &normed));
    EQI_GOTO(done,
             rotated(tape, m, &b->linears[EQI_Q], &b->norms[EQI_NORM_Q], normed, queries, cos, sin,
                     positions, &q));
    EQI_GOTO(done,
             rotated(tape, m, &b->linears[EQI_K], &b->norms[EQI_NORM_K], normed, keys, cos, sin,
                     positions, &k));
    EQI_GOTO(done, eqi_op_linear(tape, normed, &b->linears[EQI_V].weight, &v_flat));
    drop(&normed);
    EQI_GOTO(done, eqi_op_reshape(tape, v_flat, 4, keys, &v));
    EQI_GOTO(done, eqi_op_attention(tape, q, k, v, segments, &d, &mixed));
    drop(&q);
    drop(&k);
    drop(&v_flat);
    drop(&v);
    EQI_GOTO(done, eqi_op_reshape(tape, mixed, 3, joined, &flat));
    st = eqi_op_linear(tape, flat, &b->linears[EQI_O].weight, out);
done:
    drop(&normed);
    drop(&q);
    drop(&k);
    drop(&v_flat);
    drop(&v);
    drop(&mixed);
    drop(&flat);
    return st;
}

static eqat_status mlp(eqi_tape *tape, const eqat_model *m, const eqi_block *b, eqi_tensor *x,
                       eqi_tensor **out)
{
    eqi_tensor *normed = NULL, *gate = NULL, *up = NULL, *gated = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_op_rmsnorm(tape, x, b->norms[EQI_NORM_MLP].gain, m->config.eps, &normed));
    EQI_GOTO(done, eqi_op_linear(tape, normed, &b->linears[EQI_GATE].weight, &gate));
    EQI_GOTO(done, eqi_op_linear(tape, normed, &b->linears[EQI_UP].weight, &up));
    drop(&normed);
    EQI_GOTO(done, eqi_op_silu_mul(tape, gate, up, &gated));
    drop(&gate);
    drop(&up);
    tape->blind = tape->replay; /* from here on only the block's output is made */
    st = eqi_op_linear(tape, gated, &b->linears[EQI_DOWN].weight, out);
done:
    drop(&normed);
    drop(&gate);
    drop(&up);
    drop(&gated);
    return st;
}

eqat_status eqi_block_graph(eqi_tape *tape, eqat_model *m, int64_t index, eqi_tensor *cos,
                            eqi_tensor *sin, eqi_tensor *x, eqi_tensor *positions,
                            eqi_tensor *segments, eqi_tensor **out)
{
    const eqi_block *b = &m->blocks[index];
    eqi_tensor *branch = NULL, *middle = NULL;
    eqat_status st;
    *out = NULL;
    EQI_GOTO(done, attention(tape, m, b, x, cos, sin, positions, segments, &branch));
    EQI_GOTO(done, eqi_op_add(tape, x, branch, &middle));
    drop(&branch);
    EQI_GOTO(done, mlp(tape, m, b, middle, &branch));
    st = eqi_op_add(tape, middle, branch, out);
done:
    tape->blind = false;
    drop(&branch);
    drop(&middle);
    return st;
}

eqat_status eqi_block_forward(eqi_tape *tape, eqat_model *m, int64_t index, eqi_tensor *x,
                              eqi_tensor *positions, eqi_tensor *segments, eqi_tensor **out)
{
    *out = NULL;
    if (!m->rope_cos || m->rope_length < x->v.shape[1])
        EQI_RETURN_IF(eqi_model_prepare(m, x->v.shape[1]));
    return eqi_block_graph(tape, m, index, m->rope_cos, m->rope_sin, x, positions, segments, out);
}
