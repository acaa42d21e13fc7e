#include <math.h>

#include "api/options.h"
#include "base/entry.h"
#include "eqat/eval.h"
#include "model/weights.h"
#include "train/report.h"
#include "train/samples.h"

/* Residual streams of this many bytes pass the blocks together, so that a full-precision block is
 * read from its file once for all of them. */
#define CHUNK_BYTES ((int64_t)256 << 20)

static const eqat_field fields[] = {
    EQI_FIELD_I64(eqat_eval_options, batch_size, 1, 1, 1 << 20, "windows at once"),
    EQI_FIELD_I64(eqat_eval_options, max_windows, 0, 0, 1e15, "windows at most; 0: all"),
    EQI_FIELD_POINTER(eqat_eval_options, progress, "called after every batch of every block"),
    EQI_FIELD_POINTER(eqat_eval_options, progress_user, "its first argument"),
};

const eqi_struct eqi_struct_eval = EQI_STRUCT(eqat_eval_options, "eval", fields);

void eqat_eval_options_init(eqat_eval_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_eval, options, struct_size);
}

typedef struct evaluation {
    eqi_ctx *ctx;
    eqat_model *model;
    eqat_data *data;
    eqat_eval_options options;
    int64_t windows, time;
    int64_t first, count; /* windows of the chunk in hand */
    eqi_tape *tape;
    eqi_tensor *streams; /* [chunk, T, H] */
    eqi_samples input;   /* of one batch */
    eqi_samples marks;   /* labels, positions and segments of the chunk */
    int64_t length;      /* positions that the rotary tables must have */
    int64_t *numbers;    /* of a batch, within the chunk */
    double nll;
    int64_t tokens; /* in nll */
    int64_t steps;  /* one for each window and block, and one for its loss */
} evaluation;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static eqat_status tell(evaluation *e, int64_t windows)
{
    e->steps += windows;
    eqat_progress p = {
        .phase = "eval",
        .step = e->steps,
        .steps = e->windows * (e->model->config.blocks + 1),
        .loss = e->tokens ? e->nll / (double)e->tokens : (double)NAN,
        .val_loss = NAN,
        .grad_norm = NAN,
        .work = "step",
    };
    EQI_RETURN_IF(eqi_check_cancel(e->ctx));
    return eqi_report_progress(e->ctx, e->options.progress, e->options.progress_user, &p);
}

/* Window k of the chunk as sample i of a batch. */
static eqat_status read_window(evaluation *e, int64_t k, int64_t i)
{
    eqat_sample sample = eqi_samples_at(&e->input, i), marks = eqi_samples_at(&e->marks, k);
    size_t time = (size_t)e->time;
    sample.labels = marks.labels;
    sample.positions = marks.positions;
    sample.segments = marks.segments;
    EQI_RETURN_IF(eqat_data_sample(e->data, false, e->first + k, &sample));
    EQI_RETURN_IF(eqi_model_check_labels(e->model, sample.labels, time));
    if (!sample.positions) return EQAT_OK;
    return eqi_model_check_positions(e->model, sample.positions, time, e->time, &e->length);
}

/* Windows [i, i + n) of the chunk. */
static eqat_status embed(evaluation *e, int64_t i, int64_t n, eqi_tensor *stream)
{
    eqi_tensor *x = NULL;
    eqat_batch batch;
    for (int64_t k = 0; k < n; k++) EQI_RETURN_IF(read_window(e, i + k, k));
    EQI_RETURN_IF(eqi_samples_batch(&e->input, n, e->model, &batch));
    eqat_status st = eqi_model_embed_batch(e->tape, e->model, &batch, &x);
    if (st == EQAT_OK) st = eqi_tensor_copy(stream, x);
    eqi_tensor_unref(batch.embeddings);
    eqi_tensor_unref(x);
    return st;
}

static eqat_status through_block(evaluation *e, const eqi_block *block, int64_t i, int64_t n,
                                 eqi_tensor *stream)
{
    eqi_block_input in = eqi_model_input(e->model, stream);
    eqi_tensor *y = NULL;
    eqi_marks marks;
    for (int64_t k = 0; k < n; k++) e->numbers[k] = i + k;
    EQI_RETURN_IF(eqi_samples_gather(&e->marks, e->numbers, n, &marks));
    in.positions = marks.positions;
    in.segments = marks.segments;
    eqat_status st = eqi_block_forward(e->tape, block, &in, &y);
    if (st == EQAT_OK) st = eqi_tensor_copy(stream, y);
    eqi_marks_release(&marks);
    eqi_tensor_unref(y);
    return st;
}

/* Block NULL is the embedding. */
static eqat_status pass(evaluation *e, const eqi_block *block)
{
    for (int64_t i = 0; i < e->count; i += e->options.batch_size) {
        int64_t n = least(e->options.batch_size, e->count - i);
        eqi_tensor *stream;
        EQI_RETURN_IF(eqi_tensor_slice(e->streams, &stream, 0, i, n));
        eqat_status st = block ? through_block(e, block, i, n, stream) : embed(e, i, n, stream);
        eqi_tensor_unref(stream);
        if (st == EQAT_OK && block) st = tell(e, n);
        EQI_RETURN_IF(st);
    }
    return EQAT_OK;
}

/* Window by window, so that the sum does not depend on the batch size. */
static eqat_status judge(evaluation *e, int64_t i)
{
    const int64_t shape[2] = {1, e->time};
    eqi_tensor *labels = NULL, *stream = NULL, *loss = NULL;
    float value = 0;
    eqat_status st;
    EQI_GOTO(done, eqi_tensor_create(e->ctx, &labels, EQI_I32, 2, shape));
    EQI_GOTO(done,
             eqi_tensor_upload(labels, eqi_samples_at(&e->marks, i).labels,
                               (size_t)e->time * sizeof(int32_t)));
    EQI_GOTO(done, eqi_tensor_slice(e->streams, &stream, 0, i, 1));
    EQI_GOTO(done, eqi_model_head_loss(e->tape, e->model, stream, labels, &loss, NULL));
    EQI_GOTO(done, eqi_tensor_download(loss, &value, sizeof value));
    if (!isfinite(value))
        EQI_GOTO(done,
                 eqi_fail(e->ctx, EQAT_NUMERIC, "window %lld: loss is %s, expected a finite number",
                          (long long)(e->first + i), isnan(value) ? "nan" : "infinite"));
    int64_t tokens = eqi_samples_labels(&e->marks, i);
    e->nll += (double)value * (double)tokens;
    e->tokens += tokens;
    st = tell(e, 1);
done:
    eqi_tensor_unref(labels);
    eqi_tensor_unref(stream);
    eqi_tensor_unref(loss);
    return st;
}

static eqat_status run_chunk(evaluation *e)
{
    EQI_RETURN_IF(pass(e, NULL));
    EQI_RETURN_IF(eqi_model_prepare(e->model, e->length));
    for (int64_t i = 0; i < e->model->config.blocks; i++) {
        const eqi_block *block;
        EQI_RETURN_IF(eqi_block_acquire(e->model, i, &block));
        eqat_status st = pass(e, block);
        eqi_block_release(e->model, i);
        EQI_RETURN_IF(st);
    }
    for (int64_t i = 0; i < e->count; i++) EQI_RETURN_IF(judge(e, i));
    return EQAT_OK;
}

static eqat_status make_samples(evaluation *e, int64_t chunk)
{
    int32_t marks = eqi_samples_marks(e->data);
    int64_t batch = least(e->options.batch_size, chunk);
    e->length = marks & EQAT_SAMPLE_POSITIONS ? 1 : e->time;
    EQI_RETURN_IF(
        eqi_samples_create(e->ctx, &e->marks, e->data, marks | EQAT_SAMPLE_LABELS, chunk));
    EQI_RETURN_IF(
        eqi_samples_create(e->ctx, &e->input, e->data, eqi_samples_input(e->data), batch));
    e->numbers = eqi_calloc(e->ctx, (size_t)batch, sizeof *e->numbers, "sample numbers");
    return e->numbers ? EQAT_OK : EQAT_OUT_OF_MEMORY;
}

static eqat_status run(evaluation *e)
{
    int64_t hidden = e->model->config.hidden,
            bytes = e->time * hidden * (int64_t)eqi_dtype_size(e->model->compute);
    int64_t chunk = least(e->windows, CHUNK_BYTES / bytes > 0 ? CHUNK_BYTES / bytes : 1);
    const int64_t shape[3] = {chunk, e->time, hidden};
    EQI_RETURN_IF(make_samples(e, chunk));
    EQI_RETURN_IF(eqi_tape_create(e->ctx, &e->tape));
    eqi_tape_set_recording(e->tape, false);
    EQI_RETURN_IF(eqi_model_load_ends(e->model));
    EQI_RETURN_IF(eqi_tensor_create(e->ctx, &e->streams, e->model->compute, 3, shape));
    for (; e->first < e->windows; e->first += chunk) {
        e->count = least(chunk, e->windows - e->first);
        EQI_RETURN_IF(run_chunk(e));
    }
    return EQAT_OK;
}

eqat_status eqat_eval_perplexity(eqat_model *model, eqat_data *data,
                                 const eqat_eval_options *options, eqat_perplexity *result)
{
    EQI_ENTER_OF(model);
    EQI_NEED(model->ctx, data, result);
    evaluation e = {.ctx = model->ctx, .model = model, .data = data};
    eqat_perplexity full = {0};
    EQI_RETURN_IF(eqi_options_give(e.ctx, "eqat_perplexity", result, &full,
                                   sizeof full)); /* not after the evaluation */
    EQI_RETURN_IF(eqi_options_take(e.ctx, &eqi_struct_eval, &e.options, options));
    e.time = eqat_data_seq_len(data);
    e.windows = eqat_data_train_size(data);
    if (e.options.max_windows) e.windows = least(e.windows, e.options.max_windows);
    EQI_RETURN_IF(eqi_samples_check(model, data, true));
    eqat_status st = run(&e);
    eqi_tape_free(e.tape);
    eqi_tensor_unref(e.streams);
    eqi_samples_release(&e.input);
    eqi_samples_release(&e.marks);
    eqi_free(e.ctx, e.numbers);
    EQI_RETURN_IF(st);
    if (!e.tokens)
        return eqi_fail(e.ctx, EQAT_INVALID_ARGUMENT,
                        "labels: found all masked, expected at least one token to predict");
    full = (eqat_perplexity){.perplexity = exp(e.nll / (double)e.tokens),
                             .nll = e.nll,
                             .tokens = e.tokens,
                             .windows = e.windows};
    return eqi_options_give(e.ctx, "eqat_perplexity", result, &full, sizeof full);
}
