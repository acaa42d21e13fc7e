#include "train/rates.h"

#include <math.h>

#include "base/entry.h"

const char *const eqi_lr_unit_names[] = {"absolute", "relative", NULL};

static double of_bits(int bits) { return bits == 2 ? 2e-5 : 1e-5; }

static double falling(double first, int64_t steps)
{
    return first / sqrt((double)(steps > 1 ? steps : 1));
}

/* Relative, whatever the number of steps: a few at higher rates end above their start, and many
 * gain nothing from lower ones. */
#define E2E_RATE 0.004
/* Relative rates for one step; they fall with the root of the number of steps, so that many steps
 * reach further than few in all, but not in proportion. */
static const double first_rate[] = {
    [EQI_WEIGHT] = 0.1,
    [EQI_QUANT] = 0.04,
};

double eqi_block_ap_rate(double given, int32_t lr_unit, eqi_mover mover, int64_t steps, int bits)
{
    if (given != 0) return given;
    if (lr_unit == EQAT_LR_RELATIVE) return falling(first_rate[mover], steps);
    return mover == EQI_QUANT ? 1e-4 : of_bits(bits);
}

double eqi_e2e_qp_rate(double given, int32_t lr_unit, int bits)
{
    if (given != 0) return given;
    return lr_unit == EQAT_LR_RELATIVE ? E2E_RATE : of_bits(bits);
}

void eqi_rate_warn(eqi_ctx *ctx, const char *name, double given, double usual)
{
    if (given > 0 && given * 10 < usual)
        eqi_log(
            ctx, EQI_LOG_WARN,
            "%s: found %g with lr_unit relative, whose own is %.3g: rates like the paper's need "
            "lr_unit absolute",
            name, given, usual);
}

eqat_status eqi_mean_size(const eqi_tensor *t, double *out)
{
    eqi_ctx *ctx = eqi_tensor_ctx(t);
    int64_t n = eqi_view_count(&t->v);
    float *host = eqi_alloc(ctx, (size_t)n * sizeof *host, "values on the host");
    if (!host) return EQAT_OUT_OF_MEMORY;
    eqat_status st = eqi_tensor_download(t, host, (size_t)n * sizeof *host);
    double sum = 0;
    for (int64_t i = 0; i < n && st == EQAT_OK; i++) sum += fabs((double)host[i]);
    eqi_free(ctx, host);
    *out = sum > 0 ? sum / (double)n : 1;
    return st;
}
