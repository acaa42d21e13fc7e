#include "cpu/ref/ref.h"

/* Every activation is x times a logistic function of this; the hyperbolic tangent is one:
 * (1 + tanh(t)) / 2 = 1 / (1 + exp(-2t)). */
static double exponent(eqi_activation activation, double x)
{
    return activation == EQI_SILU ? x : 2.0 * sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x);
}

static double exponent_slope(eqi_activation activation, double x)
{
    return activation == EQI_SILU ? 1.0 : 2.0 * sqrt(2.0 / M_PI) * (1.0 + 3.0 * 0.044715 * x * x);
}

static double logistic(double x) { return 1.0 / (1.0 + exp(-x)); }

eqat_status eqi_ref_gated(eqi_ctx *ctx, const eqi_view *y, const eqi_view *gate, const eqi_view *up,
                          eqi_activation activation)
{
    (void)ctx;
    for (int64_t i = 0; i < eqi_view_count(y); i++) {
        double g = ref_get(gate, ref_elem(gate, i));
        ref_put(y, ref_elem(y, i),
                g * logistic(exponent(activation, g)) * ref_get(up, ref_elem(up, i)));
    }
    return EQAT_OK;
}

eqat_status eqi_ref_gated_bwd(eqi_ctx *ctx, const eqi_view *dgate, const eqi_view *dup,
                              const eqi_view *dy, const eqi_view *gate, const eqi_view *up,
                              eqi_activation activation)
{
    (void)ctx;
    for (int64_t i = 0; i < eqi_view_count(dy); i++) {
        double d = ref_get(dy, ref_elem(dy, i)), g = ref_get(gate, ref_elem(gate, i)),
               u = ref_get(up, ref_elem(up, i));
        double s = logistic(exponent(activation, g));
        ref_put(dgate, ref_elem(dgate, i),
                d * u * s * (1.0 + g * exponent_slope(activation, g) * (1.0 - s)));
        ref_put(dup, ref_elem(dup, i), d * g * s);
    }
    return EQAT_OK;
}
