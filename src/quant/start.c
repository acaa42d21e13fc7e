#include "quant/start.h"

#include "eqat/quantizer.h"

const eqi_start eqi_starts[] = {
    [EQAT_INIT_MINMAX] = {.name = "minmax"},
    [EQAT_INIT_MSE] = {.name = "mse", .search = true},
    [EQAT_INIT_WMSE] = {.name = "wmse", .search = true, .moments = EQI_MOMENTS_DIAGONAL},
    [EQAT_INIT_GPTQ] = {.name = "gptq",
                        .search = true,
                        .moments = EQI_MOMENTS_FULL,
                        .feedback = true},
};

static eqat_status diagonal_of(const eqi_tensor *moments, eqi_tensor **out)
{
    eqi_ctx *ctx = eqi_tensor_ctx(moments);
    const int64_t k = moments->v.shape[1];
    const size_t bytes = (size_t)eqi_view_count(&moments->v) * sizeof(float);
    float *host = eqi_alloc(ctx, bytes, "second moments");
    *out = NULL;
    if (!host) return EQAT_OUT_OF_MEMORY;
    eqat_status st = eqi_tensor_download(moments, host, bytes);
    for (int64_t i = 0; i < k && i < moments->v.shape[0]; i++) host[i] = host[i * k + i];
    if (st == EQAT_OK) st = eqi_tensor_create(ctx, out, EQI_F32, 1, &k);
    if (st == EQAT_OK) st = eqi_tensor_upload(*out, host, (size_t)k * sizeof(float));
    eqi_free(ctx, host);
    return st;
}

eqat_status eqi_start_scales(const eqi_start *start, eqi_tensor *w, eqi_tensor *moments,
                             const eqi_quant_desc *desc, eqi_tensor **s, eqi_tensor **z)
{
    if (!start->search) return eqi_quant_minmax(w, desc, s, z);
    if (!start->moments || !moments) return eqi_quant_search(w, NULL, desc, s, z);
    if (moments->v.ndim != 2) return eqi_quant_search(w, moments, desc, s, z);
    eqi_tensor *diagonal;
    EQI_RETURN_IF(diagonal_of(moments, &diagonal));
    eqat_status st = eqi_quant_search(w, diagonal, desc, s, z);
    eqi_tensor_unref(diagonal);
    return st;
}
