#include "api/options.h"
#include "eqat/eval.h"
#include "tensor/tensor.h"
#include "train/report.h"

eqat_status eqi_report_loss(eqi_ctx *ctx, eqat_status st, eqat_tensor **loss)
{
    if (st == EQAT_OK && *loss && (*loss)->v.dtype == EQI_F32 && eqi_view_count(&(*loss)->v) == 1)
        return EQAT_OK;
    eqi_tensor_unref(*loss);
    *loss = NULL;
    EQI_RETURN_IF(eqi_report_callback(ctx, "loss callback", st));
    return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                    "loss callback: found something else, expected one f32");
}

/* What jobs and evaluation report, by name. */

static const eqat_field progress_fields[] = {
    EQI_FIELD_PLAIN(eqat_progress, phase, EQAT_FIELD_STRING, "block-ap, e2e-qp, eval, rtn or save"),
    EQI_FIELD_PLAIN(eqat_progress, block, EQAT_FIELD_I64, "in work"),
    EQI_FIELD_PLAIN(eqat_progress, blocks, EQAT_FIELD_I64, "in all"),
    EQI_FIELD_PLAIN(eqat_progress, epoch, EQAT_FIELD_I64, "in work"),
    EQI_FIELD_PLAIN(eqat_progress, epochs, EQAT_FIELD_I64, "in all"),
    EQI_FIELD_PLAIN(eqat_progress, step, EQAT_FIELD_I64, "done so far"),
    EQI_FIELD_PLAIN(eqat_progress, steps, EQAT_FIELD_I64, "in all"),
    EQI_FIELD_PLAIN(eqat_progress, loss, EQAT_FIELD_F64, "of this step; NaN: none"),
    EQI_FIELD_PLAIN(eqat_progress, val_loss, EQAT_FIELD_F64,
                    "of a validation behind this step; else NaN"),
    EQI_FIELD_PLAIN(eqat_progress, lr, EQAT_FIELD_F64, "rate of this step"),
    EQI_FIELD_PLAIN(eqat_progress, grad_norm, EQAT_FIELD_F64, "of E2E-QP; else NaN"),
    EQI_FIELD_PLAIN(eqat_progress, work, EQAT_FIELD_STRING, "step, or what comes between steps"),
    EQI_FIELD_PLAIN(eqat_progress, batch, EQAT_FIELD_I64,
                    "of that work, done so far; of load and start linears"),
    EQI_FIELD_PLAIN(eqat_progress, batches, EQAT_FIELD_I64, "in all; 0: a step"),
};

const eqi_struct eqi_struct_progress = EQI_STRUCT(eqat_progress, "progress", progress_fields);

static const eqat_field epoch_fields[] = {
    EQI_FIELD_PLAIN(eqat_epoch_report, train_loss, EQAT_FIELD_F64, "mean over training samples"),
    EQI_FIELD_PLAIN(eqat_epoch_report, val_loss, EQAT_FIELD_F64,
                    "mean over validation samples; NaN: none"),
};

const eqi_struct eqi_struct_epoch_report =
    EQI_STRUCT(eqat_epoch_report, "epoch_report", epoch_fields);

static const eqat_field stage_fields[] = {
    EQI_FIELD_PLAIN(eqat_stage_report, start_loss, EQAT_FIELD_F64,
                    "validation loss before the first step; NaN: not measured"),
    EQI_FIELD_PLAIN(eqat_stage_report, val_loss, EQAT_FIELD_F64,
                    "validation loss of the state that is kept; NaN: none"),
    EQI_FIELD_PLAIN(eqat_stage_report, epoch, EQAT_FIELD_I64, "of that state; -1: the start"),
    EQI_FIELD_PLAIN(eqat_stage_report, retries, EQAT_FIELD_I64, "at half the rates each"),
    EQI_FIELD_PLAIN(eqat_stage_report, step, EQAT_FIELD_I64,
                    "steps behind which that state was; 0: the start"),
};

const eqi_struct eqi_struct_stage_report =
    EQI_STRUCT(eqat_stage_report, "stage_report", stage_fields);

static const eqat_field perplexity_fields[] = {
    EQI_FIELD_PLAIN(eqat_perplexity, perplexity, EQAT_FIELD_F64, "exp(nll / tokens)"),
    EQI_FIELD_PLAIN(eqat_perplexity, nll, EQAT_FIELD_F64, "sum of -ln p"),
    EQI_FIELD_PLAIN(eqat_perplexity, tokens, EQAT_FIELD_I64, "predicted tokens"),
    EQI_FIELD_PLAIN(eqat_perplexity, windows, EQAT_FIELD_I64, "windows or records"),
};

const eqi_struct eqi_struct_perplexity =
    EQI_STRUCT(eqat_perplexity, "perplexity", perplexity_fields);
