#include "ops/op.h"

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

eqi_view eqi_as_rows(const eqi_tensor *x)
{
    eqi_view rows;
    if (!eqi_view_rows_2d(&x->v, &rows)) rows = x->v;
    return rows;
}

eqi_view eqi_as_flat(const eqi_tensor *x)
{
    return (eqi_view){.data = x->v.data,
                      .dtype = x->v.dtype,
                      .ndim = 1,
                      .shape = {eqi_view_count(&x->v)},
                      .stride = {1}};
}
