#include "cpu/ref/ref.h"

eqat_status eqi_ref_embedding(eqi_ctx *ctx, const eqi_view *y, const eqi_view *ids,
                              const eqi_view *table)
{
    (void)ctx;
    for (int64_t r = 0; r < eqi_view_count(ids); r++) {
        int64_t id = (int64_t)ref_get(ids, ref_elem(ids, r));
        for (int64_t j = 0; j < ref_width(y); j++)
            ref_put(y, ref_at(y, r, j), ref_get(table, ref_at(table, id, j)));
    }
    return EQAT_OK;
}

eqat_status eqi_ref_embedding_bwd(eqi_ctx *ctx, const eqi_view *dtable, const eqi_view *ids,
                                  const eqi_view *dy)
{
    (void)ctx;
    for (int64_t r = 0; r < eqi_view_count(ids); r++) {
        int64_t id = (int64_t)ref_get(ids, ref_elem(ids, r));
        for (int64_t j = 0; j < ref_width(dy); j++)
            ref_add(dtable, ref_at(dtable, id, j), ref_get(dy, ref_at(dy, r, j)), true);
    }
    return EQAT_OK;
}
