#include <math.h>

#include "model/config.h"

/* Angle per position of pair i, in radians, as transformers defines each kind. */
static double frequency(const eqi_config *c, const eqi_rope *r, double base, int64_t i)
{
    const double pi = 3.14159265358979323846;
    double f = pow(base, -(double)(2 * i) / (double)c->head_dim);
    if (r->kind == EQI_ROPE_LINEAR) return f / r->factor;
    if (r->kind != EQI_ROPE_LLAMA3) return f;
    double wavelength = 2 * pi / f, original = (double)r->original;
    if (wavelength > original / r->low) return f / r->factor;
    if (wavelength < original / r->high) return f;
    double smooth = (original / wavelength - r->low) / (r->high - r->low);
    return (1 - smooth) * f / r->factor + smooth * f;
}

/* Dynamic NTK: the base grows once a sequence is longer than the model was made for. */
static double rope_base(const eqi_config *c, const eqi_rope *r, int64_t length)
{
    double made_for = (double)c->max_positions, n = (double)length, d = (double)c->head_dim;
    if (r->kind != EQI_ROPE_DYNAMIC || n <= made_for || d <= 2) return r->theta;
    return r->theta * pow(r->factor * n / made_for - (r->factor - 1), d / (d - 2));
}

/* Function `f` (cos or sin) of every angle. */
static eqat_status table(eqi_ctx *ctx, const eqi_config *c, const eqi_rope *r, int64_t positions,
                         int64_t length, double (*f)(double), eqi_tensor **out)
{
    int64_t pairs = c->head_dim / 2;
    const int64_t shape[2] = {positions, pairs};
    size_t bytes = (size_t)positions * (size_t)pairs * sizeof(float);
    double base = rope_base(c, r, length);
    EQI_RETURN_IF(eqi_tensor_create(ctx, out, EQI_F32, 2, shape));
    float *values = eqi_alloc(ctx, bytes, "a rotary table");
    if (!values) return EQAT_OUT_OF_MEMORY;
    for (int64_t i = 0; i < pairs; i++) {
        double rate = frequency(c, r, base, i);
        for (int64_t p = 0; p < positions; p++) values[p * pairs + i] = (float)f((double)p * rate);
    }
    eqat_status st = eqi_tensor_upload(*out, values, bytes);
    eqi_free(ctx, values);
    return st;
}

eqat_status eqi_rope_tables(eqi_ctx *ctx, const eqi_config *c, const eqi_rope *r, int64_t positions,
                            int64_t length, eqi_rotary *out)
{
    *out = (eqi_rotary){NULL, NULL};
    eqat_status st = table(ctx, c, r, positions, length, cos, &out->cos);
    if (st == EQAT_OK) st = table(ctx, c, r, positions, length, sin, &out->sin);
    if (st != EQAT_OK) eqi_rotary_release(out);
    return st;
}

void eqi_rotary_release(eqi_rotary *r)
{
    eqi_tensor_unref(r->cos);
    eqi_tensor_unref(r->sin);
    *r = (eqi_rotary){NULL, NULL};
}
