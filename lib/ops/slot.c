#include "ops/op.h"

static bool exclusive(const eqi_tensor *g) { return g->refs == 1 && g->storage->refs == 1; }

static eqi_dtype grad_dtype(const eqi_tensor *t)
{
    return t->on_tape ? t->v.dtype : eqi_param_dtype(t->v.dtype);
}

static eqat_status open_temporary(eqi_slot *slot, eqi_tensor *t, eqi_dtype dtype)
{
    slot->temporary = true;
    slot->acc = false;
    return eqi_tensor_create(eqi_tensor_ctx(t), &slot->g, dtype, t->v.ndim, t->v.shape);
}

eqat_status eqi_slot_open(eqi_slot *slot, eqi_tensor *t, eqi_dtype dtype, bool kernel_can_acc)
{
    *slot = (eqi_slot){.t = t};
    if (!t || !t->requires_grad) return EQAT_OK;
    if (grad_dtype(t) != dtype || (t->grad && !kernel_can_acc))
        return open_temporary(slot, t, dtype);
    return eqi_grad_of(t, &slot->g, &slot->acc);
}

eqat_status eqi_slot_open_over(eqi_slot *slot, eqi_tensor *t, eqi_tensor *dy)
{
    if (!t->requires_grad || !exclusive(dy)) return eqi_slot_open(slot, t, dy->v.dtype, false);
    *slot = (eqi_slot){.t = t, .g = eqi_tensor_ref(dy), .temporary = true};
    return EQAT_OK;
}

eqat_status eqi_slot_open_always(eqi_slot *slot, eqi_tensor *t, eqi_dtype dtype)
{
    EQI_RETURN_IF(eqi_slot_open(slot, t, dtype, false));
    return slot->g ? EQAT_OK : open_temporary(slot, t, dtype);
}

eqat_status eqi_slot_close(eqi_slot *slot, eqat_status st)
{
    eqi_tensor *g = slot->temporary ? slot->g : NULL;
    slot->g = NULL;
    if (!g) return st;
    if (st == EQAT_OK) return eqi_grad_give(slot->t, g);
    eqi_tensor_unref(g);
    return st;
}

eqat_status eqi_slots_agree(eqi_ctx *ctx, eqi_slot *slots, int n, bool *acc)
{
    *acc = false;
    for (int i = 0; i < n; i++)
        if (slots[i].g && slots[i].acc) *acc = true;
    for (int i = 0; *acc && i < n; i++) {
        if (!slots[i].g || slots[i].acc) continue;
        EQI_RETURN_IF(ctx->backend->fill(ctx, &slots[i].g->v, 0));
        slots[i].acc = true;
    }
    return EQAT_OK;
}
