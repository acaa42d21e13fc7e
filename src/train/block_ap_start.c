#include "model/weights.h"
#include "quant/feedback.h"
#include "quant/freeze.h"
#include "train/block_ap.h"

/* What a stage starts from: masters, scales and zero points. */

eqat_status eqi_block_ap_tell_linear(eqat_block_ap *job, const char *work, int linear)
{
    EQI_RETURN_IF(eqi_check_cancel(job->ctx));
    return eqi_block_ap_tell(job, work, job->block, linear, job->work.n_linears);
}

void eqi_block_ap_drop_tensors(eqi_linear *l)
{
    for (int t = 0; t < EQI_KIND_TENSORS; t++) {
        eqi_tensor_unref(l->beside[t]);
        l->beside[t] = NULL;
    }
    l->quant = (eqi_quant){.kind = NULL};
}

static bool trains(const eqat_block_ap *job, const eqi_linear *l)
{
    return eqi_block_ap_stage_of(job, l) == job->stage;
}

static eqat_status take_masters(eqat_block_ap *job)
{
    for (int i = 0; i < job->work.n_linears; i++) {
        eqi_linear *l = &job->work.linears[i];
        if (!trains(job, l)) continue;
        if (l->quant.kind && l->quant.init->feedback) {
            eqi_tensor_unref(l->weight.w);
            l->weight.w = NULL;
        }
        eqi_block_ap_drop_tensors(l);
        EQI_RETURN_IF(eqi_block_own_weight(job->model, &job->work, i, EQI_F32));
    }
    return EQAT_OK;
}

/* When the quantizer selects the linear, its initial tensors; without `values` any. */
static eqat_status start_tensors(eqat_block_ap *job, eqi_linear *l, bool values)
{
    eqi_quant quant;
    EQI_RETURN_IF(eqi_linear_choose(l, job->quantizer, &quant));
    if (!quant.kind) return EQAT_OK;
    eqi_quant now = quant;
    if (!values) now.init = &eqi_starts[EQAT_INIT_MINMAX];
    eqat_status st = quant.kind->start(&now, l->weight.w, l->moments, l->beside);
    if (st != EQAT_OK) return eqi_fail_in(job->ctx, st, "%s", l->name);
    EQI_RETURN_IF(eqi_quant_check_scales(l->name, l->beside[0], l->weight.w));
    l->quant = quant;
    return EQAT_OK;
}

static bool feeds_back(const eqi_linear *l) { return l->quant.kind && l->quant.init->feedback; }

/* Masters of linears [first, end) of the same inputs, of one factor. Their moments go behind them:
 * those of wide inputs are as large as the block. */
static eqat_status start_masters(eqat_block_ap *job, int first, int end)
{
    eqi_linear *linears = job->work.linears;
    eqi_feedback f;
    while (first < end && !feeds_back(&linears[first])) first++;
    if (first == end) return EQAT_OK;
    eqat_status st = eqi_feedback_make(linears[first].moments, &f);
    if (st != EQAT_OK) return eqi_fail_in(job->ctx, st, "%s", linears[first].name);
    for (int i = first; i < end && st == EQAT_OK; i++) {
        const eqi_linear *l = &linears[i];
        if (!feeds_back(l)) continue;
        st = eqi_feedback_start(&f, l->weight.w, l->beside[0], l->beside[1], &l->quant.desc,
                                l->quant.init->descent);
        if (st != EQAT_OK) st = eqi_fail_in(job->ctx, st, "%s", l->name);
    }
    eqi_feedback_release(job->ctx, &f);
    eqi_block_ap_drop_moments(job, first, end);
    return st;
}

/* Linears of the same inputs stand side by side, and between them those that need no moments. */
static int end_of_input(const eqat_block_ap *job, int first)
{
    const eqi_linear *linears = job->work.linears;
    const eqi_tensor *moments = linears[first].moments;
    int end = first + 1;
    for (int i = end; moments && i < job->work.n_linears; i++) {
        if (linears[i].moments && linears[i].moments != moments) break;
        if (linears[i].moments) end = i + 1;
    }
    return end;
}

static eqat_status start_linears(eqat_block_ap *job, bool values)
{
    for (int first = 0, end; first < job->work.n_linears; first = end) {
        end = end_of_input(job, first);
        for (int i = first; i < end; i++) {
            eqi_linear *l = &job->work.linears[i];
            if (!trains(job, l)) continue;
            if (values) EQI_RETURN_IF(eqi_block_ap_tell_linear(job, "start", i));
            EQI_RETURN_IF(start_tensors(job, l, values));
        }
        if (values) EQI_RETURN_IF(start_masters(job, first, end));
    }
    return EQAT_OK;
}

eqat_status eqi_block_ap_start(eqat_block_ap *job, bool values)
{
    EQI_RETURN_IF(take_masters(job));
    if (values) EQI_RETURN_IF(eqi_block_ap_measure(job));
    eqat_status st = start_linears(job, values);
    eqi_block_ap_drop_moments(job, 0, job->work.n_linears);
    return st;
}
