/* A context that computes: its pool, its device and its memory for tensors. */
#ifndef EQI_ENGINE_ENGINE_H
#define EQI_ENGINE_ENGINE_H

#include "base/threads.h"

typedef struct eqi_ctx_config {
    const char *device; /* "cpu", "ref", "cuda:0"; NULL: "cpu" */
    int threads;        /* 0: one per available processor */
    uint64_t seed;
    eqi_allocator allocator;
    eqi_log_fn log;
    void *log_user;
    int log_level;
    eqi_parallel_fn parallel; /* NULL: threads of the context's own */
    void *parallel_user;
    bool no_amx;            /* leave AMX alone, also in libraries below */
    void *stream;           /* of the device, the caller's; NULL: one of the context's own */
    uint64_t device_memory; /* the most bytes of the device to hold; 0: no limit */
} eqi_ctx_config;

/* error, when given, receives the one line that an eqat_context would otherwise hold. Given up with
 * eqi_ctx_unref. */
eqat_status eqi_ctx_create(eqi_ctx **out, const eqi_ctx_config *config, char *error,
                           size_t error_size);

#endif
