#include "cpu/ref/ref.h"

static int64_t number(const eqi_view *list, int64_t i)
{
    return (int64_t)ref_get(list, ref_elem(list, i));
}

static double weight(const eqi_view *weights, const eqi_view *row, const eqi_view *slot, int64_t i)
{
    return weights ? ref_get(weights, ref_at(weights, number(row, i), number(slot, i))) : 1.0;
}

eqat_status eqi_ref_gather_rows(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x,
                                const eqi_view *row, const eqi_view *slot, const eqi_view *weights)
{
    (void)ctx;
    for (int64_t i = 0; i < eqi_view_count(row); i++)
        for (int64_t j = 0; j < ref_width(y); j++)
            ref_put(y, ref_at(y, i, j),
                    weight(weights, row, slot, i) * ref_get(x, ref_at(x, number(row, i), j)));
    return EQAT_OK;
}

eqat_status eqi_ref_scatter_rows(eqi_ctx *ctx, const eqi_view *x, const eqi_view *y,
                                 const eqi_view *row, const eqi_view *slot, const eqi_view *weights)
{
    (void)ctx;
    for (int64_t i = 0; i < eqi_view_count(row); i++)
        for (int64_t j = 0; j < ref_width(y); j++)
            ref_add(x, ref_at(x, number(row, i), j),
                    weight(weights, row, slot, i) * ref_get(y, ref_at(y, i, j)), true);
    return EQAT_OK;
}

eqat_status eqi_ref_dot_rows(eqi_ctx *ctx, const eqi_view *dweights, const eqi_view *x,
                             const eqi_view *y, const eqi_view *row, const eqi_view *slot)
{
    (void)ctx;
    for (int64_t i = 0; i < eqi_view_count(row); i++) {
        double sum = 0.0;
        for (int64_t j = 0; j < ref_width(y); j++)
            sum += ref_get(x, ref_at(x, number(row, i), j)) * ref_get(y, ref_at(y, i, j));
        ref_add(dweights, ref_at(dweights, number(row, i), number(slot, i)), sum, true);
    }
    return EQAT_OK;
}
