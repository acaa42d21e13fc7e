/* What a model is saved as: one row of a table each. */
#ifndef EQI_MODEL_FORMATS_H
#define EQI_MODEL_FORMATS_H

#include "model/model.h"

typedef struct eqi_format {
    const char *name; /* "gptq_v2" */
    /* Whether the format can hold the model, its dense linears quantized by `quantizer` unless that
     * is NULL. Writes nothing. EQAT_UNSUPPORTED with the line why not. */
    eqat_status (*check)(eqat_model *model, const eqat_quantizer *quantizer,
                         const eqat_save_options *options);
    /* Refuses what check refuses, and a path that cannot be written, before memory is rounded.
     * Nothing is left at `path` on failure. */
    eqat_status (*save)(eqat_model *model, const char *path, const eqat_save_options *options);
} eqi_format;

/* Hugging Face folders: options->format is the name of a storage layout that can be written. */
eqat_status eqi_folder_check(eqat_model *model, const eqat_quantizer *quantizer,
                             const eqat_save_options *options);
eqat_status eqi_folder_save(eqat_model *model, const char *path, const eqat_save_options *options);

/* One GGUF file at `path`, where nothing is yet. */
eqat_status eqi_gguf_file_check(eqat_model *model, const eqat_quantizer *quantizer,
                                const eqat_save_options *options);
eqat_status eqi_gguf_file_save(eqat_model *model, const char *path,
                               const eqat_save_options *options);

/* ---- for formats ---- */

/* What a driver of the user's trained takes the values that a file will hold; nothing while an
 * E2E-QP job trains them. */
eqat_status eqi_round_trained(eqat_model *model);

/* Calls options->progress, when there is one, before part `at` of the model: 0 embeddings, then the
 * blocks, then what is behind them, and at the end; `work` "step", or what comes before it.
 * EQAT_CANCELLED when it says so. */
eqat_status eqi_save_tell(const eqat_model *model, const eqat_save_options *options,
                          const char *work, int64_t at);

/* Codes, scales and zero points of a packed linear, `linear` being it as layouts see it; freed by
 * the caller. */
eqat_status eqi_model_packed(eqat_model *model, const eqi_linear *l,
                             const eqi_layout_linear *linear, eqi_packed *out);

#endif
