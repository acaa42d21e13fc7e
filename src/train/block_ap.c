#include "train/block_ap.h"

#include <math.h>
#include <string.h>

#include "api/options.h"
#include "data/data.h"
#include "quant/quantizer.h"

static const eqat_field fields[] = {
    EQI_FIELD_I64(eqat_block_ap_options, batch_size, 2, 1, 1 << 20, "samples of a step"),
    EQI_FIELD_I64(eqat_block_ap_options, epochs, 2, 0, 1 << 20,
                  "passes over the training samples, for each block"),
    EQI_FIELD_F64(eqat_block_ap_options, quant_lr, 1e-4, 0, 1e6,
                  "learning rate of step sizes and zero points"),
    EQI_FIELD_F64(
        eqat_block_ap_options, weight_lr, 0, -1, 1e6,
        "learning rate of weights; 0: 2e-5 at 2 bits, 1e-5 at more; below 0: they do not train"),
    EQI_FIELD_F64(eqat_block_ap_options, min_lr_factor, 0.05, 0, 1,
                  "the rates fall along a cosine to this share of them"),
    EQI_FIELD_I64(eqat_block_ap_options, early_stop, 0, 0, 1 << 20,
                  "stop a block after so many epochs without a better validation loss; 0: never"),
    EQI_FIELD_STRING(eqat_block_ap_options, offload_dir, NULL,
                     "keep activations in files of this folder instead of in memory"),
    EQI_FIELD_POINTER(eqat_block_ap_options, progress, "called after every step"),
    EQI_FIELD_POINTER(eqat_block_ap_options, progress_user, "its first argument"),
};

const eqi_struct eqi_struct_block_ap = EQI_STRUCT(eqat_block_ap_options, "block_ap", fields);

void eqat_block_ap_options_init(eqat_block_ap_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_block_ap, options, struct_size);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t batches(int64_t samples, int64_t batch) { return (samples + batch - 1) / batch; }
static eqi_block *block_in_work(const eqat_block_ap *job)
{
    return &job->model->blocks[job->block];
}

/* ---- streams ---- */

/* Numbers of the samples at [first, first + n) of a pass: in order of the streams (epoch -1), or of
 * a training epoch; valid until the next call. */
static const int64_t *numbers(eqat_block_ap *job, int64_t epoch, int64_t first, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        job->numbers[i] = epoch < 0 ? first + i : eqat_data_order(job->data, epoch, first + i);
    return job->numbers;
}

static eqat_status forward(void *user, int64_t first, eqi_tensor *x, eqi_tensor **y)
{
    eqat_block_ap *job = user;
    (void)first;
    return eqi_block_forward(job->tape, job->model, job->block, x, NULL, NULL, y);
}

/* Moves a stream through the block in work as its weights stand. */
static eqat_status advance(eqat_block_ap *job, eqi_stream stream)
{
    EQI_RETURN_IF(eqi_model_prepare(job->model, job->time));
    eqi_tape_set_recording(job->tape, false);
    return eqi_streams_advance(job->streams, stream, forward, job);
}

static eqat_status read_ids(eqat_block_ap *job, int64_t first, int64_t n, int32_t *ids)
{
    for (int64_t i = first; i < first + n; i++, ids += job->time) {
        bool validation = i >= job->train;
        EQI_RETURN_IF(
            eqat_data_sample(job->data, validation, validation ? i - job->train : i, ids));
    }
    return EQAT_OK;
}

static eqat_status embed(void *user, int64_t first, int64_t n, eqi_tensor **x)
{
    eqat_block_ap *job = user;
    const int64_t shape[2] = {n, job->time};
    size_t count = (size_t)(n * job->time);
    eqi_tensor *on_device = NULL;
    *x = NULL;
    int32_t *ids = eqi_alloc(job->ctx, count * sizeof *ids, "token ids");
    if (!ids) return EQAT_OUT_OF_MEMORY;
    eqat_status st;
    EQI_GOTO(done, read_ids(job, first, n, ids));
    EQI_GOTO(done, eqi_model_check_ids(job->model, ids, count));
    EQI_GOTO(done, eqi_tensor_create(job->ctx, &on_device, EQI_I32, 2, shape));
    EQI_GOTO(done, eqi_tensor_upload(on_device, ids, count * sizeof *ids));
    st = eqi_model_embed(job->tape, job->model, on_device, x);
done:
    eqi_free(job->ctx, ids);
    eqi_tensor_unref(on_device);
    return st;
}

static eqat_status make_streams(eqat_block_ap *job)
{
    const eqi_streams_shape shape = {.samples = job->train + job->val,
                                     .time = job->time,
                                     .hidden = job->model->config.hidden,
                                     .batch = job->options.batch_size,
                                     .dtype = job->model->compute};
    eqi_tape_set_recording(job->tape, false);
    eqat_status st =
        eqi_streams_create(job->ctx, &job->streams, &shape, job->options.offload_dir, embed, job);
    /* The table can outweigh a block; it is not wanted again. */
    eqi_model_unload_ends(job->model);
    eqi_storage_trim(job->ctx);
    return st;
}

/* ---- the job ---- */

static eqat_status check_block(const eqat_block_ap *job, int64_t index)
{
    const eqi_block *b = &job->model->blocks[index];
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_linear *l = &b->linears[i];
        eqi_quant_desc desc;
        bool selected;
        if (l->weight.codes || l->file.bits)
            return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                            "%s: found packed codes, expected full precision", l->name);
        EQI_RETURN_IF(eqi_quantizer_desc(job->quantizer, l->name, l->in, &desc, &selected));
    }
    return EQAT_OK;
}

static eqat_status set_up(eqat_block_ap *job)
{
    const eqat_block_ap_options *o = &job->options;
    const eqi_config *c = &job->model->config;
    job->train = eqat_data_train_size(job->data);
    job->val = eqat_data_val_size(job->data);
    job->time = eqat_data_seq_len(job->data);
    for (int64_t i = 0; i < c->blocks; i++)
        EQI_RETURN_IF(check_block(job, i)); /* not after hours, in the last of them */
    if (o->early_stop && !job->val)
        return eqi_fail(
            job->ctx, EQAT_INVALID_ARGUMENT,
            "early_stop: found %lld without validation samples, expected 0 or some of them",
            (long long)o->early_stop);
    job->epochs = eqi_calloc(job->ctx, (size_t)(c->blocks * o->epochs), sizeof *job->epochs,
                             "the reports of epochs");
    if (!job->epochs) return EQAT_OUT_OF_MEMORY;
    int64_t training = batches(job->train, o->batch_size),
            validation = batches(job->val, o->batch_size);
    int64_t losses = training > validation ? training : validation;
    EQI_RETURN_IF(eqi_tape_create(job->ctx, &job->tape));
    EQI_RETURN_IF(eqi_tensor_zeros(job->ctx, &job->losses, EQI_F32, 1, &losses));
    size_t batch = (size_t)least(o->batch_size, job->train + job->val);
    job->numbers = eqi_calloc(job->ctx, batch, sizeof *job->numbers, "sample numbers");
    if (!job->numbers) return EQAT_OUT_OF_MEMORY;
    return make_streams(job);
}

eqat_status eqat_block_ap_create(eqat_block_ap **out, eqat_model *model,
                                 const eqat_quantizer *quantizer, eqat_data *data,
                                 const eqat_block_ap_options *options)
{
    *out = NULL;
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
    eqat_status st = set_up(job);
    job->options.offload_dir = NULL; /* the caller's string need not outlive this call */
    if (st == EQAT_OK)
        *out = job;
    else
        eqat_block_ap_free(job);
    return st;
}

void eqat_block_ap_free(eqat_block_ap *job)
{
    if (!job) return;
    eqi_ctx *ctx = job->ctx;
    eqat_block_ap_abandon(job);
    eqi_streams_free(job->streams);
    eqi_free(ctx, job->numbers);
    eqi_tape_free(job->tape);
    eqi_tensor_unref(job->losses);
    eqi_free(ctx, job->epochs);
    eqat_data_free(job->data);
    eqat_quantizer_free(job->quantizer);
    eqat_model_free(job->model);
    eqi_free(ctx, job);
    eqi_storage_trim(ctx);
    eqi_ctx_unref(ctx);
}

int64_t eqat_block_ap_block(const eqat_block_ap *job) { return job->block; }
int64_t eqat_block_ap_steps(const eqat_block_ap *job)
{
    return batches(job->train, job->options.batch_size);
}
eqat_optimizer *eqat_block_ap_optimizer(eqat_block_ap *job) { return job->optimizer; }

eqat_tensor *eqat_block_ap_parameter(eqat_block_ap *job, const char *name)
{
    if (job->phase != EQI_BLOCK_TRAINING) return NULL;
    eqi_block *b = block_in_work(job);
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_linear *l = &b->linears[i];
        size_t n = strlen(l->local);
        if (strncmp(name, l->local, n) != 0) continue;
        if (!strcmp(name + n, ".weight")) return l->weight.w;
        if (!strcmp(name + n, ".scales")) return l->weight.s;
        if (!strcmp(name + n, ".zeros")) return l->weight.z;
    }
    for (int i = 0; i < EQI_NORM_COUNT; i++)
        if (b->norms[i].size && !strcmp(name, b->norms[i].local)) return b->norms[i].gain;
    return NULL;
}

/* ---- a block in work ---- */

/* Puts copies in the place of tensors that were in memory before: those belong to whoever asked for
 * them. */
static eqat_status set_pinned_aside(eqat_block_ap *job)
{
    eqi_block *b = block_in_work(job);
    job->pinned = b->resident;
    b->resident = true; /* nobody else drops the block now */
    if (!job->pinned) return EQAT_OK;
    for (int i = 0; i < b->n_linears; i++) {
        eqi_weight *w = &b->linears[i].weight;
        eqi_tensor *copy;
        EQI_RETURN_IF(eqi_tensor_cast(w->w, EQI_F32, &copy));
        job->pinned_weights[i] = *w;
        *w = (eqi_weight){.w = copy, .bias = w->bias ? eqi_tensor_ref(w->bias) : NULL};
    }
    for (int i = 0; i < EQI_NORM_COUNT; i++) {
        eqi_tensor *copy;
        if (!b->norms[i].size) continue;
        EQI_RETURN_IF(eqi_tensor_cast(b->norms[i].gain, EQI_F32, &copy));
        job->pinned_gains[i] = b->norms[i].gain;
        b->norms[i].gain = copy;
    }
    return EQAT_OK;
}

static void release_pinned(eqat_block_ap *job)
{
    for (int i = 0; i < EQI_ROLE_COUNT; i++) eqi_weight_release(&job->pinned_weights[i]);
    for (int i = 0; i < EQI_NORM_COUNT; i++) {
        eqi_tensor_unref(job->pinned_gains[i]);
        job->pinned_gains[i] = NULL;
    }
    job->pinned = false;
}

/* The block as it was before begin. */
static void give_up(eqat_block_ap *job)
{
    eqi_block *b = block_in_work(job);
    for (int i = 0; i < job->n_trained; i++) eqi_tensor_zero_grad(job->trained[i]);
    job->n_trained = 0;
    eqat_optimizer_free(job->optimizer);
    job->optimizer = NULL;
    for (int i = 0; i < b->n_linears; i++) {
        if (!job->pinned_weights[i].w) continue;
        eqi_weight_release(&b->linears[i].weight);
        b->linears[i].weight = job->pinned_weights[i];
        job->pinned_weights[i] = (eqi_weight){0};
    }
    for (int i = 0; i < EQI_NORM_COUNT; i++) {
        if (!job->pinned_gains[i]) continue;
        eqi_tensor_unref(b->norms[i].gain);
        b->norms[i].gain = job->pinned_gains[i];
        job->pinned_gains[i] = NULL;
    }
    b->resident = job->pinned;
    b->in_work = job->pinned = false;
    job->phase = EQI_BLOCK_IDLE;
    eqi_block_unload(job->model, job->block);
}

static eqat_status train(eqat_block_ap *job, eqi_tensor *t, int32_t group)
{
    t->requires_grad = true;
    job->trained[job->n_trained++] = t;
    return eqat_optimizer_add(job->optimizer, group, t);
}

/* Initial s and z of the linears that the quantizer selects; *bits: the fewest. */
static eqat_status initialise(eqat_block_ap *job, int *bits)
{
    eqi_block *b = block_in_work(job);
    bool mse = eqi_quantizer_uses_mse(job->quantizer);
    *bits = 8;
    for (int i = 0; i < b->n_linears; i++) {
        eqi_linear *l = &b->linears[i];
        eqi_quant_desc desc;
        bool selected;
        EQI_RETURN_IF(eqi_quantizer_desc(job->quantizer, l->name, l->in, &desc, &selected));
        if (!selected) continue;
        eqat_status st = eqi_quant_init(l->weight.w, &desc, mse, &l->weight.s, &l->weight.z);
        if (st != EQAT_OK) return eqi_fail_in(job->ctx, st, "%s", l->name);
        l->weight.q = desc;
        if (desc.bits < *bits) *bits = desc.bits;
    }
    return EQAT_OK;
}

static eqat_status make_optimizer(eqat_block_ap *job, int bits)
{
    const eqat_block_ap_options *o = &job->options;
    eqi_block *b = block_in_work(job);
    double weight_lr = o->weight_lr != 0 ? o->weight_lr : bits == 2 ? 2e-5 : 1e-5;
    int32_t quant_group, weight_group = -1;
    eqat_optimizer_options options;
    eqat_optimizer_options_init(&options, sizeof options);
    options.total_steps = o->epochs * eqat_block_ap_steps(job);
    options.min_lr_factor = o->min_lr_factor;
    EQI_RETURN_IF(eqat_optimizer_create(job->ctx, &job->optimizer, &options));
    EQI_RETURN_IF(eqat_optimizer_add_group(job->optimizer, o->quant_lr, &quant_group));
    if (weight_lr > 0)
        EQI_RETURN_IF(eqat_optimizer_add_group(job->optimizer, weight_lr, &weight_group));
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_weight *w = &b->linears[i].weight;
        if (weight_lr > 0) EQI_RETURN_IF(train(job, w->w, weight_group));
        if (!w->s) continue;
        EQI_RETURN_IF(train(job, w->s, quant_group));
        EQI_RETURN_IF(train(job, w->z, quant_group));
    }
    for (int i = 0; i < EQI_NORM_COUNT && weight_lr > 0; i++)
        if (b->norms[i].size) EQI_RETURN_IF(train(job, b->norms[i].gain, weight_group));
    return EQAT_OK;
}

eqat_status eqat_block_ap_begin(eqat_block_ap *job)
{
    int64_t blocks = job->model->config.blocks;
    if (job->phase != EQI_BLOCK_IDLE)
        return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                        "block %lld: found it in work, expected finish or abandon first",
                        (long long)job->block);
    if (job->block == blocks)
        return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT, "block %lld: found %lld blocks, all done",
                        (long long)blocks, (long long)blocks);
    EQI_RETURN_IF(eqi_model_check_idle(job->model));
    EQI_RETURN_IF(check_block(job, job->block));
    EQI_RETURN_IF(eqi_block_load(job->model, job->block, EQI_F32, true));
    int bits;
    eqat_status st;
    EQI_GOTO(done, set_pinned_aside(job));
    if (eqi_streams_blocks(job->streams, EQI_STREAM_FULL) == job->block)
        EQI_GOTO(done, advance(job, EQI_STREAM_FULL));
    EQI_GOTO(done, initialise(job, &bits));
    EQI_GOTO(done, make_optimizer(job, bits));
    job->phase = EQI_BLOCK_TRAINING;
    block_in_work(job)->in_work = true;
    return EQAT_OK;
done:
    give_up(job);
    return st;
}

void eqat_block_ap_abandon(eqat_block_ap *job)
{
    if (job->phase == EQI_BLOCK_TRAINING) give_up(job);
}

static eqat_status expect_training(const eqat_block_ap *job)
{
    if (job->phase == EQI_BLOCK_TRAINING) return EQAT_OK;
    return eqi_fail(job->ctx, EQAT_INVALID_ARGUMENT,
                    "block %lld: found it not in work, expected begin first",
                    (long long)job->block);
}

/* ---- steps ---- */

/* Mean squared error between the block in work on the quantized stream and the targets, for samples
 * [first, first + n) of a pass that ends before `end`; also into slot `slot` of the job's losses.
 */
static eqat_status batch_loss(eqat_block_ap *job, int64_t epoch, int64_t first, int64_t n,
                              int64_t end, int64_t slot, eqi_tensor **loss)
{
    eqi_tensor *x = NULL, *target = NULL, *y = NULL, *kept = NULL;
    eqat_status st;
    *loss = NULL;
    EQI_GOTO(done, eqi_model_prepare(job->model, job->time));
    const int64_t *now = numbers(job, epoch, first, n);
    EQI_GOTO(done, eqi_streams_fetch(job->streams, EQI_STREAM_QUANTIZED, now, n, &x));
    EQI_GOTO(done, eqi_streams_fetch(job->streams, EQI_STREAM_FULL, now, n, &target));
    int64_t n_next = least(job->options.batch_size, end - first - n);
    const int64_t *next = numbers(job, epoch, first + n, n_next);
    eqi_streams_ahead(job->streams, EQI_STREAM_QUANTIZED, next, n_next);
    eqi_streams_ahead(job->streams, EQI_STREAM_FULL, next, n_next);
    EQI_GOTO(done, eqi_block_forward(job->tape, job->model, job->block, x, NULL, NULL, &y));
    EQI_GOTO(done, eqi_op_mse(job->tape, y, target, loss));
    EQI_GOTO(done, eqi_tensor_slice(job->losses, &kept, 0, slot, 1));
    EQI_GOTO(done, eqi_tensor_copy(kept, *loss));
done:
    eqi_tensor_unref(x);
    eqi_tensor_unref(target);
    eqi_tensor_unref(y);
    eqi_tensor_unref(kept);
    if (st != EQAT_OK) {
        eqi_tensor_unref(*loss);
        *loss = NULL;
    }
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

static eqat_status update(eqat_block_ap *job, eqi_tensor *loss)
{
    if (!job->n_trained) return EQAT_OK;
    eqat_status st = eqat_optimizer_backward(job->optimizer, job->tape, loss);
    if (st != EQAT_OK) /* half a gradient must not reach the next step */
        for (int i = 0; i < job->n_trained; i++) eqi_tensor_zero_grad(job->trained[i]);
    return st;
}

eqat_status eqat_block_ap_step(eqat_block_ap *job, int64_t epoch, int64_t step, double *loss)
{
    int64_t batch = job->options.batch_size, steps = eqat_block_ap_steps(job);
    EQI_RETURN_IF(expect_training(job));
    if (epoch < 0 || step < 0 || step >= steps)
        return eqi_fail(
            job->ctx, EQAT_INVALID_ARGUMENT,
            "step: found epoch %lld, step %lld, expected an epoch from 0 on, a step from 0 to %lld",
            (long long)epoch, (long long)step, (long long)steps - 1);
    EQI_RETURN_IF(eqi_check_cancel(job->ctx));
    eqi_tensor *device_loss;
    eqi_tape_set_recording(job->tape, true);
    eqat_status st = batch_loss(job, epoch, step * batch, least(batch, job->train - step * batch),
                                job->train, step, &device_loss);
    if (st == EQAT_OK)
        st = update(job, device_loss);
    else
        eqi_tape_clear(job->tape);
    float value = 0;
    if (st == EQAT_OK && loss) st = eqi_tensor_download(device_loss, &value, sizeof value);
    eqi_tensor_unref(device_loss);
    if (st != EQAT_OK || !loss) return st;
    *loss = (double)value;
    return eqi_block_ap_check_loss(job, epoch, step, *loss);
}

eqat_status eqat_block_ap_validate(eqat_block_ap *job, double *loss)
{
    EQI_RETURN_IF(expect_training(job));
    *loss = NAN;
    if (!job->val) return EQAT_OK;
    int64_t batch = job->options.batch_size, count = batches(job->val, batch);
    eqi_tape_set_recording(job->tape, false);
    for (int64_t i = 0; i < count; i++) {
        eqi_tensor *device_loss;
        EQI_RETURN_IF(eqi_check_cancel(job->ctx));
        EQI_RETURN_IF(batch_loss(job, -1, job->train + i * batch,
                                 least(batch, job->val - i * batch), job->train + job->val, i,
                                 &device_loss));
        eqi_tensor_unref(device_loss);
    }
    float *values = eqi_alloc(job->ctx, (size_t)count * sizeof *values, "validation losses");
    if (!values) return EQAT_OUT_OF_MEMORY;
    eqi_tensor *used;
    eqat_status st = eqi_tensor_slice(job->losses, &used, 0, 0, count);
    if (st == EQAT_OK) {
        st = eqi_tensor_download(used, values, (size_t)count * sizeof *values);
        eqi_tensor_unref(used);
    }
    double sum = 0;
    for (int64_t i = 0; i < count && st == EQAT_OK; i++)
        sum += (double)values[i] * (double)least(batch, job->val - i * batch);
    eqi_free(job->ctx, values);
    EQI_RETURN_IF(st);
    *loss = sum / (double)job->val;
    if (isfinite(*loss)) return EQAT_OK;
    return eqi_fail(job->ctx, EQAT_NUMERIC,
                    "block %lld: validation loss is %s, expected a finite number",
                    (long long)job->block, isnan(*loss) ? "nan" : "infinite");
}

/* ---- the end of a block ---- */

/* Codes of what is quantized; the rest is rounded where it lies, and stays F32: that is how the
 * model tells what may differ from its file. Rounding twice changes nothing, so a failure half-way
 * leaves a block that can still be finished. */
static eqat_status freeze(eqat_block_ap *job, eqi_weight *packed)
{
    eqi_block *b = block_in_work(job);
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_weight *w = &b->linears[i].weight;
        if (w->s) EQI_RETURN_IF(eqi_quant_freeze(w->w, w->s, w->z, &w->q, &packed[i]));
    }
    for (int i = 0; i < b->n_linears; i++)
        if (!b->linears[i].weight.s)
            EQI_RETURN_IF(eqi_round_kept(b->linears[i].weight.w, b->linears[i].stored));
    for (int i = 0; i < EQI_NORM_COUNT; i++)
        if (b->norms[i].size) EQI_RETURN_IF(eqi_round_kept(b->norms[i].gain, b->norms[i].stored));
    return EQAT_OK;
}

static void put_in_place(eqat_block_ap *job, eqi_weight *packed)
{
    eqi_block *b = block_in_work(job);
    for (int i = 0; i < job->n_trained; i++) {
        eqi_tensor_zero_grad(job->trained[i]);
        job->trained[i]->requires_grad = false;
    }
    job->n_trained = 0;
    eqat_optimizer_free(job->optimizer);
    job->optimizer = NULL;
    for (int i = 0; i < b->n_linears; i++)
        if (packed[i].codes) eqi_block_set_packed(job->model, job->block, i, &packed[i]);
    release_pinned(job);
    b->in_work = false;
    job->phase = EQI_BLOCK_FROZEN;
}

eqat_status eqat_block_ap_finish(eqat_block_ap *job)
{
    if (job->phase != EQI_BLOCK_FROZEN) {
        EQI_RETURN_IF(expect_training(job));
        eqi_weight packed[EQI_ROLE_COUNT] = {{0}};
        eqat_status st = freeze(job, packed);
        if (st == EQAT_OK) put_in_place(job, packed);
        for (int i = 0; i < EQI_ROLE_COUNT; i++) eqi_weight_release(&packed[i]);
        EQI_RETURN_IF(st);
    }
    /* Behind the last block nobody reads the quantized stream. */
    if (job->block + 1 < job->model->config.blocks)
        EQI_RETURN_IF(advance(job, EQI_STREAM_QUANTIZED));
    job->phase = EQI_BLOCK_IDLE;
    job->block++;
    return EQAT_OK;
}
