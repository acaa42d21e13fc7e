#include "ops/op.h"

static eqat_status plain(eqi_tensor *t, eqi_dtype dtype, eqi_tensor **out)
{
    if (t->v.dtype != dtype || !eqi_view_is_contiguous(&t->v))
        return eqi_tensor_cast(t, dtype, out);
    *out = eqi_tensor_ref(t);
    return EQAT_OK;
}

/* s, and z unless it is U8, as the kernels want them. */
static eqat_status plain_sz(eqi_tensor *s, eqi_tensor *z, eqi_dtype dtype, eqi_tensor **s_out,
                            eqi_tensor **z_out)
{
    EQI_RETURN_IF(plain(s, dtype, s_out));
    return plain(z, z->v.dtype == EQI_U8 ? EQI_U8 : dtype, z_out);
}

/* Gives up what plain gave and, after a failure, the outputs. */
static eqat_status finish(eqat_status st, eqi_tensor *const *in, int n_in, eqi_tensor **const *out,
                          int n_out)
{
    for (int i = 0; i < n_in; i++) eqi_tensor_unref(in[i]);
    for (int i = 0; i < n_out && st != EQAT_OK; i++) {
        eqi_tensor_unref(*out[i]);
        *out[i] = NULL;
    }
    return st;
}

static eqat_status check_float(const char *op, const eqi_tensor *w)
{
    eqi_ctx *ctx = eqi_tensor_ctx(w);
    EQI_RETURN_IF(eqi_op_check_ndim(op, "w", w, 2));
    char a[EQI_SHAPE_TEXT];
    if (eqi_view_count(&w->v) == 0)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT, "%s: found an empty w %s", op,
                        eqi_view_shape_text(&w->v, a, sizeof a));
    if (!eqi_dtype_is_float(w->v.dtype) || w->v.dtype == EQI_F64)
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "%s: found w of dtype %s, expected f32, bf16 or f16", op,
                        eqi_dtype_name(w->v.dtype));
    return EQAT_OK;
}

static eqat_status codes_shape(const char *op, const eqi_tensor *w, const eqi_quant_desc *q,
                               int64_t shape[2])
{
    int64_t k = w->v.shape[1];
    shape[0] = w->v.shape[0];
    shape[1] = k / 32 * q->bits;
    if (k % 32)
        return eqi_fail(eqi_tensor_ctx(w), EQAT_INVALID_ARGUMENT,
                        "%s: found a row length of %lld, expected a multiple of 32", op,
                        (long long)k);
    return EQAT_OK;
}

eqat_status eqi_quantize(eqi_tensor *w, eqi_tensor *s, eqi_tensor *z, const eqi_quant_desc *q,
                         eqi_tensor **codes)
{
    *codes = NULL;
    EQI_RETURN_IF(check_float("quantize", w));
    EQI_RETURN_IF(eqi_op_check_groups("quantize", w, s, z, q));
    eqi_ctx *ctx = eqi_tensor_ctx(w);
    int64_t shape[2];
    EQI_RETURN_IF(codes_shape("quantize", w, q, shape));
    eqi_tensor *in[3] = {NULL};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, plain(w, w->v.dtype, &in[0]));
    EQI_GOTO(done, plain_sz(s, z, EQI_F32, &in[1], &in[2]));
    EQI_GOTO(done, eqi_tensor_create(ctx, codes, EQI_U32, 2, shape));
    EQI_GOTO(done, ctx->backend->quantize(ctx, &(*codes)->v, &in[0]->v, &in[1]->v, &in[2]->v, q));
done:
    return finish(st, in, 3, (eqi_tensor * *[]){codes}, 1);
}

eqat_status eqi_dequantize(const eqi_weight *packed, eqi_dtype dtype, eqi_tensor **out)
{
    *out = NULL;
    EQI_RETURN_IF(eqi_op_check_codes("dequantize", packed));
    eqi_ctx *ctx = eqi_tensor_ctx(packed->codes);
    if (dtype != EQI_F32 && dtype != EQI_BF16 && !(dtype == EQI_F64 && ctx->backend->f64))
        return eqi_fail(ctx, EQAT_INVALID_ARGUMENT,
                        "dequantize: found output dtype %s, expected f32 or bf16",
                        eqi_dtype_name(dtype));
    int64_t shape[2] = {eqi_weight_out(packed), eqi_weight_in(packed)};
    eqi_tensor *in[3] = {NULL};
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, plain(packed->codes, EQI_U32, &in[0]));
    EQI_GOTO(done, plain_sz(packed->s, packed->z, eqi_param_dtype(dtype), &in[1], &in[2]));
    EQI_GOTO(done, eqi_tensor_create(ctx, out, dtype, 2, shape));
    EQI_GOTO(
        done,
        ctx->backend->dequantize(ctx, &(*out)->v, &in[0]->v, &in[1]->v, &in[2]->v, &packed->q));
done:
    return finish(st, in, 3, (eqi_tensor * *[]){out}, 1);
}

/* w F32 as the kernels want it, and room for s and z. */
static eqat_status begin(eqi_tensor *w, const eqi_quant_desc *q, eqi_tensor **w32, eqi_tensor **s,
                         eqi_tensor **z)
{
    eqi_ctx *ctx = eqi_tensor_ctx(w);
    EQI_RETURN_IF(check_float("quantizer start", w));
    EQI_RETURN_IF(eqi_op_check_desc("quantizer start", ctx, q, w->v.shape[1]));
    int64_t shape[2] = {w->v.shape[0], w->v.shape[1] / q->group};
    EQI_RETURN_IF(plain(w, EQI_F32, w32));
    EQI_RETURN_IF(eqi_tensor_create(ctx, s, EQI_F32, 2, shape));
    return eqi_tensor_create(ctx, z, EQI_F32, 2, shape);
}

eqat_status eqi_quant_minmax(eqi_tensor *w, const eqi_quant_desc *q, eqi_tensor **s, eqi_tensor **z)
{
    eqi_ctx *ctx = eqi_tensor_ctx(w);
    eqi_tensor *w32 = NULL;
    *s = *z = NULL;
    eqat_status st = begin(w, q, &w32, s, z);
    if (st == EQAT_OK) st = ctx->backend->init_minmax(ctx, &(*s)->v, &(*z)->v, &w32->v, q);
    return finish(st, &w32, 1, (eqi_tensor * *[]){s, z}, 2);
}

static eqat_status plain_counts(const eqi_tensor *w, eqi_tensor *h, eqi_tensor **out)
{
    if (!h) return EQAT_OK;
    if (h->v.ndim != 1 || h->v.shape[0] != w->v.shape[1])
        return eqi_op_misfit("quantizer start", "h", h, "w", w);
    return plain(h, EQI_F32, out);
}

eqat_status eqi_quant_search(eqi_tensor *w, eqi_tensor *h, const eqi_quant_desc *q, eqi_tensor **s,
                             eqi_tensor **z)
{
    eqi_ctx *ctx = eqi_tensor_ctx(w);
    eqi_tensor *in[2] = {NULL};
    *s = *z = NULL;
    eqat_status st = begin(w, q, &in[0], s, z);
    if (st == EQAT_OK) st = plain_counts(w, h, &in[1]);
    if (st == EQAT_OK)
        st =
            ctx->backend->init_mse(ctx, &(*s)->v, &(*z)->v, &in[0]->v, in[1] ? &in[1]->v : NULL, q);
    return finish(st, in, 2, (eqi_tensor * *[]){s, z}, 2);
}

eqat_status eqi_quantize_minmax(eqi_tensor *w, const eqi_quant_desc *q, eqi_tensor **s,
                                eqi_tensor **z, eqi_tensor **codes)
{
    *s = *z = *codes = NULL;
    eqi_ctx *ctx = eqi_tensor_ctx(w);
    int64_t shape[2];
    EQI_RETURN_IF(check_float("quantize", w));
    EQI_RETURN_IF(eqi_op_check_desc("quantize", ctx, q, w->v.shape[1]));
    EQI_RETURN_IF(codes_shape("quantize", w, q, shape));
    int64_t groups[2] = {w->v.shape[0], w->v.shape[1] / q->group};
    eqi_tensor *w32 = NULL;
    eqat_status st = EQAT_OK;
    EQI_GOTO(done, plain(w, EQI_F32, &w32));
    EQI_GOTO(done, eqi_tensor_create(ctx, s, EQI_F32, 2, groups));
    EQI_GOTO(done, eqi_tensor_create(ctx, z, EQI_U8, 2, groups));
    EQI_GOTO(done, eqi_tensor_create(ctx, codes, EQI_U32, 2, shape));
    EQI_GOTO(done,
             ctx->backend->quantize_minmax(ctx, &(*codes)->v, &(*s)->v, &(*z)->v, &w32->v, q));
done:
    return finish(st, &w32, 1, (eqi_tensor * *[]){s, z, codes}, 3);
}
