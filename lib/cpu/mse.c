#include "cpu/backend.h"
#include "cpu/pieces.h"

typedef struct job {
    const eqi_simd *simd;
    const eqi_view *dx, *x, *target;
    float factor;
    bool acc;
} job;

static double error(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    return j->simd->squared_error(eqi_at(j->x, first), eqi_at(j->target, first), j->x->dtype,
                                  j->target->dtype, count);
}

eqat_status eqi_cpu_mse(eqi_ctx *ctx, const eqi_view *loss, const eqi_view *x,
                        const eqi_view *target)
{
    int64_t count = eqi_view_count(x);
    job j = {.simd = eqi_cpu_of(ctx)->simd, .x = x, .target = target};
    double sum;
    EQI_RETURN_IF(eqi_pieces_sum(ctx, count, error, &j, &sum));
    *(float *)loss->data = count > 0 ? (float)(sum / (double)count) : 0.0f;
    return EQAT_OK;
}

static void backward(void *arg, int64_t first, int64_t count)
{
    const job *j = arg;
    j->simd->squared_error_bwd(eqi_at(j->dx, first), j->dx->dtype, eqi_at(j->x, first), j->x->dtype,
                               eqi_at(j->target, first), j->target->dtype, j->factor, count,
                               j->acc);
}

eqat_status eqi_cpu_mse_bwd(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dloss,
                            const eqi_view *x, const eqi_view *target, bool acc)
{
    int64_t count = eqi_view_count(x);
    double factor = 2.0 * (double)*(const float *)dloss->data / (double)eqi_max64(1, count);
    job j = {.simd = eqi_cpu_of(ctx)->simd,
             .dx = dx,
             .x = x,
             .target = target,
             .factor = (float)factor,
             .acc = acc};
    eqi_pieces(ctx, count, EQI_PIECE, backward, &j);
    return EQAT_OK;
}
