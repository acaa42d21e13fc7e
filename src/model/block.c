#include "model/config.h"
#include "quant/freeze.h"
#include "quant/quantizer.h"

const eqi_linear *eqi_block_linear(const eqi_block *b, eqi_role role, int expert)
{
    for (int i = 0; i < b->n_linears; i++)
        if (b->linears[i].role == role && b->linears[i].expert == expert) return &b->linears[i];
    return NULL;
}

bool eqi_linear_shares_input(const eqi_linear *a, const eqi_linear *b)
{
    static const eqi_role first[] = {
        [EQI_Q] = EQI_Q,       [EQI_K] = EQI_Q,           [EQI_V] = EQI_Q,
        [EQI_O] = EQI_O,       [EQI_GATE] = EQI_GATE,     [EQI_UP] = EQI_GATE,
        [EQI_DOWN] = EQI_DOWN, [EQI_ROUTER] = EQI_ROUTER,
    };
    return first[a->role] == first[b->role] && a->expert == b->expert;
}

eqat_status eqi_linear_choose(const eqi_linear *l, const eqat_quantizer *quantizer,
                              eqi_quant *quant)
{
    *quant = (eqi_quant){.kind = NULL};
    return l->plain ? EQAT_OK : eqi_quantizer_choose(quantizer, l->name, l->in, quant);
}

const eqi_norm *eqi_block_norm(const eqi_block *b, eqi_norm_role role)
{
    for (int i = 0; i < b->n_norms; i++)
        if (b->norms[i].role == role) return &b->norms[i];
    return NULL;
}

eqat_status eqi_linear_forward(eqi_tape *tape, const eqi_linear *l, eqi_tensor *x, eqi_tensor **out)
{
    eqi_weight fake;
    *out = NULL;
    if (l->measures) EQI_RETURN_IF(eqi_second_moments(x, l->moments));
    if (!l->quant.kind) return eqi_op_linear(tape, x, &l->weight, out);
    EQI_RETURN_IF(l->quant.kind->fake(&l->quant, tape, l->weight.w, l->beside, &fake));
    if (l->weight.bias) fake.bias = eqi_tensor_ref(l->weight.bias);
    eqat_status st = eqi_op_linear(tape, x, &fake, out);
    eqi_weight_release(&fake);
    return st;
}

eqat_status eqi_block_apply(eqi_tape *tape, const eqi_block *b, eqi_role role, eqi_tensor *x,
                            eqi_tensor **out)
{
    return eqi_linear_forward(tape, eqi_block_linear(b, role, 0), x, out);
}

eqat_status eqi_block_normalise(eqi_tape *tape, const eqi_block *b, eqi_norm_role role,
                                eqi_tensor *x, eqi_tensor **out)
{
    return eqi_op_rmsnorm(tape, x, eqi_block_norm(b, role)->gain, b->config->eps,
                          b->config->family->norm_offset, out);
}

eqat_status eqi_block_forward(eqi_tape *tape, const eqi_block *b, const eqi_block_input *in,
                              eqi_tensor **out)
{
    *out = NULL;
    return b->graph(tape, b, in, out);
}

eqi_quant_desc eqi_linear_quantization(const eqi_linear *l)
{
    if (l->weight.codes) return l->weight.q;
    return l->weight.w ? (eqi_quant_desc){0} : l->file;
}

eqi_layout_linear eqi_linear_described(const eqi_linear *l, eqi_quant_desc q)
{
    return (eqi_layout_linear){.name = l->name, .out = l->out, .in = l->in, .q = q};
}
