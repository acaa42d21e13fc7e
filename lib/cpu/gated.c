#include "cpu/backend.h"
#include "cpu/pieces.h"

typedef struct job {
    const eqi_simd *simd;
    const eqi_view *y, *gate, *up, *dgate, *dup;
    eqi_activation activation;
} job;

static void forward(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    for (int64_t r = first; r < first + count; r++)
        j->simd->gated(eqi_row(j->y, r), eqi_row(j->gate, r), eqi_row(j->up, r), j->activation,
                       j->y->dtype, j->y->shape[1]);
}

eqat_status eqi_cpu_gated(eqi_ctx *ctx, const eqi_view *y, const eqi_view *gate, const eqi_view *up,
                          eqi_activation activation)
{
    job j = {
        .simd = eqi_cpu_of(ctx)->simd, .y = y, .gate = gate, .up = up, .activation = activation};
    eqi_pieces(ctx, y->shape[0], eqi_piece_rows(y->shape[1]), forward, &j);
    return EQAT_OK;
}

static void backward(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    for (int64_t r = first; r < first + count; r++)
        j->simd->gated_bwd(eqi_row(j->dgate, r), eqi_row(j->dup, r), eqi_row(j->y, r),
                           eqi_row(j->gate, r), eqi_row(j->up, r), j->activation, j->y->dtype,
                           j->y->shape[1]);
}

eqat_status eqi_cpu_gated_bwd(eqi_ctx *ctx, const eqi_view *dgate, const eqi_view *dup,
                              const eqi_view *dy, const eqi_view *gate, const eqi_view *up,
                              eqi_activation activation)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd,
             .y = dy,
             .gate = gate,
             .up = up,
             .dgate = dgate,
             .dup = dup,
             .activation = activation};
    eqi_pieces(ctx, dy->shape[0], eqi_piece_rows(dy->shape[1]), backward, &j);
    return EQAT_OK;
}
