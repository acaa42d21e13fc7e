#include "base/entry.h"
#include "model/weights.h"
#include "quant/freeze.h"
#include "quant/quantizer.h"

static eqat_status check_kind(const eqi_linear *l, const char *name, const eqi_tensor *t,
                              eqi_dtype dtype, int64_t columns)
{
    char found[EQI_SHAPE_TEXT];
    const eqi_view *v = &t->v;
    if (v->dtype == dtype && v->ndim == 2 && v->shape[0] == l->out && v->shape[1] == columns)
        return EQAT_OK;
    return eqi_fail(eqi_tensor_ctx(t), EQAT_INVALID_ARGUMENT,
                    "%s.%s: found %s %s, expected %s [%lld, %lld]", l->name, name,
                    eqi_dtype_name(v->dtype), eqi_view_shape_text(v, found, sizeof found),
                    eqi_dtype_name(dtype), (long long)l->out, (long long)columns);
}

static eqat_status check(const eqi_linear *l, const eqi_weight *given)
{
    if (l->plain)
        return eqi_fail(eqi_tensor_ctx(given->codes), EQAT_INVALID_ARGUMENT,
                        "%s: found codes, expected full precision: it is never quantized", l->name);
    int64_t groups = l->in / given->q.group;
    EQI_RETURN_IF(check_kind(l, "codes", given->codes, EQI_U32, l->in / 32 * given->q.bits));
    EQI_RETURN_IF(check_kind(l, "scales", given->s, EQI_F32, groups));
    return check_kind(l, "zeros", given->z, EQI_U8, groups);
}

static eqat_status check_values(const eqi_linear *l, const eqi_weight *copy)
{
    eqi_ctx *ctx = eqi_tensor_ctx(copy->s);
    int64_t n = eqi_view_count(&copy->s->v), bad;
    float *s = eqi_alloc(ctx, (size_t)n * sizeof *s, "scales on the host");
    if (!s) return EQAT_OUT_OF_MEMORY;
    unsigned char *z = (unsigned char *)s; /* one after the other */
    int top = (1 << copy->q.bits) - 1;
    eqat_status st;
    EQI_GOTO(done, eqi_tensor_download(copy->s, s, (size_t)n * sizeof *s));
    bad = eqi_first_bad(s, n, EQI_F32);
    if (bad < n)
        EQI_GOTO(done,
                 eqi_fail(ctx, EQAT_NUMERIC,
                          "%s.scales: found %g at %lld, expected a finite number", l->name,
                          (double)s[bad], (long long)bad));
    EQI_GOTO(done, eqi_tensor_download(copy->z, z, (size_t)n));
    for (int64_t i = 0; i < n; i++)
        if (z[i] > top)
            EQI_GOTO(done,
                     eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                              "%s.zeros: found %d at %lld, expected 0 to %d", l->name, z[i],
                              (long long)i, top));
done:
    eqi_free(ctx, s);
    return st;
}

static eqat_status copy_of(eqi_ctx *ctx, const eqi_tensor *t, eqi_tensor **out)
{
    EQI_RETURN_IF(eqi_tensor_create(ctx, out, t->v.dtype, t->v.ndim, t->v.shape));
    return eqi_tensor_copy(*out, t);
}

eqat_status eqat_model_set_linear(eqat_model *m, int64_t block, int64_t index,
                                  const eqat_tensor *codes, const eqat_tensor *s,
                                  const eqat_tensor *z)
{
    EQI_ENTER_OF(m);
    EQI_NEED(m->ctx, codes, s, z);
    const eqi_linear *l;
    eqi_weight copy = {0};
    eqat_status st;
    EQI_RETURN_IF(eqi_model_check_idle(m));
    EQI_RETURN_IF(eqi_model_find_linear(m, block, index, &l));
    st = eqi_packed_desc(codes, s, l->in, &copy.q);
    if (st != EQAT_OK) return eqi_fail_in(m->ctx, st, "%s", l->name);
    EQI_RETURN_IF(check(l,
                        &(eqi_weight){.codes = (eqi_tensor *)codes,
                                      .s = (eqi_tensor *)s,
                                      .z = (eqi_tensor *)z,
                                      .q = copy.q}));
    EQI_GOTO(done, copy_of(m->ctx, codes, &copy.codes));
    EQI_GOTO(done, copy_of(m->ctx, s, &copy.s));
    EQI_GOTO(done, copy_of(m->ctx, z, &copy.z));
    EQI_GOTO(done, check_values(l, &copy));
    EQI_GOTO(done, eqi_quant_round_s(copy.s));
    eqi_linear_set_packed(m, block, (int)index, &copy);
done:
    eqi_weight_release(&copy);
    return st;
}
