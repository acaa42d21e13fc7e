/* A job's state as one safetensors file: what must agree with the job that reads it, numbers,
 * tensors, and a checksum of all of it. One list of calls, the same for both directions, writes or
 * reads it. */
#ifndef EQI_TRAIN_STATE_H
#define EQI_TRAIN_STATE_H

#include "api/options.h"
#include "format/source.h"
#include "tensor/tensor.h"

typedef struct eqi_state eqi_state;

/* kind: "block-ap". Writing: the file appears, or replaces an older one, when eqi_state_end
 * succeeds. Reading: EQAT_FORMAT for a file of another kind. */
eqat_status eqi_state_create(eqi_ctx *ctx, eqi_state **out, const char *path, const char *kind);
eqat_status eqi_state_open(eqi_ctx *ctx, eqi_state **out, const char *path, const char *kind);
void eqi_state_drop(eqi_state *state); /* without effect; NULL is fine */

/* Metadata, which the job that reads must have too: EQAT_INVALID_ARGUMENT naming path and key, with
 * what was found in the file and what the job has. */
eqat_status eqi_state_agree(eqi_state *state, const char *key, const char *value);
eqat_status eqi_state_agree_hash(eqi_state *state, const char *key, uint64_t hash);
/* Every number, bool and enum of an options struct. */
eqat_status eqi_state_agree_options(eqi_state *state, const eqi_struct *table, const void *options);
/* Written; or read, and EQAT_FORMAT unless 0 <= *number <= most. */
eqat_status eqi_state_number(eqi_state *state, const char *key, int64_t most, int64_t *number);

/* Lists a contiguous tensor, or n values of I64 or F64 on the host, that stay where they are until
 * eqi_state_end. */
eqat_status eqi_state_tensor(eqi_state *state, const char *name, eqi_tensor *t);
eqat_status eqi_state_values(eqi_state *state, const char *name, eqi_stored stored, void *values,
                             int64_t n);
/* The same; EQAT_FORMAT unless what is read fits. */
typedef bool eqi_state_fits(const void *values, int64_t n, int64_t most);
eqat_status eqi_state_fitting(eqi_state *state, const char *name, eqi_stored stored, void *values,
                              int64_t n, eqi_state_fits *fits, int64_t most);
/* n counts from 0 to most. */
eqat_status eqi_state_counts(eqi_state *state, const char *name, int64_t *counts, int64_t n,
                             int64_t most);

/* Writes all that is listed; or checks the file as a whole, and only then fills what is listed.
 * EQAT_FORMAT names the first tensor that is missing or differs, or a checksum that is wrong. Frees
 * the state in every case. */
eqat_status eqi_state_end(eqi_state *state);

/* Folds bytes into a hash; every changed value changes the result. */
uint64_t eqi_state_mix(uint64_t hash, const void *data, size_t n);

#endif
