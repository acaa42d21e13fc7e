#include "model/attention.h"

/* x + attention(norm(x)), then that + mlp(norm(that)). */

static eqat_status mlp(eqi_tape *tape, const eqi_block *b, eqi_tensor *x, eqi_tensor **out)
{
    eqi_tensor *normed = NULL, *gate = NULL, *up = NULL, *gated = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_block_normalise(tape, b, EQI_NORM_MLP, x, &normed));
    EQI_GOTO(done, eqi_block_apply(tape, b, EQI_GATE, normed, &gate));
    EQI_GOTO(done, eqi_block_apply(tape, b, EQI_UP, normed, &up));
    eqi_drop(&normed);
    EQI_GOTO(done, eqi_op_gated(tape, gate, up, EQI_SILU, &gated));
    eqi_drop(&gate);
    eqi_drop(&up);
    tape->blind = tape->replay; /* from here on only the block's output is made */
    st = eqi_block_apply(tape, b, EQI_DOWN, gated, out);
done:
    eqi_drop(&normed);
    eqi_drop(&gate);
    eqi_drop(&up);
    eqi_drop(&gated);
    return st;
}

eqat_status eqi_graph_decoder(eqi_tape *tape, const eqi_block *b, const eqi_block_input *in,
                              eqi_tensor **out)
{
    eqi_tensor *branch = NULL, *middle = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_attention_branch(tape, b, in, &branch));
    EQI_GOTO(done, eqi_op_add(tape, in->x, branch, &middle));
    eqi_drop(&branch);
    EQI_GOTO(done, mlp(tape, b, middle, &branch));
    st = eqi_op_add(tape, middle, branch, out);
done:
    tape->blind = false;
    eqi_drop(&branch);
    eqi_drop(&middle);
    return st;
}
