#include "cpu/backend.h"
#include "cpu/pieces.h"

typedef struct job {
    const eqi_simd *simd;
    const eqi_view *y, *table;
    const int32_t *ids;
    int64_t rows;
} job;

static void gather(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    int64_t width = j->table->shape[1];
    for (int64_t r = first; r < first + count; r++)
        j->simd->convert(eqi_row(j->y, r), j->y->dtype, eqi_row(j->table, j->ids[r]),
                         j->table->dtype, width);
}

eqat_status eqi_cpu_embedding(eqi_ctx *ctx, const eqi_view *y, const eqi_view *ids,
                              const eqi_view *table)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd, .y = y, .table = table, .ids = ids->data};
    eqi_pieces(ctx, ids->shape[0], eqi_piece_rows(table->shape[1]), gather, &j);
    return EQAT_OK;
}

/* A piece owns columns, so that ids that come twice are added in order. */
static void scatter(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    for (int64_t r = 0; r < j->rows; r++) {
        float *to = (float *)eqi_row(j->table, j->ids[r]) + first;
        j->simd->sum_rows(to, eqi_at(j->y, r * j->y->stride[0] + first), j->y->dtype, count, true);
    }
}

eqat_status eqi_cpu_embedding_bwd(eqi_ctx *ctx, const eqi_view *dtable, const eqi_view *ids,
                                  const eqi_view *dy)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd,
             .y = dy,
             .table = dtable,
             .ids = ids->data,
             .rows = ids->shape[0]};
    eqi_pieces(ctx, dtable->shape[1], 256, scatter, &j);
    return EQAT_OK;
}
