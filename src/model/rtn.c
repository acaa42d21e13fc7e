#include <math.h>

#include "api/options.h"
#include "api/progress.h"
#include "base/entry.h"
#include "model/weights.h"
#include "quant/freeze.h"

static const eqat_field fields[] = {
    EQI_FIELD_POINTER(eqat_rtn_options, progress, "called before every linear and at the end"),
    EQI_FIELD_POINTER(eqat_rtn_options, progress_user, "its first argument"),
};

const eqi_struct eqi_struct_rtn = EQI_STRUCT(eqat_rtn_options, "rtn", fields);

void eqat_rtn_options_init(eqat_rtn_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_rtn, options, struct_size);
}

typedef struct rounding {
    eqat_model *m;
    const eqat_quantizer *quantizer;
    eqat_rtn_options options;
    int64_t done, linears;
} rounding;

static eqat_status tell(const rounding *r, int64_t block)
{
    eqat_progress p = {.phase = "rtn",
                       .block = block,
                       .blocks = r->m->config.blocks,
                       .step = r->done,
                       .steps = r->linears,
                       .loss = NAN,
                       .val_loss = NAN,
                       .grad_norm = NAN,
                       .work = "step"};
    return eqi_report_progress(r->m->ctx, r->options.progress, r->options.progress_user, &p);
}

static eqat_status round_linear(const eqat_quantizer *quantizer, const eqi_linear *l,
                                eqi_weight *packed)
{
    eqi_quant quant;
    EQI_RETURN_IF(eqi_linear_choose(l, quantizer, &quant));
    if (!quant.kind) return EQAT_OK;
    EQI_RETURN_IF(quant.kind->round(&quant, l->weight.w, packed));
    return eqi_quant_check_scales(l->name, packed->s, l->weight.w);
}

/* All of a block or nothing of it. What a rule leaves dense stays where it is. */
static eqat_status round_block(rounding *r, int64_t index)
{
    eqat_model *m = r->m;
    eqi_block own = {0};
    int n = m->blocks[index].n_linears;
    eqi_weight *packed = eqi_calloc(m->ctx, (size_t)n, sizeof *packed, "a block's packed weights");
    if (!packed) return EQAT_OUT_OF_MEMORY;
    eqat_status st;
    EQI_GOTO(done, tell(r, index));
    EQI_GOTO(done, eqi_block_masters(m, index, &own));
    for (int i = 0; i < n; i++) {
        if (i) EQI_GOTO(done, tell(r, index));
        EQI_GOTO(done, eqi_check_cancel(m->ctx));
        EQI_GOTO(done, round_linear(r->quantizer, &own.linears[i], &packed[i]));
        r->done++;
    }
    for (int i = 0; i < n; i++)
        if (packed[i].codes) eqi_linear_set_packed(m, index, i, &packed[i]);
done:
    for (int i = 0; i < n; i++) eqi_weight_release(&packed[i]);
    eqi_free(m->ctx, packed);
    eqi_block_drop(m->ctx, &own);
    return st;
}

static eqat_status check_linear(const eqat_model *m, const eqat_quantizer *quantizer,
                                const eqi_linear *l)
{
    eqi_quant quant;
    EQI_RETURN_IF(eqi_linear_choose(l, quantizer, &quant));
    if (!quant.kind || !eqi_linear_quantization(l).bits) return EQAT_OK;
    return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT, "%s: already quantized, expected full precision",
                    l->name);
}

eqat_status eqat_model_quantize_rtn(eqat_model *m, const eqat_quantizer *quantizer,
                                    const eqat_rtn_options *options)
{
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, quantizer);
    rounding r = {.m = m, .quantizer = quantizer};
    EQI_RETURN_IF(eqi_options_take(m->ctx, &eqi_struct_rtn, &r.options, options));
    EQI_RETURN_IF(eqi_model_check_idle(m));
    for (int64_t b = 0; b < m->config.blocks; b++)
        for (int i = 0; i < m->blocks[b].n_linears; i++, r.linears++)
            EQI_RETURN_IF(check_linear(m, quantizer, &m->blocks[b].linears[i]));
    for (int64_t b = 0; b < m->config.blocks; b++) EQI_RETURN_IF(round_block(&r, b));
    return tell(&r, m->config.blocks - 1);
}
