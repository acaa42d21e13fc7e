/* The folder that a run saves: checked before the work, whole or not there after it. */
#ifndef EQAT_TOOL_OUTPUT_H
#define EQAT_TOOL_OUTPUT_H

#include "tool.h"

typedef struct output {
    const char *path;
    const char *model; /* what the run reads, which force does not replace */
    bool force;        /* a model's folder there is replaced when the new one is whole */
} output;

/* What saving would refuse after hours of training is refused before them. */
eqat_status output_check(tool *t, const output *out);
/* The model with eqat_config.json and eqat_log.jsonl. */
eqat_status output_save(tool *t, const output *out, eqat_model *model);
/* What the input's own record and log say goes in front of this run's. */
void output_inherit(tool *t, const char *model);

#endif
