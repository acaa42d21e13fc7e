#include <math.h>

#include "quant/freeze.h"

/* Scales and zero points are small next to the weights: they travel through the host, whatever
 * the device. */

eqat_status eqi_quant_round_s(eqi_tensor *s)
{
    float *host;
    EQI_RETURN_IF(eqi_tensor_floats(s, &host));
    int64_t n = eqi_view_count(&s->v);
    for (int64_t i = 0; i < n; i++) host[i] = eqi_stored_scale(host[i]);
    eqat_status st = eqi_tensor_upload(s, host, (size_t)n * sizeof(float));
    eqi_free(eqi_tensor_ctx(s), host);
    return st;
}

static eqat_status clamp_s(eqi_tensor *s)
{
    float *host;
    EQI_RETURN_IF(eqi_tensor_floats(s, &host));
    int64_t n = eqi_view_count(&s->v);
    for (int64_t i = 0; i < n; i++) /* a NaN stays one */
        host[i] = host[i] < EQI_SCALE_MIN ? EQI_SCALE_MIN
            : host[i] > EQI_SCALE_MAX     ? EQI_SCALE_MAX
                                          : host[i];
    eqat_status st = eqi_tensor_upload(s, host, (size_t)n * sizeof(float));
    eqi_free(eqi_tensor_ctx(s), host);
    return st;
}

/* Half of the least scale is still rounded to zero. Zeros stay what they are. */
static eqat_status check_weights(const char *name, const eqi_tensor *w)
{
    float *host, most = 0;
    EQI_RETURN_IF(eqi_tensor_floats(w, &host));
    int64_t n = eqi_view_count(&w->v);
    for (int64_t i = 0; i < n; i++) most = fmaxf(most, fabsf(host[i]));
    eqi_free(eqi_tensor_ctx(w), host);
    if (most == 0 || most > EQI_SCALE_MIN / 2) return EQAT_OK;
    return eqi_fail(eqi_tensor_ctx(w), EQAT_NUMERIC,
                    "%s: found weights of %g at most, expected some above %g: fp16 stores no "
                    "scale that keeps them from being rounded to zero",
                    name, (double)most, (double)EQI_SCALE_MIN / 2);
}

eqat_status eqi_quant_check_scales(const char *name, const eqi_tensor *s, const eqi_tensor *w)
{
    eqi_ctx *ctx = eqi_tensor_ctx(s);
    float *host;
    EQI_RETURN_IF(eqi_tensor_floats(s, &host));
    long long n = (long long)eqi_view_count(&s->v), low = 0, high = 0, bad = 0;
    for (int64_t i = 0; i < n; i++) {
        low += host[i] <= EQI_SCALE_MIN;
        high += host[i] >= EQI_SCALE_MAX;
        bad += isnan(host[i]);
    }
    eqi_free(ctx, host);
    if (bad || (high && w))
        return eqi_fail(ctx, EQAT_NUMERIC,
                        "%s: found %lld of %lld scales %s, expected what fp16 stores, up to 65504",
                        name, bad ? bad : high, n, bad ? "that are nan" : "of 65504 or more");
    if (w && low) EQI_RETURN_IF(check_weights(name, w));
    if (low + high)
        eqi_log(ctx, EQI_LOG_WARN,
                "%s: %lld of %lld scales are clamped to what fp16 stores: %lld to 2^-24, %lld to "
                "65504",
                name, low + high, n, low, high);
    return EQAT_OK;
}

eqat_status eqi_quant_round_z(eqi_tensor *z, int bits, eqi_tensor **out)
{
    *out = NULL;
    eqi_ctx *ctx = eqi_tensor_ctx(z);
    float *host;
    EQI_RETURN_IF(eqi_tensor_floats(z, &host));
    int64_t n = eqi_view_count(&z->v);
    /* In place: byte i is written after float i was read. */
    unsigned char *bytes = (unsigned char *)host;
    float top = (float)((1 << bits) - 1);
    for (int64_t i = 0; i < n; i++) {
        float v = fminf(fmaxf(rintf(host[i]), 0.0f), top);
        bytes[i] = (unsigned char)v;
    }
    eqat_status st = eqi_tensor_create(ctx, out, EQI_U8, z->v.ndim, z->v.shape);
    if (st == EQAT_OK) st = eqi_tensor_upload(*out, bytes, (size_t)n);
    if (st != EQAT_OK) {
        eqi_tensor_unref(*out);
        *out = NULL;
    }
    eqi_free(ctx, host);
    return st;
}

eqat_status eqi_quant_freeze(eqi_tensor *w, eqi_tensor *s, eqi_tensor *z,
                             const eqi_quant_desc *desc, eqi_weight *packed)
{
    *packed = (eqi_weight){.q = {.bits = desc->bits, .group = desc->group}};
    eqat_status st;
    EQI_GOTO(done, eqi_tensor_cast(s, EQI_F32, &packed->s));
    if (desc->clamp) EQI_GOTO(done, clamp_s(packed->s));
    EQI_GOTO(done, eqi_quant_round_s(packed->s));
    EQI_GOTO(done, eqi_quant_round_z(z, desc->bits, &packed->z));
    EQI_GOTO(done, eqi_quantize(w, packed->s, packed->z, &packed->q, &packed->codes));
    return EQAT_OK;
done:
    eqi_weight_release(packed);
    return st;
}
