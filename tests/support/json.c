#include "json.h"

#include <jansson.h>

static counter *json_counter;

static void *json_malloc(size_t size)
{
    return !json_counter || granted(json_counter) ? malloc(size) : NULL;
}

void count_json(counter *c)
{
    json_counter = c;
    json_set_alloc_funcs(json_malloc, free);
}

bool json_counts(void) { return json_counter != NULL; }
