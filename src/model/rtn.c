#include "model/model.h"
#include "quant/quantizer.h"

static eqat_status round_linear(const eqat_quantizer *quantizer, const eqi_linear *l,
                                eqi_weight *packed)
{
    eqi_quant_desc desc;
    bool selected;
    EQI_RETURN_IF(eqi_quantizer_desc(quantizer, l->name, l->in, &desc, &selected));
    if (!selected) return EQAT_OK;
    return eqi_quant_round_to_nearest(l->weight.w, &desc, eqi_quantizer_uses_mse(quantizer),
                                      packed);
}

/* What a rule leaves dense stays in memory with its packed neighbours: in the compute dtype, as a
 * reload would have it. */
static eqat_status settle(eqat_model *m, eqi_block *b)
{
    for (int i = 0; i < b->n_linears; i++) {
        eqi_weight *w = &b->linears[i].weight;
        if (!w->w || w->w->requires_grad || w->w->v.dtype == m->compute) continue;
        eqi_tensor *narrow;
        EQI_RETURN_IF(eqi_tensor_cast(w->w, m->compute, &narrow));
        eqi_tensor_unref(w->w);
        w->w = narrow;
    }
    return EQAT_OK;
}

/* All of a block or nothing of it. */
static eqat_status round_block(eqat_model *m, int64_t index, const eqat_quantizer *quantizer)
{
    eqi_block *b = &m->blocks[index];
    eqi_weight packed[EQI_ROLE_COUNT] = {{0}};
    bool any = false, pinned = b->resident;
    EQI_RETURN_IF(eqi_block_load(m, index, EQI_F32, true));
    eqat_status st = EQAT_OK;
    for (int i = 0; i < b->n_linears; i++)
        EQI_GOTO(done, round_linear(quantizer, &b->linears[i], &packed[i]));
    for (int i = 0; i < b->n_linears; i++) {
        if (!packed[i].codes) continue;
        eqi_block_set_packed(m, index, i, &packed[i]);
        any = true;
    }
    if (any && !pinned) st = settle(m, b);
done:
    for (int i = 0; i < b->n_linears; i++) eqi_weight_release(&packed[i]);
    eqi_block_unload(m, index);
    return st;
}

eqat_status eqat_model_quantize_rtn(eqat_model *m, const eqat_quantizer *quantizer)
{
    EQI_RETURN_IF(eqi_model_check_idle(m));
    for (int64_t b = 0; b < m->config.blocks; b++)
        for (int i = 0; i < m->blocks[b].n_linears; i++) {
            const eqi_linear *l = &m->blocks[b].linears[i];
            eqi_quant_desc desc;
            bool selected;
            EQI_RETURN_IF(eqi_quantizer_desc(quantizer, l->name, l->in, &desc, &selected));
            if (selected && eqi_linear_quantization(l).bits)
                return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                                "%s: already quantized, expected full precision", l->name);
        }
    for (int64_t b = 0; b < m->config.blocks; b++) {
        EQI_RETURN_IF(eqi_check_cancel(m->ctx));
        EQI_RETURN_IF(round_block(m, b, quantizer));
    }
    return EQAT_OK;
}
