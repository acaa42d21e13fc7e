/* Keys of config.json that nothing reads. */
#ifndef EQI_MODEL_CONFIG_KEYS_H
#define EQI_MODEL_CONFIG_KEYS_H

#include <jansson.h>

#include "base/context.h"

/* Those that were read; names are literals. */
typedef struct eqi_keys {
    const char *names[64];
    size_t n;
} eqi_keys;

void eqi_keys_add(eqi_keys *keys, const char *name);
/* Looks at the members of an object that are not among `read`: a value that would change what
 * another implementation computes is EQAT_UNSUPPORTED, keys that nobody knows are listed in the
 * log. `where` stands before a key: "" or "rope_scaling.". */
eqat_status eqi_keys_check_rest(eqi_ctx *ctx, const json_t *object, const eqi_keys *read,
                                const char *path, const char *where);

#endif
