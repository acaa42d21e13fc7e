#include <math.h>

#include "base/entry.h"
#include "eqat/tape.h"
#include "train/block_ap.h"
#include "train/optimizer.h"
#include "train/report.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t batches(int64_t samples, int64_t batch) { return (samples + batch - 1) / batch; }

/* Numbers of the samples at [first, first + n) of a pass: in order of the streams (epoch -1), or of
 * a training epoch; valid until the next call. */
static const int64_t *numbers(eqat_block_ap *job, int64_t epoch, int64_t first, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        job->numbers[i] = epoch < 0 ? first + i : eqat_data_order(job->data, epoch, first + i);
    return job->numbers;
}

/* The block in work on the quantized stream, and the targets, for samples [first, first + n) of a
 * pass that ends before `end`. */
static eqat_status forward(eqat_block_ap *job, eqi_tape *tape, int64_t epoch, int64_t first,
                           int64_t n, int64_t end, eqi_tensor **y, eqi_tensor **target)
{
    eqi_tensor *x = NULL;
    eqi_marks marks = {0};
    eqat_status st;
    *y = *target = NULL;
    EQI_GOTO(done, eqi_model_prepare(job->model, job->length));
    const int64_t *now = numbers(job, epoch, first, n);
    EQI_GOTO(done, eqi_streams_fetch(job->streams, EQI_STREAM_QUANTIZED, now, n, &x));
    EQI_GOTO(done, eqi_streams_fetch(job->streams, EQI_STREAM_FULL, now, n, target));
    EQI_GOTO(done, eqi_samples_gather(&job->marks, now, n, &marks));
    int64_t n_next = least(job->options.batch_size, end - first - n);
    const int64_t *next = numbers(job, epoch, first + n, n_next);
    eqi_streams_ahead(job->streams, EQI_STREAM_QUANTIZED, next, n_next);
    eqi_streams_ahead(job->streams, EQI_STREAM_FULL, next, n_next);
    eqi_block_input in = eqi_model_input(job->model, x);
    in.positions = marks.positions;
    in.segments = marks.segments;
    st = eqi_block_forward(tape, &job->work, &in, y);
done:
    eqi_marks_release(&marks);
    eqi_tensor_unref(x);
    if (st != EQAT_OK) {
        eqi_tensor_unref(*target);
        *target = NULL;
    }
    return st;
}

static eqat_status keep_loss(eqat_block_ap *job, int64_t slot, const eqi_tensor *loss)
{
    eqi_tensor *kept;
    EQI_RETURN_IF(eqi_tensor_slice(job->losses, &kept, 0, slot, 1));
    eqat_status st = eqi_tensor_copy(kept, loss);
    eqi_tensor_unref(kept);
    return st;
}

/* No label is masked: every position counts, as it does in other blocks. */
static eqat_status divergence(eqat_block_ap *job, eqi_tensor *y, eqi_tensor *target,
                              eqi_tensor **loss)
{
    eqi_tensor *labels;
    eqi_distill from = {.share = 1};
    EQI_RETURN_IF(eqi_tensor_zeros(job->ctx, &labels, EQI_I32, 2, y->v.shape));
    eqat_status st = eqi_model_final_norm(job->tape, job->model, target, &from.x);
    from.w = job->model->head;
    if (st == EQAT_OK)
        st = eqi_model_head_loss(job->tape, job->model, y, labels, &from, loss, NULL);
    eqi_tensor_unref(from.x);
    eqi_tensor_unref(labels);
    return st;
}

static eqat_status loss_of(eqat_block_ap *job, eqi_tensor *y, eqi_tensor *target, eqi_tensor **loss)
{
    const eqat_block_ap_options *o = &job->options;
    *loss = NULL;
    bool last = job->block == job->model->config.blocks - 1;
    if (!o->loss && last && o->last_loss == EQAT_LAST_LOSS_LOGITS)
        return divergence(job, y, target, loss);
    if (!o->loss) return eqi_op_mse(job->tape, y, target, loss);
    job->ctx->error[0] = 0;
    return eqi_report_loss(job->ctx, o->loss(o->loss_user, job->tape, y, target, loss), loss);
}

/* The loss, also in slot `slot` of the job's losses. */
static eqat_status batch_loss(eqat_block_ap *job, int64_t epoch, int64_t first, int64_t n,
                              int64_t end, int64_t slot, eqi_tensor **loss)
{
    eqi_tensor *y, *target;
    *loss = NULL;
    EQI_RETURN_IF(forward(job, job->tape, epoch, first, n, end, &y, &target));
    eqat_status st = loss_of(job, y, target, loss);
    eqi_tensor_unref(y);
    eqi_tensor_unref(target);
    EQI_RETURN_IF(st);
    st = keep_loss(job, slot, *loss);
    if (st == EQAT_OK) return st;
    eqi_tensor_unref(*loss);
    *loss = NULL;
    return st;
}

eqat_status eqi_block_ap_check_loss(const eqat_block_ap *job, int64_t epoch, int64_t step,
                                    double loss)
{
    if (isfinite(loss)) return EQAT_OK;
    return eqi_fail(job->ctx, EQAT_NUMERIC,
                    "block %lld, step %lld: loss is %s, expected a finite number (epoch %lld)",
                    (long long)job->block, (long long)step, isnan(loss) ? "nan" : "infinite",
                    (long long)epoch);
}

/* Where the gradient norm of a step is kept. */
static int64_t norm_slot(const eqat_block_ap *job, int64_t step)
{
    int64_t batch = job->options.batch_size;
    return batches(job->train, batch) + batches(job->val, batch) + step;
}

static eqat_status update(eqat_block_ap *job, int64_t step, eqi_tensor *loss)
{
    eqat_status st = eqat_optimizer_backward(job->optimizer, job->tape, loss);
    if (st != EQAT_OK) {
        eqat_optimizer_zero_grad(job->optimizer); /* half a gradient */
        job->cut = eqi_optimizer_is_torn(job->optimizer);
        return st;
    }
    return keep_loss(job, norm_slot(job, step), eqi_optimizer_norm(job->optimizer));
}

eqat_status eqi_block_ap_enter_stage(eqat_block_ap *job, int64_t epoch)
{
    int64_t epochs = job->options.epochs, last = eqat_block_ap_stages(job, job->block) - 1;
    int64_t stage = epochs ? least(epoch / epochs, last) : 0;
    if (stage < job->stage)
        return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                        "step: found epoch %lld of stage %lld, which is frozen, expected one of "
                        "stage %lld or later",
                        (long long)epoch, (long long)stage, (long long)job->stage);
    EQI_RETURN_IF(eqi_block_ap_freeze_before(job, stage));
    return eqi_block_ap_begin_stage(job);
}

static eqat_status check_step(eqat_block_ap *job, int64_t epoch, int64_t step)
{
    int64_t steps = eqat_block_ap_steps(job);
    EQI_RETURN_IF(eqi_block_ap_expect_training(job));
    if (epoch >= 0 && step >= 0 && step < steps) return EQAT_OK;
    return eqi_fail(
        job->ctx, EQAT_INVALID_ARGUMENT,
        "step: found epoch %lld, step %lld, expected an epoch from 0 on, a step from 0 to %lld",
        (long long)epoch, (long long)step, (long long)steps - 1);
}

eqat_status eqat_block_ap_forward(eqat_block_ap *job, eqat_tape *tape, int64_t epoch, int64_t step,
                                  eqat_tensor **y, eqat_tensor **target)
{
    if (y) *y = NULL;
    if (target) *target = NULL;
    EQI_ENTER_OF(job);
    EQI_NEED(job->ctx, tape, y, target);
    int64_t batch = job->options.batch_size;
    EQI_RETURN_IF(check_step(job, epoch, step));
    EQI_RETURN_IF(eqi_check_cancel(job->ctx));
    EQI_RETURN_IF(eqi_block_ap_enter_stage(job, epoch));
    return forward(job, tape, epoch, step * batch, least(batch, job->train - step * batch),
                   job->train, y, target);
}

eqat_status eqi_block_ap_take_step(eqat_block_ap *job, int64_t epoch, int64_t step, double *loss)
{
    int64_t batch = job->options.batch_size;
    EQI_RETURN_IF(check_step(job, epoch, step));
    EQI_RETURN_IF(eqi_check_cancel(job->ctx));
    EQI_RETURN_IF(eqi_block_ap_enter_stage(job, epoch));
    eqi_tensor *device_loss;
    float value = 0;
    uint64_t ticket = 0;
    eqi_tape_set_recording(job->tape, true);
    eqat_status st = batch_loss(job, epoch, step * batch, least(batch, job->train - step * batch),
                                job->train, step, &device_loss);
    /* The device has all of the way back to do when its loss is waited for. */
    if (st == EQAT_OK && loss)
        st = eqi_tensor_download_late(device_loss, &value, sizeof value, &ticket);
    if (st == EQAT_OK)
        st = update(job, step, device_loss);
    else
        eqi_tape_clear(job->tape);
    if (st == EQAT_OK) job->taken = epoch * eqat_block_ap_steps(job) + step + 1;
    eqi_tensor_unref(device_loss);
    if (st == EQAT_OK) st = eqi_tensor_arrive(job->ctx, ticket);
    if (st == EQAT_OK && loss) *loss = (double)value;
    return st;
}

eqat_status eqat_block_ap_step(eqat_block_ap *job, int64_t epoch, int64_t step, double *loss)
{
    EQI_ENTER_OF(job);
    EQI_RETURN_IF(eqi_block_ap_take_step(job, epoch, step, loss));
    return loss ? eqi_block_ap_check_loss(job, epoch, step, *loss) : EQAT_OK;
}

/* ---- mean losses ---- */

static eqat_status read_losses(eqat_block_ap *job, int64_t slot, int64_t count, float **values)
{
    size_t n = (size_t)count * sizeof **values;
    *values = eqi_alloc(job->ctx, n, "losses");
    if (!*values) return EQAT_OUT_OF_MEMORY;
    eqi_tensor *used;
    eqat_status st = eqi_tensor_slice(job->losses, &used, 0, slot, count);
    if (st == EQAT_OK) {
        st = eqi_tensor_download(used, *values, n);
        eqi_tensor_unref(used);
    }
    if (st != EQAT_OK) eqi_free(job->ctx, *values);
    return st;
}

static eqat_status check_mean(const eqat_block_ap *job, int64_t epoch, double mean)
{
    if (isfinite(mean)) return EQAT_OK;
    return eqi_fail(job->ctx, EQAT_NUMERIC, "block %lld: %s loss is %s, expected a finite number",
                    (long long)job->block, epoch < 0 ? "validation" : "training",
                    isnan(mean) ? "nan" : "infinite");
}

/* The optimizer has applied none that is not finite. All ranks have the same. */
static eqat_status check_norms(eqat_block_ap *job, int64_t epoch)
{
    int64_t count = eqat_block_ap_steps(job), bad = 0;
    float *norms;
    EQI_RETURN_IF(read_losses(job, norm_slot(job, 0), count, &norms));
    while (bad < count && isfinite(norms[bad])) bad++;
    eqi_free(job->ctx, norms);
    if (bad == count) return EQAT_OK;
    return eqi_fail(
        job->ctx, EQAT_NUMERIC,
        "block %lld, step %lld: found a gradient that is not finite, expected numbers (epoch %lld)",
        (long long)job->block, (long long)bad, (long long)epoch);
}

eqat_status eqi_block_ap_mean_loss(eqat_block_ap *job, int64_t epoch, double *mean)
{
    int64_t n = epoch < 0 ? job->val : job->train, batch = job->options.batch_size;
    int64_t count = batches(n, batch), slot = epoch < 0 ? batches(job->train, batch) : 0;
    double sums[2] = {0, (double)n};
    float *values;
    *mean = NAN;
    EQI_RETURN_IF(read_losses(job, slot, count, &values));
    for (int64_t i = 0; i < count; i++)
        sums[0] += (double)values[i] * (double)least(batch, n - i * batch);
    eqat_status st =
        eqi_report_reduce(job->ctx, job->options.reduce, job->options.reduce_user, sums, 2);
    for (int64_t i = 0; i < count && epoch >= 0 && st == EQAT_OK; i++)
        st = eqi_block_ap_check_loss(job, epoch, i, (double)values[i]);
    eqi_free(job->ctx, values);
    if (st == EQAT_OK && epoch >= 0) st = check_norms(job, epoch);
    if (st != EQAT_OK || !(sums[1] > 0)) return st;
    *mean = sums[0] / sums[1];
    return check_mean(job, epoch, *mean);
}

eqat_status eqat_block_ap_validate(eqat_block_ap *job, double *loss)
{
    EQI_ENTER_OF(job);
    EQI_NEED(job->ctx, loss);
    EQI_RETURN_IF(eqi_block_ap_expect_training(job));
    *loss = NAN;
    int64_t batch = job->options.batch_size, count = batches(job->val, batch);
    int64_t slot = batches(job->train, batch);
    eqi_tape_set_recording(job->tape, false);
    for (int64_t i = 0; i < count; i++) {
        eqi_tensor *device_loss;
        EQI_RETURN_IF(eqi_check_cancel(job->ctx));
        EQI_RETURN_IF(eqi_block_ap_tell(job, "validate", job->block, i, count));
        EQI_RETURN_IF(batch_loss(job, -1, job->train + i * batch,
                                 least(batch, job->val - i * batch), job->train + job->val,
                                 slot + i, &device_loss));
        eqi_tensor_unref(device_loss);
    }
    return eqi_block_ap_mean_loss(job, -1, loss);
}
