/* What a folder will hold, known before its first byte. */
#ifndef EQI_MODEL_FOLDER_H
#define EQI_MODEL_FOLDER_H

#include "model/formats.h"

typedef struct eqi_folder {
    const eqi_layout *layout;
    const eqat_save_options *options;
    eqi_layout_linear *linears; /* of all blocks, in order */
    size_t n;
    bool packed; /* any of them */
} eqi_folder;

/* Refuses what the layout cannot hold.  quantizer: for linears that are dense now, or NULL.
 * eqi_folder_release in every case. */
eqat_status eqi_folder_plan(eqat_model *model, const eqat_quantizer *quantizer,
                            const eqat_save_options *options, eqi_folder *out);
void eqi_folder_release(eqat_model *model, eqi_folder *folder);
/* Says in the log what engines cannot do with it. */
void eqi_folder_warn(eqat_model *model, const eqi_folder *folder);
/* config.json, with quantization_config as the layout has it, and the small files beside it. */
eqat_status eqi_save_config(eqat_model *model, const eqi_folder *folder, const char *dir);

#endif
