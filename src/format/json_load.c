#include "format/json_load.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* What is no JSON is counted somehow: jansson refuses it. */
static bool is_deep(const char *text, size_t n, json_error_t *error)
{
    int depth = 0, line = 1;
    bool quoted = false;
    for (size_t i = 0, start = 0; i < n; i++) {
        char c = text[i];
        if (c == '\n') {
            line++;
            start = i + 1;
        }
        if (c == '"') quoted = !quoted;
        if (quoted && c == '\\') i++;
        if (quoted) continue;
        depth += (c == '[' || c == '{') - (c == ']' || c == '}');
        if (depth <= EQI_JSON_DEPTH) continue;
        *error = (json_error_t){.line = line, .column = (int)(i - start), .position = (int)i};
        snprintf(error->text, sizeof error->text, "more than %d levels of nesting", EQI_JSON_DEPTH);
        return true;
    }
    return false;
}

json_t *eqi_json_load(const char *text, size_t n, size_t flags, json_error_t *error)
{
    return is_deep(text, n, error) ? NULL : json_loadb(text, n, flags, error);
}
