/* Hashes by which a saved state tells whether it belongs to a job. */
#ifndef EQI_TRAIN_FINGERPRINT_H
#define EQI_TRAIN_FINGERPRINT_H

#include "data/data.h"
#include "model/model.h"

/* Of the input: configuration, names, types and shapes of all tensors, and the first bytes of each.
 */
eqat_status eqi_fingerprint_files(const eqat_model *model, uint64_t *hash);
/* Of what is packed in memory: names, sizes, bits and the first codes of each linear. */
eqat_status eqi_fingerprint_codes(const eqat_model *model, uint64_t *hash);
/* How each linear is quantized. */
eqat_status eqi_fingerprint_quantizer(const eqat_model *model, const eqat_quantizer *quantizer,
                                      uint64_t *hash);
/* Sizes, fields, the order of two epochs, and some samples of each kind, evenly spaced. */
eqat_status eqi_fingerprint_data(eqi_ctx *ctx, eqat_data *data, uint64_t *hash);

#endif
