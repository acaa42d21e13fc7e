/* Sequences that grow, with their keys and values (generate.c); what comes next (choose.c). */
#ifndef EQI_MODEL_GENERATE_H
#define EQI_MODEL_GENERATE_H

#include "base/entry.h"
#include "model/weights.h"

struct eqat_generation {
    eqi_ctx *ctx;
    eqi_handle handle;
    eqat_model *model;
    eqi_tape *tape; /* records nothing */
    int64_t batch, length, capacity;
    eqi_kv *kv;   /* one for each block */
    int64_t held; /* blocks whose weights stay in memory */
};

#endif
