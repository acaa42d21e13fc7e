/* A fork-join pool that belongs to one context. */
#ifndef EQI_BASE_THREADS_H
#define EQI_BASE_THREADS_H

#include "base/context.h"

/* One task: `index` in [0, count), `worker` in [0, eqi_pool_size()). What a task computes may
 * depend on index alone, so that results do not depend on the number of threads; worker picks
 * scratch memory. */
typedef void (*eqi_task_fn)(void *arg, size_t index, int worker);

/* Somebody else's threads: calls task(arg, i) for every i in [0, count), on any threads, and
 * returns when all calls have. */
typedef void (*eqi_parallel_fn)(void *user, size_t count, void (*task)(void *arg, size_t index),
                                void *arg);

/* `threads` of its own (0: one per available processor), or as many tasks at once for `borrowed`
 * when it is not NULL. Tasks run under the default floating-point control. */
eqat_status eqi_pool_create(eqi_ctx *ctx, eqi_pool **out, int threads, eqi_parallel_fn borrowed,
                            void *borrowed_user);
void eqi_pool_free(eqi_ctx *ctx, eqi_pool *pool);
int eqi_pool_size(const eqi_pool *pool);
/* Runs all tasks and returns when the last is done. A thread has a share of consecutive tasks, the
 * same in every call of as many, and helps the others when it is through; the calling thread is
 * worker 0, and its OpenMP settings are afterwards what they were. A job is dealt to as many
 * threads as it has tasks, and to two for each processor at most; sleeping threads wake one after
 * another while tasks are left, and only a thread that has taken a task is waited for. So a short
 * job, and a busy machine, cost no more than the calling thread alone. */
void eqi_parallel(eqi_ctx *ctx, size_t count, eqi_task_fn fn, void *arg);

/* What a long computation looks at between two pieces of its work. */
typedef struct eqi_stop {
    const atomic_int *asked;
    atomic_bool heard; /* something was left out */
} eqi_stop;

static inline void eqi_stop_init(eqi_stop *stop, const eqi_ctx *ctx)
{
    stop->asked = &ctx->cancelled;
    atomic_init(&stop->heard, false);
}

/* Whether to stop here; the result is then worth nothing. */
static inline bool eqi_stop_here(eqi_stop *stop)
{
    if (!atomic_load_explicit(stop->asked, memory_order_relaxed)) return false;
    atomic_store_explicit(&stop->heard, true, memory_order_relaxed);
    return true;
}

/* Leaves tasks out once eqat_context_cancel was called; EQAT_CANCELLED when any was, or when a task
 * has stopped half-way. */
eqat_status eqi_parallel_or_stop(eqi_ctx *ctx, eqi_stop *stop, size_t count, eqi_task_fn fn,
                                 void *arg);

#endif
