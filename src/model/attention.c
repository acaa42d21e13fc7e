#include "model/attention.h"

#include "model/config.h"

/* B batch, T time, H hidden, D head_dim. Every intermediate goes as soon as it was used; what
 * backward needs the tape holds. */

/* x [B, T, H] -> [B, T, heads, D], normalised per head where the family does, not yet rotated. */
static eqat_status project(eqi_tape *tape, const eqi_block *b, eqi_role role, const eqi_norm *norm,
                           eqi_tensor *x, int64_t heads, eqi_tensor **out)
{
    const int64_t shape[4] = {x->v.shape[0], x->v.shape[1], heads, b->attention.head_dim};
    eqi_tensor *flat, *split = NULL;
    EQI_RETURN_IF(eqi_block_apply(tape, b, role, x, &flat));
    eqat_status st = eqi_op_reshape(tape, flat, 4, shape, &split);
    eqi_drop(&flat);
    if (st == EQAT_OK && norm) {
        st = eqi_op_rmsnorm(tape, split, norm->gain, b->config->eps, b->config->family->norm_offset,
                            out);
        eqi_drop(&split);
    } else {
        *out = split;
    }
    return st;
}

static eqat_status rotated(eqi_tape *tape, const eqi_block *b, const eqi_block_input *in,
                           eqi_role role, eqi_norm_role norm, eqi_tensor *x, int64_t heads,
                           eqi_tensor **out)
{
    const eqi_rotary *r = &in->rotary[b->attention.rope];
    eqi_tensor *split;
    *out = NULL;
    EQI_RETURN_IF(project(tape, b, role, eqi_block_norm(b, norm), x, heads, &split));
    eqat_status st = eqi_op_rope(tape, split, r->cos, r->sin, in->positions, out);
    eqi_drop(&split);
    return st;
}

/* Puts x [B, T, KV, D] behind the `length` earlier positions of a cache; *x becomes a view of all
 * of them. */
static eqat_status extend(eqi_tensor *cache, int64_t length, eqi_tensor **x)
{
    eqi_tensor *place = NULL, *all = NULL;
    int64_t time = (*x)->v.shape[1];
    eqat_status st;
    EQI_GOTO(done, eqi_tensor_slice(cache, &place, 1, length, time));
    EQI_GOTO(done, eqi_tensor_copy(place, *x));
    EQI_GOTO(done, eqi_tensor_slice(cache, &all, 1, 0, length + time));
    eqi_drop(x);
    *x = all;
done:
    eqi_drop(&place);
    return st;
}

static eqat_status mix(eqi_tape *tape, const eqi_block *b, const eqi_block_input *in, eqi_tensor *q,
                       eqi_tensor **k, eqi_tensor **v, eqi_tensor **out)
{
    const eqi_attention *a = &b->attention;
    eqi_attention_desc d = {.scale = (float)a->scale,
                            .causal = true,
                            .window = a->window,
                            .softcap = (float)a->softcap};
    if (in->kv) {
        d.q_offset = in->kv->length;
        EQI_RETURN_IF(extend(in->kv->k, in->kv->length, k));
        EQI_RETURN_IF(extend(in->kv->v, in->kv->length, v));
    }
    EQI_RETURN_IF(eqi_op_attention(tape, q, *k, *v, in->segments, &d, out));
    if (in->kv) in->kv->length += q->v.shape[1];
    return EQAT_OK;
}

eqat_status eqi_attention_branch(eqi_tape *tape, const eqi_block *b, const eqi_block_input *in,
                                 eqi_tensor **out)
{
    const eqi_attention *a = &b->attention;
    const int64_t joined[3] = {in->x->v.shape[0], in->x->v.shape[1], a->heads * a->head_dim};
    eqi_tensor *x = NULL, *q = NULL, *k = NULL, *v = NULL, *mixed = NULL, *flat = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_block_normalise(tape, b, EQI_NORM_ATTN, in->x, &x));
    EQI_GOTO(done, rotated(tape, b, in, EQI_Q, EQI_NORM_Q, x, a->heads, &q));
    EQI_GOTO(done, rotated(tape, b, in, EQI_K, EQI_NORM_K, x, a->kv_heads, &k));
    EQI_GOTO(done, project(tape, b, EQI_V, NULL, x, a->kv_heads, &v));
    eqi_drop(&x);
    EQI_GOTO(done, mix(tape, b, in, q, &k, &v, &mixed));
    eqi_drop(&q);
    eqi_drop(&k);
    eqi_drop(&v);
    EQI_GOTO(done, eqi_op_reshape(tape, mixed, 3, joined, &flat));
    st = eqi_block_apply(tape, b, EQI_O, flat, out);
done:
    eqi_drop(&x);
    eqi_drop(&q);
    eqi_drop(&k);
    eqi_drop(&v);
    eqi_drop(&mixed);
    eqi_drop(&flat);
    return st;
}
