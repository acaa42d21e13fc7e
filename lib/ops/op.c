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

eqat_status eqi_op_param(eqi_tape *tape, const char *op, const char *name, eqi_tensor *t,
                         eqi_dtype dtype, eqi_tensor **out)
{
    *out = NULL;
    if (!t) return EQAT_OK;
    if (t->v.dtype == dtype) return eqi_op_contiguous(tape, t, out);
    if (t->requires_grad || !eqi_dtype_is_float(t->v.dtype))
        return eqi_op_check_dtype(op, name, t, dtype);
    return eqi_tensor_cast(t, dtype, out);
}

bool eqi_view_rows_2d(const eqi_view *x, eqi_view *rows)
{
    int last = x->ndim - 1;
    int64_t k = x->shape[last], n = 1, step = k;
    if (k != 1 && x->stride[last] != 1) return false;
    for (int i = last - 1; i >= 0; i--) {
        if (x->shape[i] == 1) continue;
        if (n == 1)
            step = x->stride[i];
        else if (x->stride[i] != step * n)
            return false;
        n *= x->shape[i];
    }
    if (step < k) return false;
    *rows = (eqi_view){
        .data = x->data, .dtype = x->dtype, .ndim = 2, .shape = {n, k}, .stride = {step, 1}};
    return true;
}

eqat_status eqi_op_rows(eqi_tape *tape, eqi_tensor *x, eqi_tensor **out)
{
    eqi_view rows;
    if (!eqi_view_rows_2d(&x->v, &rows)) return eqi_op_contiguous(tape, x, out);
    *out = eqi_tensor_ref(x);
    return EQAT_OK;
}

eqi_view eqi_rows(const eqi_tensor *x)
{
    eqi_view rows;
    if (!eqi_view_rows_2d(&x->v, &rows)) rows = x->v;
    return rows;
}

eqi_view eqi_flat(const eqi_tensor *x)
{
    return (eqi_view){.data = x->v.data,
                      .dtype = x->v.dtype,
                      .ndim = 1,
                      .shape = {eqi_view_count(&x->v)},
                      .stride = {1}};
}

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

eqat_status eqi_op_finish(eqi_tape *tape, eqat_status st, const eqi_op *op, eqi_tensor *const *in,
                          int n_in, eqi_tensor **out, eqi_tensor *const *saved, int n_saved,
                          const void *attr, size_t attr_size)
{
    if (st == EQAT_OK)
        st = eqi_tape_record(tape, op, in, n_in, *out, saved, n_saved, attr, attr_size);
    if (st != EQAT_OK) {
        eqi_tensor_unref(*out);
        *out = NULL;
    }
    return st;
}
