#include "cpu/pieces.h"

typedef struct job {
    eqi_piece_fn fn;
    void *arg;
    int64_t count, grain;
} job;

static void task(void *arg, size_t index, int worker)
{
    (void)worker;
    const job *j = arg;
    int64_t first = (int64_t)index * j->grain;
    j->fn(j->arg, first, eqi_min64(j->grain, j->count - first));
}

void eqi_pieces(eqi_ctx *ctx, int64_t count, int64_t grain, eqi_piece_fn fn, void *arg)
{
    if (count <= 0) return;
    if (count <= grain) {
        fn(arg, 0, count);
        return;
    }
    job j = {fn, arg, count, grain};
    eqi_parallel(ctx, (size_t)eqi_ceil_div(count, grain), task, &j);
}

typedef struct sum_job {
    eqi_piece_sum_fn fn;
    void *arg;
    double *parts;
} sum_job;

static void sum_task(void *arg, int64_t first, int64_t count)
{
    const sum_job *j = arg;
    j->parts[first / EQI_PIECE] = j->fn(j->arg, first, count);
}

eqat_status eqi_pieces_sum(eqi_ctx *ctx, int64_t count, eqi_piece_sum_fn fn, void *arg, double *sum)
{
    int64_t pieces = eqi_ceil_div(count, EQI_PIECE);
    *sum = 0.0;
    double *parts =
        eqi_cpu_scratch(ctx, EQI_SCRATCH_OP, (size_t)eqi_max64(1, pieces) * sizeof *parts);
    if (!parts) return EQAT_OUT_OF_MEMORY;
    sum_job j = {fn, arg, parts};
    eqi_pieces(ctx, count, EQI_PIECE, sum_task, &j);
    for (int64_t i = 0; i < pieces; i++) *sum += parts[i];
    return EQAT_OK;
}
