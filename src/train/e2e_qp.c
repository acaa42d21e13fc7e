#include <math.h>

#include "autograd/tape.h"
#include "base/entry.h"
#include "data/data.h"
#include "train/e2e_qp.h"
#include "train/optimizer.h"
#include "train/rates.h"
#include "train/report.h"

/* ---- the job ---- */

static eqat_status train(eqat_e2e_qp *job, const eqi_trained *t)
{
    double unit = 1;
    int32_t group;
    if (job->options.lr_unit == EQAT_LR_RELATIVE && t->kind != EQI_TRAINED_ZERO_POINTS)
        EQI_RETURN_IF(eqi_mean_size(t->value, &unit));
    EQI_RETURN_IF(eqat_optimizer_add_group(job->optimizer, job->options.lr * unit, &group));
    return eqat_optimizer_add(job->optimizer, group, t->value);
}

static eqat_status make_optimizer(eqat_e2e_qp *job, int bits)
{
    const eqat_e2e_qp_options *o = &job->options;
    eqat_optimizer_options options;
    eqat_optimizer_options_init(&options, sizeof options);
    options.total_steps = eqat_e2e_qp_steps(job);
    options.warmup_steps = (int64_t)ceil(o->warmup_ratio * (double)options.total_steps);
    options.max_grad_norm = o->max_grad_norm;
    options.min_lr_factor = o->min_lr_factor;
    if (o->lr_unit == EQAT_LR_RELATIVE)
        eqi_rate_warn(job->ctx, "lr", o->lr, eqi_e2e_qp_rate(0, o->lr_unit, bits));
    job->options.lr = eqi_e2e_qp_rate(o->lr, o->lr_unit, bits);
    EQI_RETURN_IF(eqat_optimizer_create(job->ctx, &job->optimizer, &options));
    eqi_optimizer_set_offload(job->optimizer, o->host_state);
    for (size_t i = 0; i < job->count; i++) EQI_RETURN_IF(train(job, &job->trained[i]));
    eqat_optimizer_set_grad_callback(job->optimizer, o->gradient, o->gradient_user);
    return EQAT_OK;
}

static eqat_status set_up(eqat_e2e_qp *job)
{
    const eqat_e2e_qp_options *o = &job->options;
    EQI_RETURN_IF(eqi_model_check_idle(job->model));
    EQI_RETURN_IF(eqi_e2e_qp_check_options(job->model, job->data, o));
    eqi_e2e_qp_size(job);
    const int64_t shape[2] = {eqat_e2e_qp_steps(job), job->micro_per_step};
    EQI_RETURN_IF(eqi_tape_create(job->ctx, &job->tape));
    eqi_tape_set_offload(job->tape, o->host_state);
    job->model->job = EQI_JOB_E2E_QP; /* a job with a tape gives it back */
    EQI_RETURN_IF(eqi_tensor_create(job->ctx, &job->losses, EQI_F32, 2, shape));
    EQI_RETURN_IF(eqi_tensor_fill(job->losses, NAN));
    job->row = eqi_alloc(job->ctx, (size_t)shape[1] * sizeof *job->row, "the losses of a step");
    if (!job->row) return EQAT_OUT_OF_MEMORY;
    job->reports =
        eqi_alloc(job->ctx, (size_t)shape[0] * sizeof *job->reports, "the losses of steps");
    if (!job->reports) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < shape[0]; i++) job->reports[i] = NAN;
    EQI_RETURN_IF(eqi_e2e_qp_make_validation(job, shape[0]));
    EQI_RETURN_IF(eqi_e2e_qp_make_teacher(job)); /* which sets the size of groups */
    EQI_RETURN_IF(eqi_e2e_qp_make_samples(job));
    int bits;
    EQI_RETURN_IF(eqi_e2e_qp_add_trained(job, &bits));
    return make_optimizer(job, bits);
}

eqat_status eqat_e2e_qp_create(eqat_model *model, eqat_e2e_qp **out, eqat_data *data,
                               const eqat_e2e_qp_options *options)
{
    if (out) *out = NULL;
    EQI_ENTER_OF(model);
    EQI_NEED(model->ctx, out, data);
    eqi_ctx *ctx = model->ctx;
    eqat_e2e_qp_options checked;
    EQI_RETURN_IF(eqi_options_take(ctx, &eqi_struct_e2e_qp, &checked, options));
    eqat_e2e_qp *job = eqi_calloc(ctx, 1, sizeof *job, "an E2E-QP job");
    if (!job) return EQAT_OUT_OF_MEMORY;
    job->ctx = eqi_ctx_ref(ctx);
    job->model = eqi_model_ref(model);
    job->data = eqi_data_ref(data);
    job->options = checked;
    eqat_status st = set_up(job);
    if (st == EQAT_OK)
        *out = job;
    else
        eqat_e2e_qp_free(job);
    return st;
}

static void unref(void *handle)
{
    eqat_e2e_qp *job = handle;
    eqi_ctx *ctx = job->ctx;
    if (!job->finished && job->tape) eqi_e2e_qp_undo_trained(job);
    eqi_tape_free(job->tape);
    eqi_tensor_unref(job->losses);
    eqi_free(ctx, job->trained);
    eqi_free(ctx, job->row);
    eqi_samples_release(&job->input);
    eqi_e2e_qp_drop_teacher(job);
    eqi_free(ctx, job->numbers);
    eqi_free(ctx, job->labels);
    eqi_free(ctx, job->shares);
    eqi_free(ctx, job->reports);
    eqi_free(ctx, job->validations);
    eqat_data_free(job->data);
    eqat_model_free(job->model);
    eqi_free(ctx, job);
    eqi_storage_trim(ctx);
    eqi_ctx_unref(ctx);
}

void eqat_e2e_qp_free(eqat_e2e_qp *job)
{
    if (job) eqi_handle_free(job->ctx, &job->handle, unref, job);
}

eqat_optimizer *eqat_e2e_qp_optimizer(eqat_e2e_qp *job)
{
    if (!job) return NULL;
    return job->optimizer;
}

/* ---- steps ---- */

eqat_status eqi_e2e_qp_check_step(const eqat_e2e_qp *job, int64_t step)
{
    if (job->finished)
        return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                        "E2E-QP: found it finished, expected a new job");
    if (step >= 0 && step < eqat_e2e_qp_steps(job)) return EQAT_OK;
    return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT, "step: found %lld, expected 0 to %lld",
                    (long long)step, (long long)eqat_e2e_qp_steps(job) - 1);
}

/* 0 of no labels. */
static double mean(double sum, double labels) { return labels > 0 ? sum / labels : sum; }

static eqat_status distilled_loss(eqat_e2e_qp *job, const eqi_group *group, const eqat_batch *batch,
                                  eqi_tensor **loss)
{
    eqi_distill from;
    EQI_RETURN_IF(eqi_e2e_qp_lesson(job, group, &from));
    eqat_status st = eqi_model_loss(job->tape, job->model, batch, &from, loss);
    eqi_tensor_unref(from.x);
    return st;
}

static eqat_status loss_of(eqat_e2e_qp *job, const eqi_group *group, const eqat_batch *batch,
                           eqi_tensor **loss)
{
    const eqat_e2e_qp_options *o = &job->options;
    eqi_tensor *logits;
    *loss = NULL;
    if (job->teacher) return distilled_loss(job, group, batch, loss);
    if (!o->loss) return eqi_model_loss(job->tape, job->model, batch, NULL, loss);
    EQI_RETURN_IF(eqat_model_forward(job->model, job->tape, batch, &logits));
    job->ctx->error[0] = 0;
    eqat_status st = o->loss(o->loss_user, job->tape, logits, batch, loss);
    eqi_tensor_unref(logits);
    return eqi_report_loss(job->ctx, st, loss);
}

eqat_status eqi_e2e_qp_forward(eqat_e2e_qp *job, const eqi_group *group, eqi_tensor **loss)
{
    const int64_t *numbers = job->numbers + group->at;
    for (int64_t i = 0; i < group->n; i++) {
        const eqat_sample sample = eqi_samples_at(&job->input, i);
        EQI_RETURN_IF(eqat_data_sample(job->data, job->validating, numbers[i], &sample));
    }
    eqat_batch batch;
    EQI_RETURN_IF(eqi_samples_batch(&job->input, group->n, job->model, &batch));
    batch.keep_activations = job->options.keep_activations;
    eqat_status st = loss_of(job, group, &batch, loss);
    eqi_tensor_unref(batch.embeddings);
    return st;
}

static eqat_status forward(eqat_e2e_qp *job, int64_t step, int64_t micro, eqi_tensor **loss)
{
    const eqi_group group = eqi_e2e_qp_group(job, step, micro);
    return eqi_e2e_qp_forward(job, &group, loss);
}

static eqat_status keep_loss(eqat_e2e_qp *job, int64_t step, int64_t micro, eqi_tensor *loss)
{
    const int64_t count = eqi_view_count(&job->losses->v);
    eqi_tensor *flat, *slot = NULL;
    EQI_RETURN_IF(eqi_tensor_reshape(job->losses, &flat, 1, &count));
    eqat_status st = eqi_tensor_slice(flat, &slot, 0, step * job->micro_per_step + micro, 1);
    if (st == EQAT_OK) st = eqi_tensor_copy(slot, loss);
    eqi_tensor_unref(slot);
    eqi_tensor_unref(flat);
    return st;
}

void eqi_e2e_qp_drop_gradients(eqat_e2e_qp *job)
{
    for (size_t i = 0; i < job->count; i++) eqi_tensor_zero_grad(job->trained[i].value);
}

eqat_status eqi_e2e_qp_check_loss(const eqat_e2e_qp *job, int64_t step, double loss)
{
    if (isfinite(loss)) return EQAT_OK;
    return eqi_fail(job->ctx, EQAT_NUMERIC, "step %lld: loss is %s, expected a finite number",
                    (long long)step, isnan(loss) ? "nan" : "infinite");
}

static eqat_status ask_row(eqat_e2e_qp *job, int64_t step)
{
    eqi_tensor *row;
    EQI_RETURN_IF(eqi_tensor_slice(job->losses, &row, 0, step, 1));
    eqat_status st = eqi_tensor_download_late(
        row, job->row, (size_t)job->micro_per_step * sizeof *job->row, &job->ticket);
    eqi_tensor_unref(row);
    return st;
}

/* loss NULL: with the last micro-batch of its step it is asked for all their losses. */
static eqat_status accumulate(eqat_e2e_qp *job, int64_t step, int64_t micro, float *loss,
                              uint64_t *ticket)
{
    eqi_tensor *device_loss = NULL;
    eqat_status st;
    EQI_GOTO(done, eqi_check_cancel(job->ctx));
    EQI_GOTO(done, forward(job, step, micro, &device_loss));
    EQI_GOTO(done, keep_loss(job, step, micro, device_loss));
    if (loss)
        EQI_GOTO(done, eqi_tensor_download_late(device_loss, loss, sizeof *loss, ticket));
    else if (micro == eqat_e2e_qp_micro_steps(job, step) - 1)
        EQI_GOTO(done, ask_row(job, step));
    double all = job->shares ? job->shares[step] : (double)eqi_e2e_qp_labels_of_step(job, step);
    double weight = mean((double)eqi_e2e_qp_labels_of(job, step, micro), all);
    EQI_GOTO(done, eqi_tape_backward(job->tape, device_loss, weight));
    if (loss) EQI_GOTO(done, eqi_tensor_arrive(job->ctx, *ticket));
done:
    eqi_tensor_unref(device_loss);
    if (st == EQAT_OK) return EQAT_OK;
    eqi_tape_clear(job->tape);
    eqi_e2e_qp_drop_gradients(job);
    return st;
}

eqat_status eqi_e2e_qp_accumulate(eqat_e2e_qp *job, int64_t step, int64_t micro)
{
    return accumulate(job, step, micro, NULL, NULL);
}

eqat_status eqat_e2e_qp_accumulate(eqat_e2e_qp *job, int64_t step, int64_t micro, double *loss)
{
    EQI_ENTER_OF(job);
    EQI_RETURN_IF(eqi_e2e_qp_check_step(job, step));
    if (micro < 0 || micro >= eqat_e2e_qp_micro_steps(job, step))
        return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                        "micro-batch: found %lld, expected 0 to %lld", (long long)micro,
                        (long long)eqat_e2e_qp_micro_steps(job, step) - 1);
    float value = 0;
    uint64_t ticket;
    EQI_RETURN_IF(accumulate(job, step, micro, loss ? &value : NULL, &ticket));
    if (!loss) return EQAT_OK;
    *loss = (double)value;
    return eqi_e2e_qp_check_loss(job, step, *loss);
}

eqat_status eqat_e2e_qp_step(eqat_e2e_qp *job)
{
    EQI_ENTER_OF(job);
    if (job->finished) return eqi_e2e_qp_check_step(job, 0);
    return eqat_optimizer_step(job->optimizer, 1);
}

/* Over the labels of a step, of the losses of its micro-batches. */
static double sum_of(const eqat_e2e_qp *job, int64_t step, const float *values)
{
    int64_t micros = eqat_e2e_qp_micro_steps(job, step);
    double sum = 0;
    for (int64_t i = 0; i < micros; i++)
        sum += (double)values[i] * (double)eqi_e2e_qp_labels_of(job, step, i);
    return sum;
}

/* Sum over the labels of a step that was taken. */
static eqat_status step_sum(const eqat_e2e_qp *job, int64_t step, double *sum)
{
    size_t n = (size_t)job->micro_per_step * sizeof(float);
    float *values = eqi_alloc(job->ctx, n, "losses");
    if (!values) return EQAT_OUT_OF_MEMORY;
    eqi_tensor *row;
    eqat_status st = eqi_tensor_slice(job->losses, &row, 0, step, 1);
    if (st == EQAT_OK) {
        st = eqi_tensor_download(row, values, n);
        eqi_tensor_unref(row);
    }
    if (st == EQAT_OK) *sum = sum_of(job, step, values);
    eqi_free(job->ctx, values);
    return st;
}

eqat_status eqi_e2e_qp_report_loss(eqat_e2e_qp *job, int64_t step)
{
    EQI_RETURN_IF(eqi_tensor_arrive(job->ctx, job->ticket));
    double sums[2] = {sum_of(job, step, job->row), (double)eqi_e2e_qp_labels_of_step(job, step)};
    EQI_RETURN_IF(
        eqi_report_reduce(job->ctx, job->options.reduce, job->options.reduce_user, sums, 2));
    job->reports[step] = mean(sums[0], sums[1]);
    return eqi_e2e_qp_check_loss(job, step, job->reports[step]);
}

double eqat_e2e_qp_loss(const eqat_e2e_qp *job, int64_t step)
{
    if (!job) return (double)NAN;
    EQI_FPENV_GUARD();
    double sum;
    if (step < 0 || step >= eqat_e2e_qp_steps(job)) return NAN;
    if (!isnan(job->reports[step])) return job->reports[step];
    if (step_sum(job, step, &sum) != EQAT_OK) return NAN;
    return mean(sum, (double)eqi_e2e_qp_labels_of_step(job, step));
}

/* Rounding twice changes nothing, so what was cancelled half-way can go on. */
static eqat_status freeze(eqat_e2e_qp *job)
{
    int64_t steps = eqat_e2e_qp_steps(job), count = (int64_t)job->count;
    for (int64_t i = 0; i < count; i++) {
        EQI_RETURN_IF(eqi_e2e_qp_tell(job, "freeze", steps, i, count));
        EQI_RETURN_IF(eqi_e2e_qp_round(&job->trained[i]));
    }
    return EQAT_OK;
}

eqat_status eqat_e2e_qp_finish(eqat_e2e_qp *job)
{
    EQI_ENTER_OF(job);
    EQI_RETURN_IF(eqi_e2e_qp_check_step(job, 0));
    EQI_RETURN_IF(freeze(job));
    EQI_RETURN_IF(eqi_e2e_qp_tell_unchanged(job));
    eqi_e2e_qp_keep_trained(job);
    job->finished = true;
    return EQAT_OK;
}
