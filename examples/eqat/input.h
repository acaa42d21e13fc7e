/* Data files of a run: their hash, and standard input in the place of one. */
#ifndef EQAT_TOOL_INPUT_H
#define EQAT_TOOL_INPUT_H

#include "tool.h"

typedef struct input {
    const char *path; /* "-": standard input, text */
    char *text;       /* of standard input */
    size_t length;
} input;

/* Reads standard input, or the hash of a file, and puts it into the record; true, or false after
 * telling why not. A log that nobody keeps needs no hash. */
bool input_take(tool *t, input *in, const char *use, const char *path);
void input_release(input *in);
/* As eqat_data_open; text from standard input is tokenized whole. */
eqat_status input_open(tool *t, const input *in, eqat_model *model,
                       const eqat_data_options *options, eqat_data **out);

#endif
