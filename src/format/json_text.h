/* A JSON value in a message. */
#ifndef EQI_FORMAT_JSON_TEXT_H
#define EQI_FORMAT_JSON_TEXT_H

#include <jansson.h>

#define EQI_JSON_TEXT 64

/* Compact, cut off to fit; "nothing" for NULL. Returns buffer. */
static inline const char *eqi_json_text(const json_t *value, char buffer[EQI_JSON_TEXT])
{
    size_t n =
        value ? json_dumpb(value, buffer, EQI_JSON_TEXT - 1, JSON_ENCODE_ANY | JSON_COMPACT) : 0;
    if (!n) n = (size_t)snprintf(buffer, EQI_JSON_TEXT, "nothing");
    buffer[n < EQI_JSON_TEXT ? n : EQI_JSON_TEXT - 1] = 0;
    return buffer;
}

#endif
