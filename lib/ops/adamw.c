#include "ops/op.h"

static eqat_status check_scalar(const char *op, const char *name, const eqi_tensor *t,
                                eqi_dtype dtype)
{
    EQI_RETURN_IF(eqi_op_check_dtype(op, name, t, dtype));
    char a[EQI_SHAPE_TEXT];
    if (eqi_view_count(&t->v) == 1) return EQAT_OK;
    return eqi_fail(eqi_tensor_ctx(t), EQAT_INVALID_ARGUMENT,
                    "%s: found %s %s, expected one element", op, name,
                    eqi_view_shape_text(&t->v, a, sizeof a));
}

static eqat_status check_plain(const char *op, const char *name, const eqi_tensor *t)
{
    EQI_RETURN_IF(eqi_op_check_dtype(op, name, t, EQI_F32));
    char a[EQI_SHAPE_TEXT];
    if (eqi_view_is_contiguous(&t->v)) return EQAT_OK;
    return eqi_fail(eqi_tensor_ctx(t), EQAT_INVALID_ARGUMENT, "%s: %s %s is not contiguous", op,
                    name, eqi_view_shape_text(&t->v, a, sizeof a));
}

eqat_status eqi_sum_squares(eqi_tensor *sum, const eqi_tensor *g)
{
    EQI_RETURN_IF(check_scalar("sum of squares", "sum", sum, EQI_F64));
    EQI_RETURN_IF(check_plain("sum of squares", "g", g));
    eqi_ctx *ctx = eqi_tensor_ctx(g);
    return eqi_view_count(&g->v) ? ctx->backend->sum_squares(ctx, &sum->v, &g->v) : EQAT_OK;
}

eqat_status eqi_clip_factor(eqi_tensor *norm, eqi_tensor *factor, const eqi_tensor *sum,
                            double max_norm, double scale)
{
    EQI_RETURN_IF(check_scalar("clip factor", "norm", norm, EQI_F32));
    EQI_RETURN_IF(check_scalar("clip factor", "factor", factor, EQI_F32));
    EQI_RETURN_IF(check_scalar("clip factor", "sum", sum, EQI_F64));
    eqi_ctx *ctx = eqi_tensor_ctx(sum);
    return ctx->backend->clip_factor(ctx, &norm->v, &factor->v, &sum->v, max_norm, scale);
}

eqat_status eqi_adamw(eqi_tensor *p, const eqi_tensor *g, eqi_tensor *m, eqi_tensor *v,
                      const eqi_tensor *factor, const eqi_adamw_desc *d)
{
    const eqi_tensor *const all[] = {p, g, m, v};
    static const char *const names[] = {"p", "g", "m", "v"};
    for (size_t i = 0; i < EQI_COUNT(all); i++) {
        EQI_RETURN_IF(check_plain("adamw", names[i], all[i]));
        EQI_RETURN_IF(eqi_op_check_same("adamw", "p", p, names[i], all[i]));
    }
    if (factor) EQI_RETURN_IF(check_scalar("adamw", "factor", factor, EQI_F32));
    eqi_ctx *ctx = eqi_tensor_ctx(p);
    if (eqi_view_count(&p->v) == 0) return EQAT_OK;
    return ctx->backend->adamw(ctx, &p->v, &g->v, &m->v, &v->v, eqi_opt(factor), d);
}
