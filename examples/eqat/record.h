/* What a run was given and read, for the log and the saved folder (docs/log.md). */
#ifndef EQAT_TOOL_RECORD_H
#define EQAT_TOOL_RECORD_H

#include <jansson.h>

/* A new "run" event but for what only the context knows. argv: what follows the command's name. */
json_t *record_new(const char *command, int argc, char **argv);
/* All fields of an options struct, but for pointers, as run.options[section]. */
void record_options(json_t *run, const char *section, const char *struct_name, const void *options);
/* A data file into run.files. `use`: "calib", "e2e", "data" or "text". */
void record_file(json_t *run, const char *use, const char *path, long long bytes,
                 const char *sha256);

#endif
