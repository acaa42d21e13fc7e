#include "suite.h"

int64_t suite_pick(suite *s, int64_t lo, int64_t hi)
{
    return lo + (int64_t)eqi_rng_below(s->seed, EQI_RNG_USER, s->drawn++, (uint64_t)(hi - lo + 1));
}

bool suite_coin(suite *s) { return suite_pick(s, 0, 1) == 1; }

double suite_normal(suite *s) { return eqi_rng_normal(s->seed, EQI_RNG_USER + 1, s->drawn++); }

double suite_uniform(suite *s)
{
    return (double)(eqi_rng_bits(s->seed, EQI_RNG_USER, s->drawn++) >> 11) * 0x1p-53;
}

static void *element(const arg *a, int64_t i)
{
    int64_t at = 0;
    for (int d = a->v.ndim - 1; d >= 0; d--) {
        at += i % a->v.shape[d] * a->v.stride[d];
        i /= a->v.shape[d];
    }
    return (unsigned char *)a->v.data + at * (int64_t)eqi_dtype_size(a->v.dtype);
}

void arg_set(arg *a, int64_t i, double value)
{
    void *p = element(a, i);
    float f = (float)value;
    uint16_t h = a->v.dtype == EQI_BF16 ? eqi_f32_to_bf16(f) : eqi_f32_to_f16(f);
    int64_t n = isnan(value) ? 0 : (int64_t)fmax(-0x1p31, fmin(0x1p32 - 1, value));
    int32_t i32 = (int32_t)n;
    uint32_t u32 = (uint32_t)n;
    uint8_t u8 = (uint8_t)n;
    switch (a->v.dtype) {
    case EQI_F32: memcpy(p, &f, sizeof f); break;
    case EQI_F64: memcpy(p, &value, sizeof value); break;
    case EQI_I32: memcpy(p, &i32, sizeof i32); break;
    case EQI_U32: memcpy(p, &u32, sizeof u32); break;
    case EQI_U8: memcpy(p, &u8, sizeof u8); break;
    default: memcpy(p, &h, sizeof h); break;
    }
}

double arg_value(const arg *a, int64_t i)
{
    const void *p = element(a, i);
    float f;
    double d;
    uint16_t h;
    int32_t i32;
    uint32_t u32;
    switch (a->v.dtype) {
    case EQI_F32: memcpy(&f, p, sizeof f); return (double)f;
    case EQI_F64: memcpy(&d, p, sizeof d); return d;
    case EQI_I32: memcpy(&i32, p, sizeof i32); return (double)i32;
    case EQI_U32: memcpy(&u32, p, sizeof u32); return (double)u32;
    case EQI_U8: return (double)*(const uint8_t *)p;
    default:
        memcpy(&h, p, sizeof h);
        return (double)(a->v.dtype == EQI_BF16 ? eqi_bf16_to_f32(h) : eqi_f16_to_f32(h));
    }
}

void arg_normal(suite *s, arg *a, double scale)
{
    for (int64_t i = 0; i < a->count; i++) arg_set(a, i, scale * suite_normal(s));
}

void arg_whole(suite *s, arg *a, int64_t lo, int64_t hi)
{
    for (int64_t i = 0; i < a->count; i++) arg_set(a, i, (double)suite_pick(s, lo, hi));
}

void arg_values(arg *a, const double *values)
{
    for (int64_t i = 0; i < a->count; i++) arg_set(a, i, values[i]);
}

void arg_sprinkle(suite *s, arg *a, double value, int one_in)
{
    for (int64_t i = 0; i < a->count; i++)
        if (suite_pick(s, 1, one_in) == 1) arg_set(a, i, value);
}

eqi_dtype suite_compute_dtype(suite *s)
{
    static const eqi_dtype all[] = {EQI_F32, EQI_BF16, EQI_F64};
    return all[suite_pick(s, 0, s->b->f64 ? 2 : 1)];
}

eqi_dtype suite_weight_dtype(suite *s, eqi_dtype compute)
{
    static const eqi_dtype all[] = {EQI_F32, EQI_BF16, EQI_F16};
    return compute == EQI_F64 ? EQI_F64 : all[suite_pick(s, 0, 2)];
}

double round_to(eqi_dtype dtype, double x)
{
    switch (dtype) {
    case EQI_BF16: return (double)eqi_bf16_to_f32(eqi_f32_to_bf16((float)x));
    case EQI_F16: return (double)eqi_f16_to_f32(eqi_f32_to_f16((float)x));
    case EQI_F32: return (double)(float)x;
    default: return x;
    }
}

double unit_roundoff(eqi_dtype dtype)
{
    switch (dtype) {
    case EQI_BF16: return 0x1p-8;
    case EQI_F16: return 0x1p-11;
    case EQI_F32: return 0x1p-24;
    default: return 0x1p-53;
    }
}
