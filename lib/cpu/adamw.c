#include <math.h>
#include <stdatomic.h>

#include "cpu/adamw.h"
#include "cpu/backend.h"
#include "cpu/pieces.h"

typedef struct job {
    const eqi_simd *simd;
    float *p, *m, *v;
    const float *g;
    eqi_adamw_terms terms;
} job;

static void update(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    j->simd->adamw(j->p + first, j->g + first, j->m + first, j->v + first, &j->terms, count);
}

eqi_adamw_terms eqi_cpu_adamw_terms(const eqi_adamw_desc *d, float factor)
{
    double beta1 = (double)d->beta1, beta2 = (double)d->beta2;
    return (eqi_adamw_terms){
        .factor = factor,
        .beta1 = d->beta1,
        .beta2 = d->beta2,
        .gain1 = (float)(1.0 - beta1),
        .gain2 = (float)(1.0 - beta2),
        .eps = d->eps,
        .step_size = (float)((double)d->lr / (1.0 - pow(beta1, (double)d->step))),
        .root = (float)sqrt(1.0 - pow(beta2, (double)d->step)),
        .keep = (float)(1.0 - (double)d->lr * (double)d->weight_decay),
    };
}

/* See lib/cpu/ref/adamw.c. */
eqat_status eqi_cpu_adamw(eqi_ctx *ctx, const eqi_view *p, const eqi_view *g, const eqi_view *m,
                          const eqi_view *v, const eqi_view *factor, const eqi_adamw_desc *d)
{
    float f = factor ? *(const float *)factor->data : 1.0f;
    if (isnan(f)) return EQAT_OK;
    job j = {.simd = eqi_cpu_of(ctx)->simd,
             .p = p->data,
             .m = m->data,
             .v = v->data,
             .g = g->data,
             .terms = eqi_cpu_adamw_terms(d, f)};
    eqi_pieces(ctx, eqi_view_count(p), EQI_PIECE, update, &j);
    return EQAT_OK;
}

static double squares(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    return j->simd->sum_squares(j->g + first, count);
}

eqat_status eqi_cpu_sum_squares(eqi_ctx *ctx, const eqi_view *sum, const eqi_view *g)
{
    job j = {.simd = eqi_cpu_of(ctx)->simd, .g = g->data};
    double total;
    EQI_RETURN_IF(eqi_pieces_sum(ctx, eqi_view_count(g), squares, &j, &total));
    *(double *)sum->data += total;
    return EQAT_OK;
}

typedef struct search {
    const eqi_simd *simd;
    const eqi_view *rows;
    atomic_bool bad;
} search;

static void look(void *arg, int64_t first, int64_t count)
{
    search *f = arg;
    const eqi_view *v = f->rows;
    for (int64_t r = first; r < first + count; r++)
        if (!f->simd->is_finite(eqi_row(v, r), v->dtype, v->shape[1]))
            atomic_store_explicit(&f->bad, true, memory_order_relaxed);
}

bool eqi_cpu_is_finite(eqi_ctx *ctx, const eqi_view *rows)
{
    search f = {.simd = eqi_cpu_of(ctx)->simd, .rows = rows};
    atomic_init(&f.bad, false);
    eqi_pieces(ctx, rows->shape[0], eqi_piece_rows(rows->shape[1]), look, &f);
    return !atomic_load_explicit(&f.bad, memory_order_relaxed);
}
