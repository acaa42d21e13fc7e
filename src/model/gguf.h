/* What the files that write a model as GGUF share. */
#ifndef EQI_MODEL_GGUF_H
#define EQI_MODEL_GGUF_H

#include "format/gguf_write.h"
#include "model/model.h"

/* The architecture's keys, out of the model's configuration. EQAT_UNSUPPORTED by the key of
 * config.json: what GGUF cannot say, or what its readers would compute otherwise. */
eqat_status eqi_gguf_put_config(const eqat_model *model, eqi_gguf_writer *w);

/* The factors of rope_freqs.weight, head_dim / 2 of them; false: the model needs none. */
bool eqi_gguf_rope_factors(const eqat_model *model, float *factors);

#endif
