#include "base/entry.h"
#include "model/weights.h"
#include "quant/freeze.h"

static eqat_status round_linear(const eqat_quantizer *quantizer, const eqi_linear *l,
                                eqi_weight *packed)
{
    eqi_quant quant;
    EQI_RETURN_IF(eqi_linear_choose(l, quantizer, &quant));
    if (!quant.kind) return EQAT_OK;
    EQI_RETURN_IF(quant.kind->round(&quant, l->weight.w, packed));
    return eqi_quant_check_scales(l->name, packed->s, false);
}

/* All of a block or nothing of it. What a rule leaves dense stays where it is. */
static eqat_status round_block(eqat_model *m, int64_t index, const eqat_quantizer *quantizer)
{
    eqi_block own = {0};
    int n = m->blocks[index].n_linears;
    eqi_weight *packed = eqi_calloc(m->ctx, (size_t)n, sizeof *packed, "a block's packed weights");
    if (!packed) return EQAT_OUT_OF_MEMORY;
    eqat_status st;
    EQI_GOTO(done, eqi_block_masters(m, index, &own));
    for (int i = 0; i < n; i++)
        EQI_GOTO(done, round_linear(quantizer, &own.linears[i], &packed[i]));
    for (int i = 0; i < n; i++)
        if (packed[i].codes) eqi_linear_set_packed(m, index, i, &packed[i]);
done:
    for (int i = 0; i < n; i++) eqi_weight_release(&packed[i]);
    eqi_free(m->ctx, packed);
    eqi_block_drop(m->ctx, &own);
    return st;
}

eqat_status eqat_model_quantize_rtn(eqat_model *m, const eqat_quantizer *quantizer)
{
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, quantizer);
    EQI_RETURN_IF(eqi_model_check_idle(m));
    for (int64_t b = 0; b < m->config.blocks; b++)
        for (int i = 0; i < m->blocks[b].n_linears; i++) {
            const eqi_linear *l = &m->blocks[b].linears[i];
            eqi_quant quant;
            EQI_RETURN_IF(eqi_linear_choose(l, quantizer, &quant));
            if (quant.kind && eqi_linear_quantization(l).bits)
                return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                                "%s: already quantized, expected full precision", l->name);
        }
    for (int64_t b = 0; b < m->config.blocks; b++) {
        EQI_RETURN_IF(eqi_check_cancel(m->ctx));
        EQI_RETURN_IF(round_block(m, b, quantizer));
    }
    return EQAT_OK;
}
