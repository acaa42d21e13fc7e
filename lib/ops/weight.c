#include "ops/op.h"

int64_t eqi_weight_out(const eqi_weight *w)
{
    return w->w ? w->w->v.shape[0] : w->codes->v.shape[0];
}

int64_t eqi_weight_in(const eqi_weight *w)
{
    if (w->w) return w->w->v.shape[1];
    return w->q.bits ? w->codes->v.shape[1] / w->q.bits * 32 : 0;
}

void eqi_weight_release(eqi_weight *w)
{
    eqi_tensor_unref(w->w);
    eqi_tensor_unref(w->codes);
    eqi_tensor_unref(w->s);
    eqi_tensor_unref(w->z);
    eqi_tensor_unref(w->bias);
    *w = (eqi_weight){0};
}

eqat_status eqi_quant_desc_check(eqi_ctx *ctx, const eqi_quant_desc *q, int64_t in_features)
{
    if (q->bits < 2 || q->bits > 8)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "bits: found %d, expected 2 to 8", q->bits);
    if (q->group < 1 || in_features < 1 || in_features % q->group)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "group size: found %lld, expected a divisor of the row length %lld",
                        (long long)q->group, (long long)in_features);
    return EQAT_OK;
}

static eqat_status check_sz(const char *op, const char *name, const eqi_tensor *weight,
                            const eqi_tensor *s, const eqi_tensor *z, int64_t rows, int64_t groups)
{
    const eqi_tensor *both[2] = {s, z};
    for (int i = 0; i < 2; i++)
        if (both[i]->v.ndim != 2 || both[i]->v.shape[0] != rows || both[i]->v.shape[1] != groups)
            return eqi_op_misfit(op, i ? "z" : "s", both[i], name, weight);
    return EQAT_OK;
}

eqat_status eqi_op_check_desc(const char *op, eqi_ctx *ctx, const eqi_quant_desc *q,
                              int64_t in_features)
{
    eqat_status st = eqi_quant_desc_check(ctx, q, in_features);
    return st == EQAT_OK ? EQAT_OK : eqi_fail_in(ctx, st, "%s", op);
}

eqat_status eqi_op_check_groups(const char *op, const eqi_tensor *w, const eqi_tensor *s,
                                const eqi_tensor *z, const eqi_quant_desc *q)
{
    EQI_RETURN_IF(eqi_op_check_ndim(op, "w", w, 2));
    EQI_RETURN_IF(eqi_op_check_desc(op, eqi_tensor_ctx(w), q, w->v.shape[1]));
    return check_sz(op, "w", w, s, z, w->v.shape[0], w->v.shape[1] / q->group);
}

eqat_status eqi_op_check_codes(const char *op, const eqi_weight *w)
{
    const eqi_tensor *codes = w->codes;
    eqi_ctx *ctx = eqi_tensor_ctx(codes);
    EQI_RETURN_IF(eqi_op_check_dtype(op, "codes", codes, EQI_U32));
    EQI_RETURN_IF(eqi_op_check_ndim(op, "codes", codes, 2));
    EQI_RETURN_IF(eqi_op_check_desc(op, ctx, &w->q, eqi_weight_in(w)));
    if (codes->v.shape[1] % w->q.bits)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "%s: found rows of %lld words, expected a multiple of %d at %d bits", op,
                        (long long)codes->v.shape[1], w->q.bits, w->q.bits);
    return check_sz(op, "codes", codes, w->s, w->z, codes->v.shape[0],
                    eqi_weight_in(w) / w->q.group);
}

eqat_status eqi_op_check_weight(const char *op, const char *name, const eqi_tensor *w,
                                const eqi_tensor *x)
{
    EQI_RETURN_IF(eqi_op_check_ndim(op, name, w, 2));
    bool f64 = x->v.dtype == EQI_F64;
    if (!eqi_dtype_is_float(w->v.dtype) || f64 != (w->v.dtype == EQI_F64))
        return eqi_fail(eqi_tensor_ctx(w), EQAT_INVALID_ARGUMENT,
                        "%s: found %s of dtype %s, expected %s", op, name,
                        eqi_dtype_name(w->v.dtype), f64 ? "f64" : "f32, bf16 or f16");
    if (w->v.shape[0] < 1 || w->v.shape[1] != x->v.shape[x->v.ndim - 1])
        return eqi_op_misfit(op, "x", x, name, w);
    return EQAT_OK;
}
