#include "train/samples.h"

/* A pass that trains nothing takes up to so many steps' samples at once, of up to so many tokens:
 * few tokens wait for weights and second moments, which every batch reads, and what so many need
 * without a way back is about what a step needs with one. */
#define PASS_STEPS 4
#define PASS_TOKENS 1024

int64_t eqi_samples_of_pass(int64_t batch, int64_t time)
{
    const int64_t few = PASS_TOKENS / time / batch, steps = few < PASS_STEPS ? few : PASS_STEPS;
    return steps > 1 ? steps * batch : batch;
}

int32_t eqi_samples_input(const eqat_data *data)
{
    return eqat_data_fields(data) & EQAT_SAMPLE_EMBEDDINGS ? EQAT_SAMPLE_EMBEDDINGS
                                                           : EQAT_SAMPLE_IDS;
}

int32_t eqi_samples_marks(const eqat_data *data)
{
    return eqat_data_fields(data) & (EQAT_SAMPLE_POSITIONS | EQAT_SAMPLE_SEGMENTS);
}

eqat_status eqi_samples_check(const eqat_model *m, const eqat_data *data, bool labels)
{
    int32_t fields = eqat_data_fields(data);
    int64_t hidden = eqat_data_hidden_size(data);
    if (hidden && hidden != m->config.hidden)
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "embeddings: found hidden_size %lld, expected %lld", (long long)hidden,
                        (long long)m->config.hidden);
    if (!labels || fields & EQAT_SAMPLE_LABELS) return EQAT_OK;
    if (!(fields & EQAT_SAMPLE_IDS))
        return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                        "samples: found embeddings alone, expected labels with them");
    if (eqat_data_seq_len(data) >= 2) return EQAT_OK;
    return eqi_fail(m->ctx, EQAT_INVALID_ARGUMENT,
                    "seq_len: found 1, expected at least 2 for a token to predict");
}

eqat_status eqi_samples_create(eqi_ctx *ctx, eqi_samples *out, const eqat_data *data,
                               int32_t fields, int64_t n)
{
    *out = (eqi_samples){
        .ctx = ctx, .time = eqat_data_seq_len(data), .hidden = eqat_data_hidden_size(data)};
    return eqi_sample_create(ctx, &out->arrays, fields, n * out->time, out->hidden);
}

void eqi_samples_release(eqi_samples *s)
{
    if (s->ctx) eqi_sample_release(s->ctx, &s->arrays);
}

eqat_sample eqi_samples_at(const eqi_samples *s, int64_t i)
{
    return eqi_sample_from(&s->arrays, i * s->time, s->hidden);
}

static eqat_status embeddings(const eqi_samples *s, int64_t n, eqi_dtype dtype, eqi_tensor **out)
{
    const int64_t shape[3] = {n, s->time, s->hidden};
    eqi_tensor *wide;
    EQI_RETURN_IF(eqi_tensor_create(s->ctx, &wide, EQI_F32, 3, shape));
    eqat_status st = eqi_tensor_upload(wide, s->arrays.embeddings,
                                       (size_t)(n * s->time * s->hidden) * sizeof(float));
    if (st == EQAT_OK) st = eqi_tensor_cast(wide, dtype, out);
    eqi_tensor_unref(wide);
    return st;
}

eqat_status eqi_samples_batch(const eqi_samples *s, int64_t n, const eqat_model *m, eqat_batch *b)
{
    const eqat_sample *a = &s->arrays;
    eqat_batch_init(b, sizeof *b);
    b->batch = n;
    b->time = s->time;
    b->ids = a->ids;
    b->labels = a->labels;
    b->positions = a->positions;
    b->segments = a->segments;
    return a->embeddings ? embeddings(s, n, m->compute, &b->embeddings) : EQAT_OK;
}

static eqat_status gather(const eqi_samples *s, const int32_t *values, const int64_t *numbers,
                          int64_t n, eqi_tensor **out)
{
    const int64_t shape[2] = {n, s->time};
    const size_t row = (size_t)s->time * sizeof *values;
    EQI_RETURN_IF(eqi_tensor_create(s->ctx, out, EQI_I32, 2, shape));
    for (int64_t i = 0; i < n; i++)
        EQI_RETURN_IF(
            eqi_tensor_upload_part(*out, (size_t)i * row, values + numbers[i] * s->time, row));
    return EQAT_OK;
}

eqat_status eqi_samples_gather(const eqi_samples *s, const int64_t *numbers, int64_t n,
                               eqi_marks *out)
{
    const eqat_sample *a = &s->arrays;
    eqat_status st = EQAT_OK;
    *out = (eqi_marks){0};
    if (a->positions) st = gather(s, a->positions, numbers, n, &out->positions);
    if (st == EQAT_OK && a->segments) st = gather(s, a->segments, numbers, n, &out->segments);
    if (st != EQAT_OK) eqi_marks_release(out);
    return st;
}

void eqi_marks_release(eqi_marks *marks)
{
    eqi_tensor_unref(marks->positions);
    eqi_tensor_unref(marks->segments);
    *marks = (eqi_marks){0};
}

int64_t eqi_samples_labels(const eqi_samples *s, int64_t i)
{
    const int32_t *labels = s->arrays.labels + i * s->time;
    int64_t count = 0;
    for (int64_t t = 0; t < s->time; t++) count += labels[t] >= 0;
    return count;
}
