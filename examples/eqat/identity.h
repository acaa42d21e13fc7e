/* What makes two runs the same: options, data and model, without what changes no bit of the
 * result. */
#ifndef EQAT_TOOL_IDENTITY_H
#define EQAT_TOOL_IDENTITY_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* Of a "run" event that is complete. The model's files count with their sizes and what is in them:
 * all of small ones, of large ones 64 KB in every 4 MB. NULL when they cannot be read. */
json_t *identity_of(const json_t *run);
/* Its SHA-256; free(). */
char *identity_digest(const json_t *of);
/* "options.block_ap.epochs: found 1, expected 2"; false when there is no difference. */
bool identity_difference(const json_t *found, const json_t *expected, char *line, size_t size);

#endif
