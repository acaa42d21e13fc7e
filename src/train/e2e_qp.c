#include <math.h>

#include "autograd/tape.h"
#include "base/entry.h"
#include "data/data.h"
#include "model/weights.h"
#include "quant/freeze.h"
#include "train/e2e_qp.h"
#include "train/rates.h"
#include "train/report.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t pieces(int64_t n, int64_t size) { return (n + size - 1) / size; }

/* ---- what trains ---- */

static eqat_status add(eqat_e2e_qp *job, eqi_trained t)
{
    if (job->count == job->capacity) {
        size_t capacity = job->capacity ? 2 * job->capacity : 64;
        eqi_trained *grown = eqi_realloc(job->ctx, job->trained, capacity * sizeof *grown,
                                         "the list of what trains");
        if (!grown) return EQAT_OUT_OF_MEMORY;
        job->trained = grown;
        job->capacity = capacity;
    }
    eqi_tensor *other;
    if (t.kind == EQI_TRAINED_SCALES)
        EQI_RETURN_IF(eqi_quant_round_s(*t.place)); /* training starts from what a file holds */
    EQI_RETURN_IF(
        eqi_tensor_cast(*t.place, t.kind == EQI_TRAINED_SCALES ? EQI_F16 : EQI_F32, &other));
    if (t.kind == EQI_TRAINED_ZERO_POINTS) {
        t.before = *t.place;
        *t.place = t.value = other;
    } else {
        t.before = other;
        t.value = *t.place;
    }
    t.was_trainable = t.value->requires_grad;
    t.value->requires_grad = true;
    job->trained[job->count++] = t;
    return EQAT_OK;
}

static eqat_status add_linear(eqat_e2e_qp *job, eqi_weight *w, int *bits)
{
    int32_t params = job->options.params;
    if (!w->codes) return EQAT_OK;
    if (w->q.bits < *bits) *bits = w->q.bits;
    if (params != EQAT_E2E_Z)
        EQI_RETURN_IF(add(job, (eqi_trained){.kind = EQI_TRAINED_SCALES, .place = &w->s}));
    if (params == EQAT_E2E_S) return EQAT_OK;
    return add(job,
               (eqi_trained){.kind = EQI_TRAINED_ZERO_POINTS, .place = &w->z, .bits = w->q.bits});
}

/* What trains must not be dropped with its block: codes stay anyway, trained gains are kept. */
static eqat_status add_block(eqat_e2e_qp *job, int64_t index, int *bits)
{
    eqat_model *m = job->model;
    eqi_block *b = &m->blocks[index];
    const eqi_block *read;
    EQI_RETURN_IF(eqi_block_acquire(m, index, &read));
    eqat_status st = EQAT_OK;
    for (int i = 0; i < b->n_linears; i++)
        EQI_GOTO(done, add_linear(job, &b->linears[i].weight, bits));
    if (!job->options.train_norms) goto done;
    EQI_GOTO(done, eqi_block_keep(m, index, m->compute, &b));
    for (int i = 0; i < b->n_norms; i++) {
        eqi_norm *n = &b->norms[i];
        EQI_GOTO(
            done,
            add(job,
                (eqi_trained){.kind = EQI_TRAINED_GAIN, .place = &n->gain, .stored = n->stored}));
    }
done:
    eqi_block_release(m, index);
    return st;
}

static eqat_status add_all(eqat_e2e_qp *job, int *bits)
{
    eqat_model *m = job->model;
    const int none = 9;
    *bits = none;
    int64_t blocks = m->config.blocks, parts = blocks + 1;
    for (int64_t i = 0; i < blocks; i++) {
        EQI_RETURN_IF(eqi_e2e_qp_tell(job, "load", 0, i, parts));
        EQI_RETURN_IF(add_block(job, i, bits));
    }
    if (*bits == none) return eqi_e2e_qp_refuse_dense(m);
    EQI_RETURN_IF(eqi_e2e_qp_tell(job, "load", 0, blocks, parts));
    EQI_RETURN_IF(eqi_model_load_ends(m));
    if (!job->options.train_norms) return EQAT_OK;
    return add(job,
               (eqi_trained){.kind = EQI_TRAINED_GAIN,
                             .place = &m->final_norm.gain,
                             .stored = m->final_norm.stored});
}

/* The values before training. */
static void undo(eqi_trained *t)
{
    if (t->kind == EQI_TRAINED_ZERO_POINTS) {
        *t->place = t->before;
        eqi_tensor_unref(t->value);
    } else {
        (void)eqi_tensor_copy(t->value,
                              t->before); /* within one device, same shape: nothing to fail */
        eqi_tensor_unref(t->before);
    }
}

eqat_status eqi_e2e_qp_round(eqi_trained *t)
{
    if (t->kind == EQI_TRAINED_SCALES) return eqi_quant_round_s(t->value);
    if (t->kind == EQI_TRAINED_GAIN) return eqi_round_kept(t->value, t->stored);
    eqi_tensor *rounded;
    EQI_RETURN_IF(eqi_quant_round_z(t->value, t->bits, &rounded));
    eqat_status st = eqi_tensor_copy(t->value, rounded);
    eqi_tensor_unref(rounded);
    return st;
}

/* Zero points go back into the model's own tensor. */
static void keep(eqi_trained *t)
{
    if (t->kind == EQI_TRAINED_ZERO_POINTS) {
        (void)eqi_tensor_copy(t->before, t->value);
        *t->place = t->before;
        eqi_tensor_unref(t->value);
    } else {
        eqi_tensor_unref(t->before);
    }
}

static void end_training(eqat_e2e_qp *job, void (*end)(eqi_trained *))
{
    eqi_tape_clear(job->tape);
    for (size_t i = 0; i < job->count; i++) {
        eqi_trained *t = &job->trained[i];
        eqi_tensor_zero_grad(t->value);
        t->value->requires_grad = t->was_trainable;
        eqi_tensor_unref(t->good);
        eqi_tensor_unref(t->best);
        t->good = t->best = NULL;
        end(t);
    }
    job->count = 0;
    job->model->job = EQI_JOB_NONE;
    eqat_optimizer_free(job->optimizer);
    job->optimizer = NULL;
}

/* ---- the samples and labels of a step ---- */

/* Sequences of an optimizer step, and of one of its micro-batches. */
static int64_t step_size(const eqat_e2e_qp *job, int64_t step)
{
    int64_t first = step % job->steps_per_epoch * job->options.batch_size;
    return least(job->options.batch_size, job->sequences - first);
}

static int64_t micro_size(const eqat_e2e_qp *job, int64_t step, int64_t micro)
{
    int64_t size = job->options.micro_batch_size;
    return least(size, step_size(job, step) - micro * size);
}

int64_t eqat_e2e_qp_micro_steps(const eqat_e2e_qp *job, int64_t step)
{
    if (!job) return 0;
    if (step < 0 || step >= eqat_e2e_qp_steps(job)) return 0;
    return pieces(step_size(job, step), job->options.micro_batch_size);
}

/* Place of micro-batch `micro` in its epoch. */
static int64_t micro_first(const eqat_e2e_qp *job, int64_t step, int64_t micro)
{
    return step % job->steps_per_epoch * job->options.batch_size +
        micro * job->options.micro_batch_size;
}

static int64_t sequence_at(const eqat_e2e_qp *job, int64_t step, int64_t place)
{
    return eqat_data_order(job->data, step / job->steps_per_epoch, place);
}

static int64_t labels_of(const eqat_e2e_qp *job, int64_t step, int64_t micro)
{
    int64_t n = micro_size(job, step, micro), first = micro_first(job, step, micro), sum = 0;
    if (!job->labels) return n * (job->time - 1);
    for (int64_t i = 0; i < n; i++) sum += job->labels[sequence_at(job, step, first + i)];
    return sum;
}

static int64_t labels_of_step(const eqat_e2e_qp *job, int64_t step)
{
    int64_t sum = 0, micros = eqat_e2e_qp_micro_steps(job, step);
    for (int64_t i = 0; i < micros; i++) sum += labels_of(job, step, i);
    return sum;
}

/* Sequences with masked labels or several segments weigh what they have; a step must know the sum
 * before its first backward. */
static eqat_status count_labels(eqat_e2e_qp *job)
{
    const eqat_sample sample = {.struct_size = sizeof sample, .labels = job->input.arrays.labels};
    job->labels =
        eqi_alloc(job->ctx, (size_t)job->sequences * sizeof *job->labels, "the number of labels");
    if (!job->labels) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < job->sequences; i++) {
        EQI_RETURN_IF(eqi_check_cancel(job->ctx));
        EQI_RETURN_IF(eqat_data_sample(job->data, false, i, &sample));
        job->labels[i] = eqi_samples_labels(&job->input, 0);
    }
    return EQAT_OK;
}

/* The gradient callback averages over ranks as if all had equally many labels: a micro-batch must
 * weigh what it has of the mean number. */
static eqat_status share_labels(eqat_e2e_qp *job)
{
    const eqat_e2e_qp_options *o = &job->options;
    int64_t steps = eqat_e2e_qp_steps(job);
    job->shares = eqi_alloc(job->ctx, (size_t)(steps + 1) * sizeof *job->shares,
                            "the numbers of labels over all ranks");
    if (!job->shares) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < steps; i++) job->shares[i] = (double)labels_of_step(job, i);
    job->shares[steps] = 1; /* becomes the number of ranks */
    EQI_RETURN_IF(
        eqi_report_reduce(job->ctx, o->reduce, o->reduce_user, job->shares, (size_t)steps + 1));
    for (int64_t i = 0; i < steps; i++) job->shares[i] /= job->shares[steps];
    return EQAT_OK;
}

static eqat_status make_samples(eqat_e2e_qp *job)
{
    int32_t marks = eqi_samples_marks(job->data);
    EQI_RETURN_IF(eqi_samples_create(job->ctx, &job->input, job->data,
                                     eqi_samples_input(job->data) | marks | EQAT_SAMPLE_LABELS,
                                     least(job->options.micro_batch_size, job->sequences)));
    job->numbers = eqi_alloc(job->ctx, (size_t)job->options.batch_size * sizeof *job->numbers,
                             "sample numbers");
    if (!job->numbers) return EQAT_OUT_OF_MEMORY;
    bool equal = !(eqat_data_fields(job->data) & (EQAT_SAMPLE_LABELS | EQAT_SAMPLE_SEGMENTS));
    if (equal) return EQAT_OK;
    EQI_RETURN_IF(count_labels(job));
    return job->options.reduce ? share_labels(job) : EQAT_OK;
}

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
    for (size_t i = 0; i < job->count; i++) EQI_RETURN_IF(train(job, &job->trained[i]));
    eqat_optimizer_set_grad_callback(job->optimizer, o->gradient, o->gradient_user);
    return EQAT_OK;
}

static eqat_status set_up(eqat_e2e_qp *job)
{
    const eqat_e2e_qp_options *o = &job->options;
    EQI_RETURN_IF(eqi_model_check_idle(job->model));
    EQI_RETURN_IF(eqi_e2e_qp_check_options(job->model, job->data, o));
    job->sequences = eqat_data_train_size(job->data);
    job->time = eqat_data_seq_len(job->data);
    job->steps_per_epoch = pieces(job->sequences, o->batch_size);
    job->micro_per_step = o->batch_size / o->micro_batch_size;
    const int64_t shape[2] = {eqat_e2e_qp_steps(job), job->micro_per_step};
    EQI_RETURN_IF(eqi_tape_create(job->ctx, &job->tape));
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
    EQI_RETURN_IF(make_samples(job));
    EQI_RETURN_IF(eqi_e2e_qp_make_teacher(job));
    int bits;
    EQI_RETURN_IF(add_all(job, &bits));
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
    if (!job->finished && job->tape) end_training(job, undo);
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

int64_t eqat_e2e_qp_steps(const eqat_e2e_qp *job)
{
    if (!job) return 0;
    return job->options.epochs * job->steps_per_epoch;
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

static eqat_status distilled_loss(eqat_e2e_qp *job, int64_t left, const eqat_batch *batch,
                                  eqi_tensor **loss)
{
    eqi_distill from;
    EQI_RETURN_IF(eqi_e2e_qp_lesson(job, job->numbers, batch->batch, left, &from));
    eqat_status st = eqi_model_loss(job->tape, job->model, batch, &from, loss);
    eqi_tensor_unref(from.x);
    return st;
}

/* `left`: samples from the batch on, whose numbers the job holds. */
static eqat_status loss_of(eqat_e2e_qp *job, int64_t left, const eqat_batch *batch,
                           eqi_tensor **loss)
{
    const eqat_e2e_qp_options *o = &job->options;
    eqi_tensor *logits;
    *loss = NULL;
    if (job->teacher) return distilled_loss(job, left, batch, loss);
    if (!o->loss) return eqi_model_loss(job->tape, job->model, batch, NULL, loss);
    EQI_RETURN_IF(eqat_model_forward(job->model, job->tape, batch, &logits));
    job->ctx->error[0] = 0;
    eqat_status st = o->loss(o->loss_user, job->tape, logits, batch, loss);
    eqi_tensor_unref(logits);
    return eqi_report_loss(job->ctx, st, loss);
}

eqat_status eqi_e2e_qp_forward(eqat_e2e_qp *job, int64_t n, int64_t left, eqi_tensor **loss)
{
    for (int64_t i = 0; i < n; i++) {
        const eqat_sample sample = eqi_samples_at(&job->input, i);
        EQI_RETURN_IF(eqat_data_sample(job->data, job->validating, job->numbers[i], &sample));
    }
    eqat_batch batch;
    EQI_RETURN_IF(eqi_samples_batch(&job->input, n, job->model, &batch));
    batch.keep_activations = job->options.keep_activations;
    eqat_status st = loss_of(job, left, &batch, loss);
    eqi_tensor_unref(batch.embeddings);
    return st;
}

static eqat_status forward(eqat_e2e_qp *job, int64_t step, int64_t micro, eqi_tensor **loss)
{
    int64_t first = micro_first(job, step, micro),
            left = step_size(job, step) - micro * job->options.micro_batch_size;
    for (int64_t i = 0; i < left; i++) job->numbers[i] = sequence_at(job, step, first + i);
    return eqi_e2e_qp_forward(job, micro_size(job, step, micro), left, loss);
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
    double all = job->shares ? job->shares[step] : (double)labels_of_step(job, step);
    double weight = mean((double)labels_of(job, step, micro), all);
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
    for (int64_t i = 0; i < micros; i++) sum += (double)values[i] * (double)labels_of(job, step, i);
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
    double sums[2] = {sum_of(job, step, job->row), (double)labels_of_step(job, step)};
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
    return mean(sum, (double)labels_of_step(job, step));
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
    end_training(job, keep);
    job->finished = true;
    return EQAT_OK;
}
