/* The folder that a run saves: checked before the work, whole or not there after it. */
#ifndef EQAT_TOOL_OUTPUT_H
#define EQAT_TOOL_OUTPUT_H

#include "tool.h"

typedef struct output {
    const char *path;
    const char *model; /* what the run reads, which force does not replace */
    bool force;        /* a model's folder there is replaced when the new one is whole */
} output;

/* The flag that sets `force`. */
#define FORCE_FLAG(out)                                                                       \
    {                                                                                         \
        .name = "force", .help = "replace a model's folder there, once the new one is whole", \
        .on = &(out)->force                                                                   \
    }

/* What saving would refuse after hours of training is refused before them. */
eqat_status output_check(tool *t, const output *out);
/* The model with eqat_config.json and eqat_log.jsonl; its size is told. */
eqat_status output_save(tool *t, const output *out, eqat_model *model,
                        const eqat_save_options *options);
/* What the input's own record and log say goes in front of this run's. */
void output_inherit(tool *t, const char *model);

#endif
