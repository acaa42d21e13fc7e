#include "autograd/grad.h"

#include "backend/backend.h"

static eqi_dtype grad_dtype(const eqi_tensor *t)
{
    if (t->on_tape || t->v.dtype == EQI_F64) return t->v.dtype;
    return EQI_F32;
}

static bool shared(const eqi_tensor *g) { return g->refs > 1 || g->storage->refs > 1; }

static eqat_status make_own(eqi_tensor *t)
{
    eqi_tensor *own;
    EQI_RETURN_IF(eqi_tensor_cast(t->grad, t->grad->v.dtype, &own));
    eqi_tensor_unref(t->grad);
    t->grad = own;
    return EQAT_OK;
}

eqat_status eqi_grad_of(eqi_tensor *t, eqi_tensor **grad, bool *acc)
{
    *grad = NULL;
    *acc = false;
    if (!t || !t->requires_grad) return EQAT_OK;
    if (!t->grad) {
        EQI_RETURN_IF(
            eqi_tensor_create(eqi_tensor_ctx(t), &t->grad, grad_dtype(t), t->v.ndim, t->v.shape));
    } else {
        if (shared(t->grad)) EQI_RETURN_IF(make_own(t));
        *acc = true;
    }
    *grad = t->grad;
    return EQAT_OK;
}

/* A leaf's gradient outlives the walk and is the caller's to change: it shares with nobody. */
static bool adoptable(const eqi_tensor *t, const eqi_tensor *g)
{
    return !t->grad && g->v.dtype == grad_dtype(t) && eqi_view_is_contiguous(&g->v) &&
        (t->on_tape || !shared(g));
}

static eqat_status add_into(eqi_tensor *t, const eqi_tensor *g)
{
    eqi_ctx *ctx = eqi_tensor_ctx(t);
    eqi_tensor *grad;
    bool acc;
    EQI_RETURN_IF(eqi_grad_of(t, &grad, &acc));
    return acc ? ctx->backend->axpby(ctx, &grad->v, 1, &grad->v, 1, &g->v)
               : ctx->backend->copy(ctx, &grad->v, &g->v);
}

eqat_status eqi_grad_give(eqi_tensor *t, eqi_tensor *g)
{
    eqat_status st = EQAT_OK;
    if (t && t->requires_grad) {
        if (adoptable(t, g)) {
            t->grad = g;
            return EQAT_OK;
        }
        st = add_into(t, g);
    }
    eqi_tensor_unref(g);
    return st;
}

eqat_status eqi_grad_add(eqi_tensor *t, eqi_tensor *g)
{
    return eqi_grad_give(t, eqi_tensor_ref(g));
}

void eqi_tensor_zero_grad(eqi_tensor *t)
{
    eqi_tensor_unref(t->grad);
    t->grad = NULL;
}
