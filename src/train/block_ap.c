#include "train/block_ap.h"

#include <math.h>
#include <string.h>

#include "api/options.h"
#include "data/data.h"
#include "model/weights.h"
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
    EQI_FIELD_POINTER(eqat_block_ap_options, loss, "a loss in place of the mean squared error"),
    EQI_FIELD_POINTER(eqat_block_ap_options, loss_user, "its first argument"),
};

const eqi_struct eqi_struct_block_ap = EQI_STRUCT(eqat_block_ap_options, "block_ap", fields);

void eqat_block_ap_options_init(eqat_block_ap_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_block_ap, options, struct_size);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t batches(int64_t samples, int64_t batch) { return (samples + batch - 1) / batch; }
/* ---- streams ---- */

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

static eqat_status set_up(eqat_block_ap *job)
{
    const eqat_block_ap_options *o = &job->options;
    const eqi_config *c = &job->model->config;
    job->train = eqat_data_train_size(job->data);
    job->val = eqat_data_val_size(job->data);
    job->time = eqat_data_seq_len(job->data);
    for (int64_t i = 0; i < c->blocks; i++)
        EQI_RETURN_IF(eqi_block_ap_check_block(job, i)); /* not after hours, in the last of them */
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
    eqi_block_drop(ctx, &job->work);
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
    const eqi_block *b = &job->work;
    if (b->state != EQI_BLOCK_MASTERS) return NULL;
    for (int i = 0; i < b->n_linears; i++) {
        const eqi_linear *l = &b->linears[i];
        size_t n = strlen(l->local);
        if (strncmp(name, l->local, n) != 0 || name[n] != '.') continue;
        if (!strcmp(name + n + 1, "weight")) return l->weight.w;
        for (int t = 0; t < EQI_KIND_TENSORS && l->quant.kind; t++) {
            const char *tensor = l->quant.kind->tensors[t].name;
            if (tensor && !strcmp(name + n + 1, tensor)) return l->beside[t];
        }
    }
    for (int i = 0; i < b->n_norms; i++)
        if (!strcmp(name, b->norms[i].local)) return b->norms[i].gain;
    return NULL;
}
