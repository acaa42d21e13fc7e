#include "model/weights.h"
#include "train/block_ap.h"
#include "train/report.h"

/* The pass that measures the inputs of a stage's linears. */

void eqi_block_ap_drop_moments(eqat_block_ap *job)
{
    for (int i = 0; i < job->work.n_linears; i++) {
        eqi_linear *l = &job->work.linears[i];
        eqi_tensor_unref(l->moments);
        l->moments = NULL;
    }
}

/* Room, and whether there is anything to measure. */
static eqat_status make_moments(eqat_block_ap *job, bool *any)
{
    *any = false;
    for (int i = 0; i < job->work.n_linears; i++) {
        eqi_linear *l = &job->work.linears[i];
        eqi_quant quant;
        if (eqi_block_ap_stage_of(job, l) != job->stage) continue;
        EQI_RETURN_IF(eqi_linear_choose(l, job->quantizer, &quant));
        if (!quant.kind || !quant.init->moments) continue;
        /* What training of the last block has left fits none of what comes now. */
        if (!*any) eqi_storage_trim(job->ctx);
        const int64_t shape[2] = {l->in, l->in};
        int ndim = quant.init->moments == EQI_MOMENTS_FULL ? 2 : 1;
        EQI_RETURN_IF(eqi_tensor_zeros(job->ctx, &l->moments, EQI_F32, ndim, shape));
        *any = true;
    }
    return EQAT_OK;
}

/* Samples [first, first + n). */
static eqat_status pass_batch(eqat_block_ap *job, int64_t first, int64_t n)
{
    eqi_tensor *x = NULL, *y = NULL;
    eqi_marks marks = {0};
    eqat_status st;
    for (int64_t i = 0; i < n; i++) job->numbers[i] = first + i;
    EQI_RETURN_IF(eqi_check_cancel(job->ctx));
    EQI_RETURN_IF(eqi_block_ap_between(job, "moments", job->block, first, job->train));
    EQI_GOTO(done, eqi_streams_fetch(job->streams, EQI_STREAM_QUANTIZED, job->numbers, n, &x));
    EQI_GOTO(done, eqi_samples_gather(&job->marks, job->numbers, n, &marks));
    eqi_block_input in = eqi_model_input(job->model, x);
    in.positions = marks.positions;
    in.segments = marks.segments;
    st = eqi_block_forward(job->tape, &job->work, &in, &y);
done:
    eqi_marks_release(&marks);
    eqi_tensor_unref(x);
    eqi_tensor_unref(y);
    return st;
}

static eqat_status pass(eqat_block_ap *job)
{
    int64_t batch = job->options.batch_size;
    EQI_RETURN_IF(eqi_model_prepare(job->model, job->length));
    eqi_tape_set_recording(job->tape, false);
    for (int64_t first = 0; first < job->train; first += batch)
        EQI_RETURN_IF(
            pass_batch(job, first, job->train - first < batch ? job->train - first : batch));
    return EQAT_OK;
}

/* Sums over all ranks. */
static eqat_status reduce(eqat_block_ap *job, eqi_tensor *moments)
{
    const eqat_block_ap_options *o = &job->options;
    size_t n = (size_t)eqi_view_count(&moments->v);
    if (!o->reduce) return EQAT_OK;
    double *sums = eqi_alloc(job->ctx, n * sizeof *sums, "second moments");
    if (!sums) return EQAT_OUT_OF_MEMORY;
    float *values = (float *)sums;
    eqat_status st = eqi_tensor_download(moments, values, n * sizeof *values);
    for (size_t i = n; i-- > 0 && st == EQAT_OK;) sums[i] = (double)values[i];
    if (st == EQAT_OK) st = eqi_report_reduce(job->ctx, o->reduce, o->reduce_user, sums, n);
    for (size_t i = 0; i < n && st == EQAT_OK; i++) values[i] = (float)sums[i];
    if (st == EQAT_OK) st = eqi_tensor_upload(moments, values, n * sizeof *values);
    eqi_free(job->ctx, sums);
    return st;
}

static eqat_status measure(eqat_block_ap *job)
{
    bool any;
    EQI_RETURN_IF(make_moments(job, &any));
    if (!any) return EQAT_OK;
    EQI_RETURN_IF(pass(job));
    for (int i = 0; i < job->work.n_linears; i++)
        if (job->work.linears[i].moments) EQI_RETURN_IF(reduce(job, job->work.linears[i].moments));
    return EQAT_OK;
}

eqat_status eqi_block_ap_measure(eqat_block_ap *job)
{
    eqi_block_ap_drop_moments(job);
    eqat_status st = measure(job);
    if (st != EQAT_OK) eqi_block_ap_drop_moments(job);
    return st;
}
