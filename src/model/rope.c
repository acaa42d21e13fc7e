#include <math.h>

#include "model/model.h"

/* Angle per position of pair i, in radians, as transformers defines each kind. */
static double frequency(const eqi_config *c, double base, int64_t i)
{
    const double pi = 3.14159265358979323846;
    double f = pow(base, -(double)(2 * i) / (double)c->head_dim);
    if (c->rope == EQI_ROPE_LINEAR) return f / c->rope_factor;
    if (c->rope != EQI_ROPE_LLAMA3) return f;
    double wavelength = 2 * pi / f, original = (double)c->rope_original;
    if (wavelength > original / c->rope_low) return f / c->rope_factor;
    if (wavelength < original / c->rope_high) return f;
    double smooth = (original / wavelength - c->rope_low) / (c->rope_high - c->rope_low);
    return (1 - smooth) * f / c->rope_factor + smooth * f;
}

/* Dynamic NTK: the base grows once a sequence is longer than the model was made for. */
static double rope_base(const eqi_config *c, int64_t length)
{
    double made_for = (double)c->max_positions, n = (double)length, d = (double)c->head_dim;
    if (c->rope != EQI_ROPE_DYNAMIC || n <= made_for || d <= 2) return c->rope_theta;
    return c->rope_theta * pow(c->rope_factor * n / made_for - (c->rope_factor - 1), d / (d - 2));
}

eqat_status eqi_rope_tables(eqi_ctx *ctx, const eqi_config *config, int64_t positions,
                            int64_t length, eqi_tensor **cos_out, eqi_tensor **sin_out)
{
    *cos_out = *sin_out = NULL;
    int64_t pairs = config->head_dim / 2, shape[2] = {positions, pairs};
    eqat_status st = EQAT_OK;
    eqi_tensor *tables[2] = {NULL, NULL};
    EQI_GOTO(done, eqi_tensor_create(ctx, &tables[0], EQI_F32, 2, shape));
    EQI_GOTO(done, eqi_tensor_create(ctx, &tables[1], EQI_F32, 2, shape));
    size_t bytes = (size_t)positions * (size_t)pairs * sizeof(float);
    double base = rope_base(config, length);
    for (int table = 0; table < 2; table++) {
        float *values = eqi_alloc(ctx, bytes, "a rotary table");
        if (!values) {
            st = EQAT_OUT_OF_MEMORY;
            goto done;
        }
        for (int64_t i = 0; i < pairs; i++) {
            double f = frequency(config, base, i);
            for (int64_t p = 0; p < positions; p++)
                values[p * pairs + i] =
                    (float)(table == 0 ? cos((double)p * f) : sin((double)p * f));
        }
        st = eqi_tensor_upload(tables[table], values, bytes);
        eqi_free(ctx, values);
        if (st != EQAT_OK) goto done;
    }
    *cos_out = tables[0];
    *sin_out = tables[1];
    return EQAT_OK;
done:
    eqi_tensor_unref(tables[0]);
    eqi_tensor_unref(tables[1]);
    return st;
}
