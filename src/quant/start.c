#include "quant/start.h"

#include "eqat/quantizer.h"

const eqi_start eqi_starts[] = {
    [EQAT_INIT_MINMAX] = {.name = "minmax"},
    [EQAT_INIT_MSE] = {.name = "mse", .search = true},
    [EQAT_INIT_WMSE] = {.name = "wmse", .search = true, .moments = EQI_MOMENTS_DIAGONAL},
};

eqat_status eqi_start_scales(const eqi_start *start, eqi_tensor *w, eqi_tensor *moments,
                             const eqi_quant_desc *desc, eqi_tensor **s, eqi_tensor **z)
{
    if (!start->search) return eqi_quant_minmax(w, desc, s, z);
    return eqi_quant_search(w, start->moments ? moments : NULL, desc, s, z);
}
