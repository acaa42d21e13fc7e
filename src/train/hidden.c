#include "train/hidden.h"

#include "eqat/data.h"
#include "model/weights.h"

#define ROOM_BYTES ((int64_t)256 << 20)

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static eqat_status make_samples(eqi_hidden *h, bool labels)
{
    int32_t marks = eqi_samples_marks(h->data);
    h->length = marks & EQAT_SAMPLE_POSITIONS ? 1 : h->time;
    EQI_RETURN_IF(eqi_samples_create(h->ctx, &h->marks, h->data,
                                     marks | (labels ? EQAT_SAMPLE_LABELS : 0), h->room));
    EQI_RETURN_IF(
        eqi_samples_create(h->ctx, &h->input, h->data, eqi_samples_input(h->data), h->batch));
    h->numbers = eqi_calloc(h->ctx, (size_t)h->batch, sizeof *h->numbers, "sample numbers");
    return h->numbers ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

eqat_status eqi_hidden_create(eqi_hidden *h, eqat_model *model, eqat_data *data, bool labels,
                              int64_t most, int64_t batch)
{
    *h = (eqi_hidden){
        .ctx = model->ctx, .model = model, .data = data, .time = eqat_data_seq_len(data)};
    int64_t hidden = model->config.hidden,
            bytes = h->time * hidden * (int64_t)eqi_dtype_size(model->compute);
    h->batch = least(batch, most);
    h->room = least(most, ROOM_BYTES / bytes > h->batch ? ROOM_BYTES / bytes : h->batch);
    const int64_t shape[3] = {h->room, h->time, hidden};
    EQI_RETURN_IF(make_samples(h, labels));
    EQI_RETURN_IF(eqi_tape_create(h->ctx, &h->tape));
    eqi_tape_set_recording(h->tape, false);
    EQI_RETURN_IF(eqi_model_load_ends(model));
    return eqi_tensor_create(h->ctx, &h->streams, model->compute, 3, shape);
}

void eqi_hidden_release(eqi_hidden *h)
{
    eqi_tape_free(h->tape);
    eqi_tensor_unref(h->streams);
    if (!h->ctx) return; /* never created */
    eqi_samples_release(&h->input);
    eqi_samples_release(&h->marks);
    eqi_free(h->ctx, h->numbers);
}

/* Sample k of those in hand as sample i of a batch. */
static eqat_status read_sample(eqi_hidden *h, int64_t k, int64_t i)
{
    eqat_sample sample = eqi_samples_at(&h->input, i), marks = eqi_samples_at(&h->marks, k);
    size_t time = (size_t)h->time;
    sample.labels = marks.labels;
    sample.positions = marks.positions;
    sample.segments = marks.segments;
    EQI_RETURN_IF(eqat_data_sample(h->data, h->validation, h->samples[k], &sample));
    if (sample.labels) EQI_RETURN_IF(eqi_model_check_labels(h->model, sample.labels, time));
    if (!sample.positions) return EQAT_OK;
    return eqi_model_check_positions(h->model, sample.positions, time, h->time, &h->length);
}

/* Those at [i, i + n). */
static eqat_status embed(eqi_hidden *h, int64_t i, int64_t n, eqi_tensor *stream)
{
    eqi_tensor *x = NULL;
    eqat_batch batch;
    for (int64_t k = 0; k < n; k++) EQI_RETURN_IF(read_sample(h, i + k, k));
    EQI_RETURN_IF(eqi_samples_batch(&h->input, n, h->model, &batch));
    eqat_status st = eqi_model_embed_batch(h->tape, h->model, &batch, &x);
    if (st == EQAT_OK) st = eqi_tensor_copy(stream, x);
    eqi_tensor_unref(batch.embeddings);
    eqi_tensor_unref(x);
    return st;
}

static eqat_status through_block(eqi_hidden *h, const eqi_block *block, int64_t i, int64_t n,
                                 eqi_tensor *stream)
{
    eqi_block_input in = eqi_model_input(h->model, stream);
    eqi_tensor *y = NULL;
    eqi_marks marks;
    for (int64_t k = 0; k < n; k++) h->numbers[k] = i + k;
    EQI_RETURN_IF(eqi_samples_gather(&h->marks, h->numbers, n, &marks));
    in.positions = marks.positions;
    in.segments = marks.segments;
    eqat_status st = eqi_block_forward(h->tape, block, &in, &y);
    if (st == EQAT_OK) st = eqi_tensor_copy(stream, y);
    eqi_marks_release(&marks);
    eqi_tensor_unref(y);
    return st;
}

/* Block NULL is the embedding. */
static eqat_status pass(eqi_hidden *h, const eqi_block *block)
{
    for (int64_t i = 0; i < h->count; i += h->batch) {
        int64_t n = least(h->batch, h->count - i);
        eqi_tensor *stream;
        EQI_RETURN_IF(eqi_check_cancel(h->ctx));
        EQI_RETURN_IF(eqi_tensor_slice(h->streams, &stream, 0, i, n));
        eqat_status st = block ? through_block(h, block, i, n, stream) : embed(h, i, n, stream);
        eqi_tensor_unref(stream);
        if (st == EQAT_OK && block && h->tell) st = h->tell(h->user, n);
        EQI_RETURN_IF(st);
    }
    return EQAT_OK;
}

eqat_status eqi_hidden_begin(eqi_hidden *h, const int64_t *samples, int64_t count)
{
    h->samples = samples;
    h->count = count;
    EQI_RETURN_IF(pass(h, NULL));
    return eqi_model_prepare(h->model, h->length);
}

eqat_status eqi_hidden_pass(eqi_hidden *h, const eqi_block *block) { return pass(h, block); }

eqat_status eqi_hidden_run(eqi_hidden *h, const int64_t *samples, int64_t count)
{
    EQI_RETURN_IF(eqi_hidden_begin(h, samples, count));
    for (int64_t i = 0; i < h->model->config.blocks; i++) {
        const eqi_block *block;
        EQI_RETURN_IF(eqi_block_acquire(h->model, i, &block));
        eqat_status st = pass(h, block);
        eqi_block_release(h->model, i);
        EQI_RETURN_IF(st);
    }
    return EQAT_OK;
}
