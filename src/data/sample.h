/* Arrays of samples: what a record of calibration data is written to and read from. */
#ifndef EQI_DATA_SAMPLE_H
#define EQI_DATA_SAMPLE_H

#include "base/context.h"
#include "eqat/data.h"

/* Arrays of `tokens` values for each of `fields` (eqat_sample_field, or-ed), NULL for the others;
 * embeddings have `hidden` values a token. On failure nothing is left. */
eqat_status eqi_sample_create(eqi_ctx *ctx, eqat_sample *out, int32_t fields, int64_t tokens,
                              int64_t hidden);
void eqi_sample_release(eqi_ctx *ctx, eqat_sample *sample);

/* A caller's sample, of any struct_size: EQAT_UNSUPPORTED for members that are not known here. */
eqat_status eqi_sample_given(eqi_ctx *ctx, const eqat_sample *sample, eqat_sample *out);
/* The fields whose arrays are there. */
int32_t eqi_sample_fields(const eqat_sample *sample);
/* The same arrays from token `first` on. */
eqat_sample eqi_sample_from(const eqat_sample *sample, int64_t first, int64_t hidden);
/* Of arrays that both have, those of `other`. */
void eqi_sample_replace(eqat_sample *sample, const eqat_sample *other);

/* Labels [time] from ids: each position predicts the next one of its segment (NULL: there is one),
 * the last is masked. */
void eqi_sample_shift(const int32_t *ids, const int32_t *segments, int64_t time, int32_t *labels);
/* EQAT_FORMAT for an id, label or position that cannot be; `where` names the sample in the message.
 * vocab 0: not known. */
eqat_status eqi_sample_check(eqi_ctx *ctx, const eqat_sample *sample, int64_t time, int64_t vocab,
                             const char *where);

#endif
