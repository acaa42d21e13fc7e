/* JSON of files that strangers made. */
#ifndef EQI_FORMAT_JSON_LOAD_H
#define EQI_FORMAT_JSON_LOAD_H

#include <jansson.h>
#include <stddef.h>

/* Arrays and objects inside one another, at most. */
#define EQI_JSON_DEPTH 100

/* As json_loadb, which reads and releases each level by a call inside a call, 2048 of them: more
 * than EQI_JSON_DEPTH would take the stack of a small thread, and are refused before. */
json_t *eqi_json_load(const char *text, size_t n, size_t flags, json_error_t *error);

#endif
