#include "base/entry.h"
#include "quant/kind.h"
#include "train/e2e_qp.h"

eqat_status eqi_e2e_qp_check_options(const eqat_model *m, const eqat_data *data,
                                     const eqat_e2e_qp_options *o)
{
    if (o->batch_size % o->micro_batch_size)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "micro_batch_size: found %lld, expected a divisor of batch_size %lld",
                        (long long)o->micro_batch_size, (long long)o->batch_size);
    return eqi_samples_check(m, data, true);
}

eqat_status eqi_e2e_qp_refuse_dense(const eqat_model *m)
{
    return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                    "%s: found no quantized linear, expected a quantized model", m->path);
}

static eqat_status is_quantized(const eqi_linear *l, const eqat_quantizer *quantizer, bool *any)
{
    eqi_quant quant = {.kind = NULL};
    if (quantizer) EQI_RETURN_IF(eqi_linear_choose(l, quantizer, &quant));
    *any |= quant.kind || eqi_linear_quantization(l).bits;
    return EQAT_OK;
}

eqat_status eqat_e2e_qp_check(eqat_model *m, const eqat_quantizer *quantizer, eqat_data *data,
                              const eqat_e2e_qp_options *options)
{
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, data);
    bool any = false;
    eqat_e2e_qp_options checked;
    EQI_RETURN_IF(eqi_options_take(m->ctx, &eqi_struct_e2e_qp, &checked, options));
    EQI_RETURN_IF(eqi_e2e_qp_check_options(m, data, &checked));
    for (int64_t b = 0; b < m->config.blocks; b++)
        for (int i = 0; i < m->blocks[b].n_linears; i++)
            EQI_RETURN_IF(is_quantized(&m->blocks[b].linears[i], quantizer, &any));
    return any ? EQAT_OK : eqi_e2e_qp_refuse_dense(m);
}
