#include "ops/op.h"

eqat_status eqi_op_misfit(const char *op, const char *a_name, const eqi_tensor *a,
                          const char *b_name, const eqi_tensor *b)
{
    char x[EQI_SHAPE_TEXT], y[EQI_SHAPE_TEXT];
    return eqi_fail(eqi_tensor_ctx(a), EQAT_INVALID_ARGUMENT, "%s: %s %s does not fit %s %s", op,
                    a_name, eqi_view_shape_text(&a->v, x, sizeof x), b_name,
                    eqi_view_shape_text(&b->v, y, sizeof y));
}

eqat_status eqi_op_check_x(const char *op, const char *name, const eqi_tensor *x)
{
    eqi_ctx *ctx = eqi_tensor_ctx(x);
    bool f64 = ctx->backend->f64;
    char a[EQI_SHAPE_TEXT];
    if (x->v.dtype != EQI_F32 && x->v.dtype != EQI_BF16 && !(f64 && x->v.dtype == EQI_F64))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "%s: found %s of dtype %s, expected f32%s bf16%s", op, name,
                        eqi_dtype_name(x->v.dtype), f64 ? "," : " or", f64 ? " or f64" : "");
    if (eqi_view_count(&x->v) == 0)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "%s: found an empty %s %s", op, name,
                        eqi_view_shape_text(&x->v, a, sizeof a));
    return EQAT_OK;
}

eqat_status eqi_op_check_dtype(const char *op, const char *name, const eqi_tensor *t,
                               eqi_dtype dtype)
{
    if (t->v.dtype == dtype) return EQAT_OK;
    return eqi_fail(eqi_tensor_ctx(t), EQAT_INVALID_ARGUMENT,
                    "%s: found %s of dtype %s, expected %s", op, name, eqi_dtype_name(t->v.dtype),
                    eqi_dtype_name(dtype));
}

eqat_status eqi_op_check_ndim(const char *op, const char *name, const eqi_tensor *t, int ndim)
{
    if (t->v.ndim == ndim) return EQAT_OK;
    char a[EQI_SHAPE_TEXT];
    return eqi_fail(eqi_tensor_ctx(t), EQAT_INVALID_ARGUMENT,
                    "%s: found %s %s, expected %d dimensions", op, name,
                    eqi_view_shape_text(&t->v, a, sizeof a), ndim);
}

eqat_status eqi_op_check_same(const char *op, const char *a_name, const eqi_tensor *a,
                              const char *b_name, const eqi_tensor *b)
{
    if (!eqi_view_same_shape(&a->v, &b->v)) return eqi_op_misfit(op, a_name, a, b_name, b);
    return eqi_op_check_dtype(op, b_name, b, a->v.dtype);
}

eqat_status eqi_op_check_index(const char *op, const char *name, const eqi_tensor *t, int64_t limit,
                               bool negative)
{
    EQI_RETURN_IF(eqi_op_check_dtype(op, name, t, EQI_I32));
    eqi_ctx *ctx = eqi_tensor_ctx(t);
    if (!ctx->backend->host) return EQAT_OK;
    const int32_t *id = t->v.data;
    int64_t n = eqi_view_count(&t->v);
    for (int64_t i = 0; i < n; i++)
        if (id[i] >= limit || (id[i] < 0 && !negative))
            return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                            "%s: found %s %d at position %lld, expected 0 to %lld", op, name,
                            (int)id[i], (long long)i, (long long)limit - 1);
    return EQAT_OK;
}
