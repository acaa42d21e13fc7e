#include "cpu/ref/product.h"

double eqi_ref_weight_at(const ref_weight *m, int64_t n, int64_t k, eqi_dtype dtype)
{
    if (m->codes) return ref_as(dtype, ref_dequant(m->codes, m->s, m->z, m->q, n, k));
    double w = ref_get(m->w, ref_at(m->w, n, k));
    if (!m->s) return ref_as(dtype, w);
    double s = ref_scale_clamped(m->s, m->q, n, k), z = ref_zero(m->z, m->q, n, k);
    return ref_as(dtype, ref_fake(ref_is_wide(m->w), w, s, z, ref_top(m->q)).value);
}

eqat_status eqi_ref_product(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const ref_weight *m,
                            const eqi_view *bias)
{
    int64_t rows = eqi_view_rows(x), out = ref_width(y), in = ref_width(x);
    double *row = eqi_alloc(ctx, (size_t)in * sizeof *row, "a row of a weight");
    if (!row) return EQAT_OUT_OF_MEMORY;
    for (int64_t n = 0; n < out; n++) {
        for (int64_t k = 0; k < in; k++) row[k] = eqi_ref_weight_at(m, n, k, x->dtype);
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = ref_row(x, r);
            double sum = bias ? ref_get(bias, ref_elem(bias, n)) : 0.0;
            for (int64_t k = 0; k < in; k++) sum += ref_get(x, at + k) * row[k];
            ref_put(y, ref_at(y, r, n), sum);
        }
    }
    eqi_free(ctx, row);
    return EQAT_OK;
}

eqat_status eqi_ref_product_bwd_x(eqi_ctx *ctx, const eqi_view *dx, const eqi_view *dy,
                                  const ref_weight *m, bool acc)
{
    int64_t rows = eqi_view_rows(dy), out = ref_width(dy), in = ref_width(dx);
    double *column = eqi_alloc(ctx, (size_t)out * sizeof *column, "a column of a weight");
    if (!column) return EQAT_OUT_OF_MEMORY;
    for (int64_t k = 0; k < in; k++) {
        for (int64_t n = 0; n < out; n++) column[n] = eqi_ref_weight_at(m, n, k, dy->dtype);
        for (int64_t r = 0; r < rows; r++) {
            int64_t at = ref_row(dy, r);
            double sum = 0.0;
            for (int64_t n = 0; n < out; n++) sum += ref_get(dy, at + n) * column[n];
            ref_add(dx, ref_at(dx, r, k), sum, acc);
        }
    }
    eqi_free(ctx, column);
    return EQAT_OK;
}

void eqi_ref_product_dw(double *dw, const eqi_view *dy, const eqi_view *x, int64_t n)
{
    for (int64_t k = 0; k < ref_width(x); k++) dw[k] = 0.0;
    for (int64_t r = 0; r < eqi_view_rows(x); r++) {
        int64_t at = ref_row(x, r);
        double g = ref_get(dy, ref_at(dy, r, n));
        for (int64_t k = 0; k < ref_width(x); k++) dw[k] += g * ref_get(x, at + k);
    }
}
