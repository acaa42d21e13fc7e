#include "quant/start.h"

#include "backend/backend.h"
#include "eqat/quantizer.h"

const eqi_start eqi_starts[] = {
    [EQAT_INIT_MINMAX] = {.name = "minmax"},
    [EQAT_INIT_MSE] = {.name = "mse", .search = true},
    [EQAT_INIT_WMSE] = {.name = "wmse", .search = true, .moments = EQI_MOMENTS_DIAGONAL},
    [EQAT_INIT_GPTQ] = {.name = "gptq",
                        .search = true,
                        .moments = EQI_MOMENTS_FULL,
                        .feedback = true},
    [EQAT_INIT_DESCENT] = {.name = "descent",
                           .search = true,
                           .moments = EQI_MOMENTS_FULL,
                           .feedback = true,
                           .descent = true},
};

eqat_status eqi_moments_diagonal(const eqi_tensor *moments, eqi_tensor **out)
{
    eqi_ctx *ctx = eqi_tensor_ctx(moments);
    const int64_t k = moments->v.shape[1];
    EQI_RETURN_IF(eqi_tensor_create(ctx, out, EQI_F32, 1, &k));
    const eqi_view diagonal = {
        .data = moments->v.data, .dtype = EQI_F32, .ndim = 1, .shape = {k}, .stride = {k + 1}};
    eqat_status st = ctx->backend->copy(ctx, &(*out)->v, &diagonal);
    if (st == EQAT_OK) return EQAT_OK;
    eqi_tensor_unref(*out);
    *out = NULL;
    return st;
}

eqat_status eqi_start_scales(const eqi_start *start, eqi_tensor *w, eqi_tensor *moments,
                             const eqi_quant_desc *desc, eqi_tensor **s, eqi_tensor **z)
{
    if (!start->search) return eqi_quant_minmax(w, desc, s, z);
    if (!start->moments || !moments) return eqi_quant_search(w, NULL, desc, s, z);
    if (moments->v.ndim != 2) return eqi_quant_search(w, moments, desc, s, z);
    eqi_tensor *diagonal;
    EQI_RETURN_IF(eqi_moments_diagonal(moments, &diagonal));
    eqat_status st = eqi_quant_search(w, diagonal, desc, s, z);
    eqi_tensor_unref(diagonal);
    return st;
}
