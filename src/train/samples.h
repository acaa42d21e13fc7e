/* Samples of calibration data on the host, as what a model takes. */
#ifndef EQI_TRAIN_SAMPLES_H
#define EQI_TRAIN_SAMPLES_H

#include "data/sample.h"
#include "model/model.h"

typedef struct eqi_samples {
    eqi_ctx *ctx; /* borrowed */
    int64_t time, hidden;
    eqat_sample arrays; /* of all samples, one behind the other */
} eqi_samples;

/* Fields that a model reads from samples of `data`: embeddings if there are any, else ids. */
int32_t eqi_samples_input(const eqat_data *data);
/* Fields that blocks need besides: those of positions and segments that there are. */
int32_t eqi_samples_marks(const eqat_data *data);
/* Labels can be had, T is at least 2 where they are shifted ids, and embeddings fit the model:
 * EQAT_INVALID_ARGUMENT. */
eqat_status eqi_samples_check(const eqat_model *model, const eqat_data *data, bool labels);

/* Room for `n` samples with these fields. */
eqat_status eqi_samples_create(eqi_ctx *ctx, eqi_samples *out, const eqat_data *data,
                               int32_t fields, int64_t n);
void eqi_samples_release(eqi_samples *samples);
/* The arrays of sample i. */
eqat_sample eqi_samples_at(const eqi_samples *samples, int64_t i);

/* The first n samples as a batch for `model`; members of fields that are not there stay NULL. The
 * arrays are borrowed; batch->embeddings is the caller's. */
eqat_status eqi_samples_batch(const eqi_samples *samples, int64_t n, const eqat_model *model,
                              eqat_batch *batch);
/* What a block takes besides x of the samples with these numbers, I32 [n, T], each NULL where the
 * field is not there; the caller's. */
typedef struct eqi_marks {
    eqi_tensor *positions, *segments;
} eqi_marks;
eqat_status eqi_samples_gather(const eqi_samples *samples, const int64_t *numbers, int64_t n,
                               eqi_marks *out);
void eqi_marks_release(eqi_marks *marks);

/* Samples that a pass takes at once which trains nothing, where a step takes `batch`. */
int64_t eqi_samples_of_pass(int64_t batch, int64_t time);

/* Labels that are not masked. */
int64_t eqi_samples_labels(const eqi_samples *samples, int64_t i);

#endif
