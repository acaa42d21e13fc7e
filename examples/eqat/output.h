/* The folder that a run saves: checked before the work, whole or not there after it. */
#ifndef EQAT_TOOL_OUTPUT_H
#define EQAT_TOOL_OUTPUT_H

#include "tool.h"

typedef struct output {
    const char *path;
    const char *model; /* what the run reads, which force does not replace */
    bool force;        /* a model's folder there is replaced when the new one is whole */
    bool staged;       /* output_save_stage has left the result of the first phase */
} output;

/* The flags that set `path` and `force`. */
#define OUT_FLAG(out, model)                                                            \
    {                                                                                   \
        .name = "out", .value = "DIR",                                                  \
        .help = "where the " model " model goes: a new or empty folder, or a new file", \
        .text = &(out)->path                                                            \
    }
#define FORCE_FLAG(out)                                                              \
    {                                                                                \
        .name = "force", .help = "replace a model there, once the new one is whole", \
        .on = &(out)->force                                                          \
    }

/* What saving would refuse after hours of training is refused before them.  What runs that were
 * killed left beside the place goes, or goes back to it. */
eqat_status output_check(tool *t, const output *out, const eqat_save_options *options);
/* Whether eqat_config.json of the folder there names this run among those that made it. */
bool output_is_of(const char *out, const json_t *run);
/* Puts the digest of this identity (identity.h) into the run's record. True: the last run that made
 * what is there has the same, and it is not to be replaced. */
bool output_is_same(tool *t, const output *out, const json_t *of);
/* Whether the log of the folder there has such an event. */
bool output_log_has(const char *out, const char *event);
/* Removes the result of that run's first phase. */
void output_drop_stage(const output *out, const json_t *run);
/* Tells of a result that is in its place. */
eqat_status output_found(tool *t, const output *out);
/* The model, a folder with eqat_config.json and eqat_log.jsonl or a GGUF file without; its size is
 * told. */
eqat_status output_save(tool *t, const output *out, eqat_model *model,
                        const eqat_save_options *options);
/* The log's lines since then, or from a byte on that is not negative, into the folder's log. */
void output_log_on(tool *t, const output *out, const eqat_save_options *options, long long from);
/* The result of a phase, kept beside the place as PATH.block-ap until the whole run is saved. */
eqat_status output_check_stage(tool *t, const output *out, const eqat_save_options *options);
eqat_status output_save_stage(tool *t, output *out, eqat_model *model,
                              const eqat_save_options *options);
/* With the run's status: removes the result of the phase, or tells where it is and what goes on
 * from it; `from_there`: flags of that command. What cannot be removed stays `staged`. */
void output_end_stage(tool *t, output *out, eqat_status status, const char *from_there);
/* What the input's own record and log say goes in front of this run's. */
void output_inherit(tool *t, const char *model);

#endif
