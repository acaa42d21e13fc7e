#include "train/fingerprint.h"

#include <stdlib.h>
#include <string.h>

#include "data/sample.h"
#include "train/state.h"

enum { FIRST_BYTES = 4096, SAMPLES = 64 };

static void mix(uint64_t *hash, const void *data, size_t n)
{
    *hash = eqi_state_mix(*hash, data, n);
}
static void mix_text(uint64_t *hash, const char *text) { mix(hash, text, strlen(text) + 1); }
static void mix_number(uint64_t *hash, int64_t number) { mix(hash, &number, sizeof number); }

static size_t least(uint64_t n) { return n < FIRST_BYTES ? (size_t)n : FIRST_BYTES; }

/* ---- models ---- */

static eqat_status mix_entry(const eqat_model *m, const eqi_source_entry *e, uint64_t *hash)
{
    char bytes[FIRST_BYTES];
    mix_text(hash, e->name);
    mix_text(hash, eqi_stored_name(e->stored));
    mix(hash, e->shape, (size_t)e->ndim * sizeof *e->shape);
    EQI_RETURN_IF(eqi_source_read_raw(m->source, e, 0, least(e->bytes), bytes));
    mix(hash, bytes, least(e->bytes));
    return EQAT_OK;
}

eqat_status eqi_fingerprint_files(const eqat_model *m, uint64_t *hash)
{
    char *text = json_dumps(m->json, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text)
        return eqi_fail(m->ctx, EQAT_OUT_OF_MEMORY, "out of memory: the configuration of %s",
                        m->path);
    *hash = 0;
    mix_text(hash, text);
    free(text);
    for (size_t i = 0; i < eqi_source_count(m->source); i++)
        EQI_RETURN_IF(mix_entry(m, eqi_source_at(m->source, i), hash));
    return EQAT_OK;
}

static eqat_status mix_codes(const eqi_linear *l, uint64_t *hash)
{
    char bytes[FIRST_BYTES];
    const eqi_tensor *codes = l->weight.codes;
    if (!codes) return EQAT_OK;
    size_t n = least((uint64_t)eqi_view_count(&codes->v) * eqi_dtype_size(codes->v.dtype));
    mix_text(hash, l->name);
    mix_number(hash, l->out);
    mix_number(hash, l->in);
    mix_number(hash, l->weight.q.bits);
    mix_number(hash, l->weight.q.group);
    EQI_RETURN_IF(eqi_tensor_download_part(codes, 0, bytes, n));
    mix(hash, bytes, n);
    return EQAT_OK;
}

eqat_status eqi_fingerprint_codes(const eqat_model *m, uint64_t *hash)
{
    *hash = 0;
    for (int64_t b = 0; b < m->config.blocks; b++)
        for (int i = 0; i < m->blocks[b].n_linears; i++)
            EQI_RETURN_IF(mix_codes(&m->blocks[b].linears[i], hash));
    return EQAT_OK;
}

eqat_status eqi_fingerprint_quantizer(const eqat_model *m, const eqat_quantizer *quantizer,
                                      uint64_t *hash)
{
    *hash = 0;
    for (int64_t b = 0; b < m->config.blocks; b++)
        for (int i = 0; i < m->blocks[b].n_linears; i++) {
            eqi_quant quant;
            EQI_RETURN_IF(eqi_linear_choose(&m->blocks[b].linears[i], quantizer, &quant));
            mix_text(hash, quant.kind ? quant.kind->name : "none");
            mix_number(hash, quant.desc.bits);
            mix_number(hash, quant.desc.group);
            mix_text(hash, quant.kind ? quant.init->name : "none");
        }
    return EQAT_OK;
}

/* ---- data ---- */

static eqat_status mix_samples(eqat_data *data, bool validation, const eqat_sample *sample,
                               uint64_t *hash)
{
    int64_t n = validation ? eqat_data_val_size(data) : eqat_data_train_size(data);
    int64_t taken = n < SAMPLES ? n : SAMPLES;
    size_t time = (size_t)eqat_data_seq_len(data), bytes = time * sizeof(int32_t);
    mix_number(hash, n);
    for (int64_t i = 0; i < taken; i++) {
        EQI_RETURN_IF(eqat_data_sample(data, validation, i * n / taken, sample));
        if (sample->ids) mix(hash, sample->ids, bytes);
        if (sample->labels) mix(hash, sample->labels, bytes);
        if (sample->positions) mix(hash, sample->positions, bytes);
        if (sample->segments) mix(hash, sample->segments, bytes);
        if (sample->embeddings)
            mix(hash, sample->embeddings,
                time * (size_t)eqat_data_hidden_size(data) * sizeof(float));
    }
    return EQAT_OK;
}

eqat_status eqi_fingerprint_data(eqi_ctx *ctx, eqat_data *data, uint64_t *hash)
{
    int64_t n = eqat_data_train_size(data), time = eqat_data_seq_len(data);
    int32_t fields = eqat_data_fields(data);
    eqat_sample sample;
    *hash = 0;
    mix_number(hash, fields);
    mix_number(hash, time);
    for (int64_t epoch = 0; epoch < 2; epoch++)
        for (int64_t i = 0; i < n; i++) mix_number(hash, eqat_data_order(data, epoch, i));
    EQI_RETURN_IF(eqi_sample_create(ctx, &sample, fields, time, eqat_data_hidden_size(data)));
    eqat_status st = mix_samples(data, false, &sample, hash);
    if (st == EQAT_OK) st = mix_samples(data, true, &sample, hash);
    eqi_sample_release(ctx, &sample);
    return st;
}
