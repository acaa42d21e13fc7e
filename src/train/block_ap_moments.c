#include "model/weights.h"
#include "train/block_ap.h"
#include "train/report.h"

/* The pass that measures the inputs of a stage's linears. */

/* Memory of theirs fits nothing of what comes next. */
void eqi_block_ap_drop_moments(eqat_block_ap *job, int first, int end)
{
    bool any = false;
    for (int i = first; i < end; i++) {
        eqi_linear *l = &job->work.linears[i];
        any |= l->measures;
        eqi_tensor_unref(l->moments);
        l->moments = NULL;
        l->measures = false;
    }
    if (any) eqi_storage_trim(job->ctx);
}

/* What the start of a linear asks for, in the stage in work. */
static eqat_status asked(const eqat_block_ap *job, const eqi_linear *l, eqi_moments *moments)
{
    eqi_quant quant;
    *moments = EQI_MOMENTS_NONE;
    if (eqi_block_ap_stage_of(job, l) != job->stage) return EQAT_OK;
    EQI_RETURN_IF(eqi_linear_choose(l, job->quantizer, &quant));
    if (quant.kind) *moments = quant.init->moments;
    return EQAT_OK;
}

/* Room for the inputs of linear i, shared with those behind it that ask for the same ones. */
static eqat_status make_moments(eqat_block_ap *job, int i)
{
    eqi_block *b = &job->work;
    eqi_linear *l = &b->linears[i];
    eqi_moments most = EQI_MOMENTS_NONE, each;
    EQI_RETURN_IF(asked(job, l, &each));
    if (l->moments || !each) return EQAT_OK;
    for (int j = i; j < b->n_linears; j++) {
        EQI_RETURN_IF(asked(job, &b->linears[j], &each));
        if (eqi_linear_shares_input(l, &b->linears[j]) && each > most) most = each;
    }
    const int64_t shape[2] = {l->in, l->in};
    EQI_RETURN_IF(
        eqi_tensor_zeros(job->ctx, &l->moments, EQI_F32, most == EQI_MOMENTS_FULL ? 2 : 1, shape));
    l->measures = true;
    for (int j = i + 1; j < b->n_linears; j++) {
        EQI_RETURN_IF(asked(job, &b->linears[j], &each));
        if (each && eqi_linear_shares_input(l, &b->linears[j]))
            b->linears[j].moments = eqi_tensor_ref(l->moments);
    }
    return EQAT_OK;
}

/* Whether the stage in work asks for any. */
static eqat_status asked_at_all(const eqat_block_ap *job, bool *any)
{
    eqi_moments each;
    *any = false;
    for (int i = 0; i < job->work.n_linears && !*any; i++) {
        EQI_RETURN_IF(asked(job, &job->work.linears[i], &each));
        *any = each != EQI_MOMENTS_NONE;
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
    int64_t batch = job->pass;
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
    EQI_RETURN_IF(asked_at_all(job, &any));
    if (!any) return EQAT_OK;
    /* What training of the last block has left fits nothing of the pass, and what the pass leaves
     * nothing of the factors. */
    eqi_storage_trim(job->ctx);
    for (int i = 0; i < job->work.n_linears; i++) EQI_RETURN_IF(make_moments(job, i));
    EQI_RETURN_IF(pass(job));
    eqi_storage_trim(job->ctx);
    for (int i = 0; i < job->work.n_linears; i++)
        if (job->work.linears[i].measures) EQI_RETURN_IF(reduce(job, job->work.linears[i].moments));
    return EQAT_OK;
}

eqat_status eqi_block_ap_measure(eqat_block_ap *job)
{
    const int n = job->work.n_linears;
    eqi_block_ap_drop_moments(job, 0, n);
    eqat_status st = measure(job);
    if (st != EQAT_OK) eqi_block_ap_drop_moments(job, 0, n);
    return st;
}
