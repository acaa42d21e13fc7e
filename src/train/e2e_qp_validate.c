#include <math.h>

#include "base/entry.h"
#include "data/data.h"
#include "train/e2e_qp.h"
#include "train/report.h"

/* Validation of what would be stored: values are rounded for its time. */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- values as they are stored ---- */

static eqat_status round_all(eqat_e2e_qp *job)
{
    for (size_t i = 0; i < job->count; i++) {
        eqi_trained *t = &job->trained[i];
        EQI_RETURN_IF(eqi_e2e_qp_copy(job, t->value, &t->held));
        EQI_RETURN_IF(eqi_e2e_qp_round(t));
    }
    return EQAT_OK;
}

static void bring_back(eqat_e2e_qp *job)
{
    for (size_t i = 0; i < job->count; i++) {
        eqi_trained *t = &job->trained[i];
        if (!t->held) continue;
        (void)eqi_tensor_copy(t->value, t->held); /* bytes alone: nothing to fail */
        eqi_tensor_unref(t->held);
        t->held = NULL;
    }
}

/* ---- the mean loss ---- */

/* A validation in work: the losses of its batches stay on the device until the last one is there.
 */
typedef struct pass {
    eqi_tensor *losses; /* F32 [batches] */
    float *values;      /* [batches] of these */
    double *labels;     /* [batches] */
    int64_t batch, batches;
} pass;

static eqat_status keep_loss(const pass *p, int64_t i, const eqi_tensor *loss)
{
    eqi_tensor *slot;
    EQI_RETURN_IF(eqi_tensor_slice(p->losses, &slot, 0, i, 1));
    eqat_status st = eqi_tensor_copy(slot, loss);
    eqi_tensor_unref(slot);
    return st;
}

/* Batch i. */
static eqat_status take_batch(eqat_e2e_qp *job, pass *p, int64_t i)
{
    int64_t first = i * p->batch, n = least(p->batch, job->val - first), labels = 0;
    const eqi_group group = eqi_e2e_qp_validation_group(job, first, n);
    eqi_tensor *loss = NULL;
    eqat_status st = eqi_e2e_qp_forward(job, &group, &loss);
    if (st == EQAT_OK) st = keep_loss(p, i, loss);
    eqi_tensor_unref(loss);
    for (int64_t k = 0; k < n && st == EQAT_OK; k++) labels += eqi_samples_labels(&job->input, k);
    p->labels[i] = (double)labels;
    return st;
}

/* Sum over the labels of all validation samples, and how many these are. */
static eqat_status add_up(const pass *p, double sums[2])
{
    EQI_RETURN_IF(
        eqi_tensor_download(p->losses, p->values, (size_t)p->batches * sizeof *p->values));
    for (int64_t i = 0; i < p->batches; i++) {
        if (p->labels[i] > 0) sums[0] += (double)p->values[i] * p->labels[i];
        sums[1] += p->labels[i];
    }
    return EQAT_OK;
}

static eqat_status add_all(eqat_e2e_qp *job, double sums[2])
{
    int64_t batch = least(job->options.micro_batch_size, job->sequences);
    int64_t done = eqat_optimizer_steps(job->optimizer);
    pass p = {.batch = batch, .batches = (job->val + batch - 1) / batch};
    eqat_status st = EQAT_OUT_OF_MEMORY;
    p.labels = eqi_alloc(job->ctx, (size_t)p.batches * sizeof *p.labels, "numbers of labels");
    p.values =
        p.labels ? eqi_alloc(job->ctx, (size_t)p.batches * sizeof *p.values, "losses") : NULL;
    if (!p.values) goto done;
    EQI_GOTO(done, eqi_tensor_create(job->ctx, &p.losses, EQI_F32, 1, &p.batches));
    for (int64_t i = 0; i < p.batches; i++) {
        EQI_GOTO(done, eqi_check_cancel(job->ctx));
        EQI_GOTO(done, eqi_e2e_qp_tell(job, "validate", done, i, p.batches));
        EQI_GOTO(done, take_batch(job, &p, i));
    }
    st = add_up(&p, sums);
done:
    eqi_tensor_unref(p.losses);
    eqi_free(job->ctx, p.labels);
    eqi_free(job->ctx, p.values);
    return st;
}

static eqat_status mean_loss(eqat_e2e_qp *job, double *loss)
{
    const eqat_e2e_qp_options *o = &job->options;
    double sums[2] = {0};
    job->validating = true;
    eqi_tape_set_recording(job->tape, false);
    eqat_status st = add_all(job, sums);
    eqi_tape_set_recording(job->tape, true);
    job->validating = false;
    EQI_RETURN_IF(st);
    EQI_RETURN_IF(eqi_report_reduce(job->ctx, o->reduce, o->reduce_user, sums, 2));
    double mean = sums[1] > 0 ? sums[0] / sums[1] : NAN;
    if (sums[1] > 0 && !isfinite(mean))
        return eqi_fail(job->ctx, EQAT_NUMERIC, "validation loss is %s, expected a finite number",
                        isnan(mean) ? "nan" : "infinite");
    *loss = mean;
    return EQAT_OK;
}

/* Behind so many steps, which may then be the best so far; -1: nobody asks. */
static eqat_status judge(eqat_e2e_qp *job, int64_t steps, double *loss)
{
    eqat_status st = round_all(job);
    if (st == EQAT_OK) st = mean_loss(job, loss);
    if (st == EQAT_OK && steps >= 0) st = eqi_e2e_qp_note(job, steps, *loss);
    bring_back(job);
    return st;
}

eqat_status eqat_e2e_qp_validate(eqat_e2e_qp *job, double *loss)
{
    EQI_ENTER_OF(job);
    EQI_NEED(job->ctx, loss);
    *loss = NAN;
    EQI_RETURN_IF(eqi_e2e_qp_check_step(job, 0));
    return job->val ? judge(job, -1, loss) : EQAT_OK;
}

/* ---- of a run ---- */

eqat_status eqi_e2e_qp_measure_start(eqat_e2e_qp *job)
{
    bool matters = job->val && job->options.keep != EQAT_KEEP_LAST;
    bool begun = eqat_optimizer_steps(job->optimizer) > 0;
    if (!matters || begun || !isnan(job->start_loss)) return EQAT_OK;
    return judge(job, -1, &job->start_loss);
}

static bool is_due(const eqat_e2e_qp *job, int64_t step)
{
    int64_t every = job->options.validate_steps, done = step + 1;
    if (!job->val || step < 0) return false;
    return done % job->steps_per_epoch == 0 || (every && done % every == 0);
}

eqat_status eqi_e2e_qp_measure(eqat_e2e_qp *job, int64_t step)
{
    if (!is_due(job, step) || !isnan(job->validations[step])) return EQAT_OK;
    return judge(job, step + 1, &job->validations[step]);
}

double eqat_e2e_qp_val_loss(const eqat_e2e_qp *job, int64_t step)
{
    if (!job || step < 0 || step >= eqat_e2e_qp_steps(job)) return (double)NAN;
    return job->validations[step];
}
