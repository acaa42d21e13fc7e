/* The memory of the JSON library, which is not the context's. */
#ifndef TESTS_SUPPORT_JSON_H
#define TESTS_SUPPORT_JSON_H

#include "context.h"

/* Its requests count too, and fail; NULL: they do not. */
void count_json(counter *c);
bool json_counts(void);

#endif
