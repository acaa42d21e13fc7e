#include "cpu/ref/ref.h"

static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }

eqat_status eqi_ref_silu_mul(eqi_ctx *ctx, const eqi_view *y, const eqi_view *gate,
                             const eqi_view *up)
{
    (void)ctx;
    for (int64_t i = 0; i < eqi_view_count(y); i++) {
        double g = ref_get(gate, ref_elem(gate, i));
        ref_put(y, ref_elem(y, i), g * sigmoid(g) * ref_get(up, ref_elem(up, i)));
    }
    return EQAT_OK;
}

eqat_status eqi_ref_silu_mul_bwd(eqi_ctx *ctx, const eqi_view *dgate, const eqi_view *dup,
                                 const eqi_view *dy, const eqi_view *gate, const eqi_view *up)
{
    (void)ctx;
    for (int64_t i = 0; i < eqi_view_count(dy); i++) {
        double d = ref_get(dy, ref_elem(dy, i)), g = ref_get(gate, ref_elem(gate, i)),
               u = ref_get(up, ref_elem(up, i));
        double s = sigmoid(g);
        ref_put(dgate, ref_elem(dgate, i), d * u * s * (1.0 + g * (1.0 - s)));
        ref_put(dup, ref_elem(dup, i), d * g * s);
    }
    return EQAT_OK;
}
