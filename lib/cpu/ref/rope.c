#include "cpu/ref/ref.h"

eqat_status eqi_ref_rope(eqi_ctx *ctx, const eqi_view *y, const eqi_view *x, const eqi_view *cos,
                         const eqi_view *sin, const eqi_view *pos, int sign)
{
    (void)ctx;
    int64_t half = ref_width(cos);
    for (int64_t b = 0; b < x->shape[0]; b++)
        for (int64_t t = 0; t < x->shape[1]; t++) {
            int64_t p = pos ? (int64_t)ref_get(pos, ref_at(pos, b, t)) : t;
            for (int64_t h = 0; h < x->shape[2]; h++) {
                for (int64_t c = 0; c < half; c++) {
                    double co = ref_get(cos, ref_at(cos, p, c)),
                           si = sign * ref_get(sin, ref_at(sin, p, c));
                    double lo = ref_get(x, ref_at4(x, b, t, h, c)),
                           hi = ref_get(x, ref_at4(x, b, t, h, c + half));
                    ref_put(y, ref_at4(y, b, t, h, c), lo * co - hi * si);
                    ref_put(y, ref_at4(y, b, t, h, c + half), hi * co + lo * si);
                }
                for (int64_t c = 2 * half; c < x->shape[3]; c++)
                    ref_put(y, ref_at4(y, b, t, h, c), ref_get(x, ref_at4(x, b, t, h, c)));
            }
        }
    return EQAT_OK;
}
