#include <math.h>

#include "api/options.h"
#include "base/entry.h"
#include "eqat/eval.h"
#include "train/hidden.h"
#include "train/report.h"

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
    int64_t first;     /* window of the chunk in hand */
    int64_t *numbers;  /* of its windows */
    eqi_hidden hidden; /* of the chunk */
    double nll;
    int64_t tokens; /* in nll */
    int64_t steps;  /* one for each window and block, and one for its loss */
} evaluation;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static eqat_status tell(void *user, int64_t windows)
{
    evaluation *e = user;
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

/* Window by window, so that the sum does not depend on the batch size. */
static eqat_status judge(evaluation *e, int64_t i)
{
    const int64_t shape[2] = {1, e->time};
    eqi_tensor *labels = NULL, *stream = NULL, *loss = NULL;
    float value = 0;
    eqat_status st;
    EQI_GOTO(done, eqi_tensor_create(e->ctx, &labels, EQI_I32, 2, shape));
    EQI_GOTO(done,
             eqi_tensor_upload(labels, eqi_samples_at(&e->hidden.marks, i).labels,
                               (size_t)e->time * sizeof(int32_t)));
    EQI_GOTO(done, eqi_tensor_slice(e->hidden.streams, &stream, 0, i, 1));
    EQI_GOTO(done,
             eqi_model_head_loss(e->hidden.tape, e->model, stream, labels, NULL, &loss, NULL));
    EQI_GOTO(done, eqi_tensor_download(loss, &value, sizeof value));
    if (!isfinite(value))
        EQI_GOTO(done,
                 eqi_fail(e->ctx, EQAT_NUMERIC, "window %lld: loss is %s, expected a finite number",
                          (long long)(e->first + i), isnan(value) ? "nan" : "infinite"));
    int64_t tokens = eqi_samples_labels(&e->hidden.marks, i);
    e->nll += (double)value * (double)tokens;
    e->tokens += tokens;
    st = tell(e, 1);
done:
    eqi_tensor_unref(labels);
    eqi_tensor_unref(stream);
    eqi_tensor_unref(loss);
    return st;
}

static eqat_status run_chunk(evaluation *e, int64_t count)
{
    for (int64_t i = 0; i < count; i++) e->numbers[i] = e->first + i;
    EQI_RETURN_IF(eqi_hidden_run(&e->hidden, e->numbers, count));
    for (int64_t i = 0; i < count; i++) EQI_RETURN_IF(judge(e, i));
    return EQAT_OK;
}

static eqat_status run(evaluation *e)
{
    eqi_hidden *h = &e->hidden;
    EQI_RETURN_IF(eqi_hidden_create(h, e->model, e->data, true, e->windows, e->options.batch_size));
    h->tell = tell;
    h->user = e;
    e->numbers = eqi_alloc(e->ctx, (size_t)h->room * sizeof *e->numbers, "window numbers");
    if (!e->numbers) return EQAT_OUT_OF_MEMORY;
    for (; e->first < e->windows; e->first += h->room)
        EQI_RETURN_IF(run_chunk(e, least(h->room, e->windows - e->first)));
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
    eqi_hidden_release(&e.hidden);
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
