#include "train/block_ap.h"
#include "base/entry.h"

#include <math.h>
#include <string.h>

#include "api/options.h"
#include "data/data.h"
#include "model/weights.h"
#include "quant/quantizer.h"
#include "train/rates.h"

static const char *const last_loss_names[] = {"squares", "logits", NULL};

static const eqat_field fields[] = {
    EQI_FIELD_I64(eqat_block_ap_options, batch_size, 2, 1, 1 << 20, "samples of a step"),
    EQI_FIELD_I64(eqat_block_ap_options, epochs, 2, 0, 1 << 20,
                  "passes over the training samples, for each block"),
    EQI_FIELD_F64(eqat_block_ap_options, quant_lr, 0, -1, 1e6,
                  "learning rate of scales and zero points; 0: 1e-4, or as lr_unit says; below 0: "
                  "they do not train"),
    EQI_FIELD_F64(eqat_block_ap_options, weight_lr, 0, -1, 1e6,
                  "learning rate of weights; 0: 2e-5 at 2 bits, 1e-5 at more, or as lr_unit says; "
                  "below 0: they do not train"),
    EQI_FIELD_F64(eqat_block_ap_options, min_lr_factor, 0.05, 0, 1,
                  "the rates fall along a cosine to this share of them"),
    EQI_FIELD_I64(eqat_block_ap_options, early_stop, 0, 0, 1 << 20,
                  "stop a block after so many epochs without a better validation loss; 0: never"),
    EQI_FIELD_STRING(eqat_block_ap_options, offload_dir, NULL,
                     "keep activations in files of this folder instead of in memory"),
    EQI_FIELD_POINTER(eqat_block_ap_options, progress, "called after every step"),
    EQI_FIELD_POINTER(eqat_block_ap_options, progress_user, "its first argument"),
    EQI_FIELD_POINTER(eqat_block_ap_options, loss, "a loss in place of the mean squared error"),
    EQI_FIELD_POINTER(eqat_block_ap_options, loss_user, "its first argument"),
    EQI_FIELD_POINTER(eqat_block_ap_options, gradient, "called between backward and update"),
    EQI_FIELD_POINTER(eqat_block_ap_options, gradient_user, "its first argument"),
    EQI_FIELD_POINTER(eqat_block_ap_options, reduce, "adds up losses over ranks"),
    EQI_FIELD_POINTER(eqat_block_ap_options, reduce_user, "its first argument"),
    EQI_FIELD_I64(
        eqat_block_ap_options, experts_at_a_time, 0, 0, 1 << 20,
        "train so many experts of a block at a time, to save memory, each for all epochs; "
        "0: all together"),
    EQI_FIELD_POINTER(eqat_block_ap_options, between, "called before every batch that is no step"),
    EQI_FIELD_POINTER(eqat_block_ap_options, between_user, "its first argument"),
    EQI_FIELD_ENUM(
        eqat_block_ap_options, keep, EQAT_KEEP_START_OR_LAST, eqi_keep_names,
        "state of a block that is kept: start-or-last (the last, or the initial rounding "
        "where validation ends worse than that), last, or best (on validation)"),
    EQI_FIELD_ENUM(eqat_block_ap_options, lr_unit, EQAT_LR_ABSOLUTE, eqi_lr_unit_names,
                   "rates are absolute, or relative: of weights in scales, of scales as a share, "
                   "of zero points in codes; 0 then follows from the number of steps"),
    EQI_FIELD_ENUM(eqat_block_ap_options, last_loss, EQAT_LAST_LOSS_SQUARES, last_loss_names,
                   "what the last block is held to: squares (of its output, as the others), or "
                   "logits (what the head makes of it; takes the head's memory and time)"),
    EQI_FIELD_U64(eqat_block_ap_options, offload_memory, 0,
                  "bytes of the activations that stay in memory beside offload_dir"),
    EQI_FIELD_F64(eqat_block_ap_options, decay_ratio, 1, 0, 1,
                  "share of a block's steps, the last of them, in which the rates fall"),
};

const eqi_struct eqi_struct_block_ap = EQI_STRUCT(eqat_block_ap_options, "block_ap", fields);

void eqat_block_ap_options_init(eqat_block_ap_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_block_ap, options, struct_size);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t batches(int64_t samples, int64_t batch) { return (samples + batch - 1) / batch; }

/* ---- streams ---- */

/* Sample `number` of the streams as sample i of the batch; its marks are kept. */
static eqat_status read_sample(eqat_block_ap *job, int64_t number, int64_t i)
{
    bool validation = number >= job->train;
    eqat_sample sample = eqi_samples_at(&job->input, i),
                marks = eqi_samples_at(&job->marks, number);
    sample.positions = marks.positions;
    sample.segments = marks.segments;
    EQI_RETURN_IF(eqat_data_sample(job->data, validation, validation ? number - job->train : number,
                                   &sample));
    if (!sample.positions) return EQAT_OK;
    return eqi_model_check_positions(job->model, sample.positions, (size_t)job->time, job->time,
                                     &job->length);
}

static eqat_status embed(void *user, int64_t first, int64_t n, eqi_tensor **x)
{
    eqat_block_ap *job = user;
    eqat_batch batch;
    *x = NULL;
    EQI_RETURN_IF(eqi_block_ap_between(job, "embed", job->block, first, job->train + job->val));
    for (int64_t i = 0; i < n; i++) EQI_RETURN_IF(read_sample(job, first + i, i));
    EQI_RETURN_IF(eqi_samples_batch(&job->input, n, job->model, &batch));
    eqat_status st = eqi_model_embed_batch(job->tape, job->model, &batch, x);
    eqi_tensor_unref(batch.embeddings);
    return st;
}

static eqat_status make_samples(eqat_block_ap *job)
{
    int64_t samples = job->train + job->val, batch = least(job->pass, samples);
    int32_t marks = eqi_samples_marks(job->data);
    EQI_RETURN_IF(eqi_samples_check(job->model, job->data, false));
    job->length = marks & EQAT_SAMPLE_POSITIONS ? 1 : job->time;
    EQI_RETURN_IF(eqi_samples_create(job->ctx, &job->marks, job->data, marks, samples));
    EQI_RETURN_IF(
        eqi_samples_create(job->ctx, &job->input, job->data, eqi_samples_input(job->data), batch));
    job->numbers = eqi_calloc(job->ctx, (size_t)batch, sizeof *job->numbers, "sample numbers");
    return job->numbers ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

static eqat_status make_streams(eqat_block_ap *job)
{
    const eqi_streams_shape shape = {.samples = job->train + job->val,
                                     .time = job->time,
                                     .hidden = job->model->config.hidden,
                                     .batch = job->pass,
                                     .memory = job->options.offload_memory,
                                     .dtype = job->model->compute};
    eqi_tape_set_recording(job->tape, false);
    eqat_status st =
        eqi_streams_create(job->ctx, &job->streams, &shape, job->options.offload_dir, embed, job);
    /* The table can outweigh a block; it is not wanted again. */
    eqi_model_unload_ends(job->model);
    eqi_samples_release(&job->input);
    eqi_storage_trim(job->ctx);
    return st;
}

/* ---- the job ---- */

static void warn_of_rates(const eqat_block_ap *job)
{
    const eqat_block_ap_options *o = &job->options;
    int64_t steps = o->epochs * eqat_block_ap_steps(job);
    if (o->lr_unit != EQAT_LR_RELATIVE) return;
    eqi_rate_warn(job->ctx, "weight_lr", o->weight_lr,
                  eqi_block_ap_rate(0, o->lr_unit, EQI_WEIGHT, steps, 0));
    eqi_rate_warn(job->ctx, "quant_lr", o->quant_lr,
                  eqi_block_ap_rate(0, o->lr_unit, EQI_QUANT, steps, 0));
}

static eqat_status set_up(eqat_block_ap *job)
{
    const eqat_block_ap_options *o = &job->options;
    const eqi_config *c = &job->model->config;
    job->train = eqat_data_train_size(job->data);
    job->val = eqat_data_val_size(job->data);
    job->time = eqat_data_seq_len(job->data);
    job->pass = eqi_samples_of_pass(o->batch_size, job->time);
    for (int64_t i = 0; i < c->blocks; i++)
        EQI_RETURN_IF(eqi_block_ap_check_block(job, i)); /* not after hours, in the last of them */
    if (o->early_stop && !job->val)
        return eqi_fail(
            job->ctx, EQAT_INVALID_ARGUMENT,
            "early_stop: found %lld without validation samples, expected 0 or some of them",
            (long long)o->early_stop);
    if (o->keep == EQAT_KEEP_BEST && !job->val) return eqi_keep_refuse_best(job->ctx);
    if (o->offload_memory && !o->offload_dir)
        return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                        "offload_memory: found %llu without offload_dir, expected 0: all "
                        "activations are in memory",
                        (unsigned long long)o->offload_memory);
    EQI_RETURN_IF(eqi_model_check_finite(job->model));
    int64_t epochs = eqi_block_ap_first_epoch(job, c->blocks);
    job->epochs =
        eqi_calloc(job->ctx, (size_t)epochs, sizeof *job->epochs, "the reports of epochs");
    if (!job->epochs) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < epochs; i++) job->epochs[i].train_loss = NAN;
    job->outcomes = eqi_calloc(job->ctx, (size_t)eqi_block_ap_outcomes(job), sizeof *job->outcomes,
                               "the reports of stages");
    if (!job->outcomes) return EQAT_OUT_OF_MEMORY;
    for (; job->block < c->blocks; job->block++) eqi_block_ap_forget_outcomes(job);
    job->block = 0;
    warn_of_rates(job);
    job->options.quant_lr = eqi_block_ap_rate(o->quant_lr, o->lr_unit, EQI_QUANT,
                                              o->epochs * eqat_block_ap_steps(job), 0);
    int64_t training = batches(job->train, o->batch_size),
            validation = batches(job->val, o->batch_size);
    int64_t losses = 2 * training + validation;
    EQI_RETURN_IF(eqi_tape_create(job->ctx, &job->tape));
    EQI_RETURN_IF(eqi_tensor_zeros(job->ctx, &job->losses, EQI_F32, 1, &losses));
    EQI_RETURN_IF(make_samples(job));
    return make_streams(job);
}

eqat_status eqat_block_ap_create(eqat_model *model, eqat_block_ap **out,
                                 const eqat_quantizer *quantizer, eqat_data *data,
                                 const eqat_block_ap_options *options)
{
    if (out) *out = NULL;
    EQI_ENTER_OF(model);
    EQI_NEED(model->ctx, out, quantizer, data);
    eqi_ctx *ctx = model->ctx;
    eqat_block_ap_options checked;
    EQI_RETURN_IF(eqi_options_take(ctx, &eqi_struct_block_ap, &checked, options));
    eqat_block_ap *job = eqi_calloc(ctx, 1, sizeof *job, "a Block-AP job");
    if (!job) return EQAT_OUT_OF_MEMORY;
    job->ctx = eqi_ctx_ref(ctx);
    job->model = eqi_model_ref(model);
    job->quantizer = eqi_quantizer_ref((eqat_quantizer *)quantizer);
    job->data = eqi_data_ref(data);
    job->options = checked;
    job->best.loss = (double)INFINITY;
    eqat_status st = set_up(job);
    job->options.offload_dir = NULL; /* the caller's string need not outlive this call */
    if (st == EQAT_OK)
        *out = job;
    else
        eqat_block_ap_free(job);
    return st;
}

static void unref(void *handle)
{
    eqat_block_ap *job = handle;
    eqi_ctx *ctx = job->ctx;
    eqat_block_ap_abandon(job);
    eqi_block_drop(ctx, &job->work);
    eqi_streams_free(job->streams);
    eqi_free(ctx, job->numbers);
    eqi_samples_release(&job->input);
    eqi_samples_release(&job->marks);
    eqi_tape_free(job->tape);
    eqi_tensor_unref(job->losses);
    eqi_block_ap_drop_best(job);
    eqi_free(ctx, job->epochs);
    eqi_free(ctx, job->outcomes);
    eqat_data_free(job->data);
    eqat_quantizer_free(job->quantizer);
    eqat_model_free(job->model);
    eqi_free(ctx, job);
    eqi_storage_trim(ctx);
    eqi_ctx_unref(ctx);
}

void eqat_block_ap_free(eqat_block_ap *job)
{
    if (job) eqi_handle_free(job->ctx, &job->handle, unref, job);
}
