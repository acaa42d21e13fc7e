#include "model/attention.h"
#include "model/config.h"

/* x + attention(norm(x)), then that + mlp(norm(that)); in some families each branch has a norm at
 * its end, too. */

static eqat_status mlp(eqi_tape *tape, const eqi_block *b, eqi_tensor *x, eqi_tensor **out)
{
    eqi_tensor *normed = NULL, *gate = NULL, *up = NULL, *gated = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_block_normalise(tape, b, EQI_NORM_MLP, x, &normed));
    EQI_GOTO(done, eqi_block_apply(tape, b, EQI_GATE, normed, &gate));
    EQI_GOTO(done, eqi_block_apply(tape, b, EQI_UP, normed, &up));
    eqi_drop(&normed);
    EQI_GOTO(done, eqi_op_gated(tape, gate, up, b->config->activation, &gated));
    eqi_drop(&gate);
    eqi_drop(&up);
    /* From here on only the block's output is made. */
    if (!eqi_block_norm(b, EQI_NORM_MLP_OUT)) eqi_tape_set_last(tape, true);
    st = eqi_block_apply(tape, b, EQI_DOWN, gated, out);
done:
    eqi_drop(&normed);
    eqi_drop(&gate);
    eqi_drop(&up);
    eqi_drop(&gated);
    return st;
}

/* *out = x + branch, or x + norm(branch); gives the branch up. */
static eqat_status join(eqi_tape *tape, const eqi_block *b, eqi_norm_role role, eqi_tensor *x,
                        eqi_tensor **branch, eqi_tensor **out)
{
    eqi_tensor *normed = NULL;
    eqat_status st = EQAT_OK;
    if (eqi_block_norm(b, role)) {
        EQI_GOTO(done, eqi_block_normalise(tape, b, role, *branch, &normed));
        eqi_drop(branch);
    }
    st = eqi_op_add(tape, x, normed ? normed : *branch, out);
done:
    eqi_drop(branch);
    eqi_drop(&normed);
    return st;
}

static eqat_status graph(eqi_tape *tape, const eqi_block *b, const eqi_block_input *in,
                         eqat_status (*second)(eqi_tape *, const eqi_block *, eqi_tensor *,
                                               eqi_tensor **),
                         eqi_tensor **out)
{
    eqi_tensor *branch = NULL, *middle = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_attention_branch(tape, b, in, &branch));
    EQI_GOTO(done, join(tape, b, EQI_NORM_ATTN_OUT, in->x, &branch, &middle));
    EQI_GOTO(done, second(tape, b, middle, &branch));
    st = join(tape, b, EQI_NORM_MLP_OUT, middle, &branch, out);
done:
    eqi_tape_set_last(tape, false);
    eqi_drop(&branch);
    eqi_drop(&middle);
    return st;
}

eqat_status eqi_graph_decoder(eqi_tape *tape, const eqi_block *b, const eqi_block_input *in,
                              eqi_tensor **out)
{
    return graph(tape, b, in, mlp, out);
}

eqat_status eqi_graph_experts(eqi_tape *tape, const eqi_block *b, const eqi_block_input *in,
                              eqi_tensor **out)
{
    return graph(tape, b, in, eqi_experts_branch, out);
}
