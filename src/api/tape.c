#include "eqat/tape.h"

#include <math.h>
#include <string.h>

#include "autograd/tape.h"
#include "ops/ops.h"

eqat_status eqat_tape_create(eqat_context *ctx, eqat_tape **out)
{
    return eqi_tape_create(ctx, out);
}
void eqat_tape_free(eqat_tape *tape) { eqi_tape_free(tape); }
void eqat_tape_clear(eqat_tape *tape) { eqi_tape_clear(tape); }
void eqat_tape_set_recording(eqat_tape *tape, bool on) { eqi_tape_set_recording(tape, on); }

eqat_status eqat_tape_backward(eqat_tape *tape, eqat_tensor *loss, double scale)
{
    return eqi_tape_backward(tape, loss, scale);
}

eqat_status eqat_tape_backward_from(eqat_tape *tape, eqat_tensor *out, const eqat_tensor *grad)
{
    return eqi_tape_backward_from(tape, out, grad);
}

/* The public interface is the door for descriptors that nobody has checked. */
static eqat_status quant_desc(eqat_tape *tape, eqi_quant_desc *q, int32_t bits, int64_t group_size,
                              int64_t in_features, bool clamp)
{
    *q = (eqi_quant_desc){
        .bits = bits, .group = group_size < 0 ? in_features : group_size, .clamp = clamp};
    return eqi_quant_desc_check(tape->ctx, q, in_features);
}

static int64_t last_size(const eqat_tensor *t) { return t->v.shape[t->v.ndim - 1]; }

eqat_status eqat_op_linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w, eqat_tensor *bias,
                           eqat_tensor **out)
{
    eqi_weight weight = {.w = w, .bias = bias};
    return eqi_op_linear(tape, x, &weight, out);
}

eqat_status eqat_op_fakequant_linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w,
                                     eqat_tensor *s, eqat_tensor *z, eqat_tensor *bias,
                                     int32_t bits, int64_t group_size, eqat_tensor **out)
{
    *out = NULL;
    eqi_weight weight = {.w = w, .s = s, .z = z, .bias = bias};
    EQI_RETURN_IF(quant_desc(tape, &weight.q, bits, group_size, last_size(w), true));
    return eqi_op_linear(tape, x, &weight, out);
}

eqat_status eqat_op_packed_linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *codes,
                                  eqat_tensor *s, eqat_tensor *z, eqat_tensor *bias, int32_t bits,
                                  int64_t group_size, eqat_tensor **out)
{
    *out = NULL;
    eqi_weight weight = {.codes = codes, .s = s, .z = z, .bias = bias};
    EQI_RETURN_IF(quant_desc(tape, &weight.q, bits, group_size, last_size(x), false));
    return eqi_op_linear(tape, x, &weight, out);
}

eqat_status eqat_op_fakequant(eqat_tape *tape, eqat_tensor *w, eqat_tensor *s, eqat_tensor *z,
                              int32_t bits, int64_t group_size, eqat_dtype dtype, eqat_tensor **out)
{
    *out = NULL;
    eqi_quant_desc q;
    EQI_RETURN_IF(quant_desc(tape, &q, bits, group_size, last_size(w), true));
    return eqi_op_fakequant(tape, w, s, z, &q, (eqi_dtype)dtype, out);
}

eqat_status eqat_op_embedding(eqat_tape *tape, eqat_tensor *ids, eqat_tensor *table,
                              eqat_dtype dtype, eqat_tensor **out)
{
    return eqi_op_embedding(tape, ids, table, (eqi_dtype)dtype, out);
}

eqat_status eqat_op_rmsnorm(eqat_tape *tape, eqat_tensor *x, eqat_tensor *gain, double eps,
                            double offset, eqat_tensor **out)
{
    return eqi_op_rmsnorm(tape, x, gain, eps, offset, out);
}

eqat_status eqat_op_rope(eqat_tape *tape, eqat_tensor *x, eqat_tensor *cos, eqat_tensor *sin,
                         eqat_tensor *positions, eqat_tensor **out)
{
    return eqi_op_rope(tape, x, cos, sin, positions, out);
}

void eqat_attention_options_init(eqat_attention_options *options, size_t struct_size)
{
    const eqat_attention_options defaults = {.struct_size = struct_size, .causal = true};
    if (!options || struct_size < sizeof(size_t)) return;
    memset(options, 0, struct_size);
    memcpy(options, &defaults, struct_size < sizeof defaults ? struct_size : sizeof defaults);
}

eqat_status eqat_op_attention(eqat_tape *tape, eqat_tensor *q, eqat_tensor *k, eqat_tensor *v,
                              eqat_tensor *segments, const eqat_attention_options *options,
                              eqat_tensor **out)
{
    *out = NULL;
    eqat_attention_options o;
    eqat_attention_options_init(&o, sizeof o);
    if (options && options->struct_size < sizeof(size_t))
        return eqi_fail(tape->ctx, EQAT_INVALID_ARGUMENT,
                        "attention options: struct_size: found %zu, expected at least %zu: call "
                        "the init function first",
                        options->struct_size, sizeof(size_t));
    if (options)
        memcpy(&o, options, options->struct_size < sizeof o ? options->struct_size : sizeof o);
    if (!(o.scale >= 0) || isinf(o.scale) || o.window < 0 || o.q_offset < 0 || !(o.softcap >= 0) ||
        isinf(o.softcap))
        return eqi_fail(tape->ctx, EQAT_INVALID_ARGUMENT,
                        "attention: found scale %g, window %lld, q_offset %lld, softcap %g, "
                        "expected none below 0",
                        o.scale, (long long)o.window, (long long)o.q_offset, o.softcap);
    eqi_attention_desc d = {
        .scale = (float)(o.scale > 0 ? o.scale : 1.0 / sqrt((double)last_size(q))),
        .window = o.window,
        .q_offset = o.q_offset,
        .softcap = (float)o.softcap,
        .causal = o.causal,
    };
    return eqi_op_attention(tape, q, k, v, segments, &d, out);
}

_Static_assert((int)EQAT_SILU == (int)EQI_SILU && (int)EQAT_GELU_TANH == (int)EQI_GELU_TANH,
               "the engine's activations are the public ones");

eqat_status eqat_op_gated(eqat_tape *tape, eqat_tensor *gate, eqat_tensor *up,
                          eqat_activation activation, eqat_tensor **out)
{
    return eqi_op_gated(tape, gate, up, (eqi_activation)activation, out);
}

eqat_status eqat_op_route(eqat_tape *tape, eqat_tensor *logits, int64_t k, bool normalised,
                          eqat_tensor **weights, eqat_tensor **index)
{
    return eqi_op_route(tape, logits, k, normalised, weights, index);
}

eqat_status eqat_op_gather_rows(eqat_tape *tape, eqat_tensor *x, eqat_tensor *rows,
                                eqat_tensor **out)
{
    return eqi_op_gather_rows(tape, x, rows, out);
}

eqat_status eqat_op_scatter_rows(eqat_tape *tape, eqat_tensor **sum, eqat_tensor *y,
                                 eqat_tensor *weights, eqat_tensor *rows, eqat_tensor *slots)
{
    return eqi_op_scatter_rows(tape, sum, y, weights, rows, slots);
}

eqat_status eqat_op_add(eqat_tape *tape, eqat_tensor *a, eqat_tensor *b, eqat_tensor **out)
{
    return eqi_op_add(tape, a, b, out);
}
eqat_status eqat_op_mul(eqat_tape *tape, eqat_tensor *a, eqat_tensor *b, eqat_tensor **out)
{
    return eqi_op_mul(tape, a, b, out);
}

eqat_status eqat_op_scale(eqat_tape *tape, eqat_tensor *a, double factor, eqat_tensor **out)
{
    return eqi_op_scale(tape, a, factor, out);
}

eqat_status eqat_op_reshape(eqat_tape *tape, eqat_tensor *a, int32_t ndim, const int64_t *shape,
                            eqat_tensor **out)
{
    *out = NULL;
    if (ndim < 1 || ndim > EQAT_MAX_DIMS)
        return eqi_fail(tape->ctx, EQAT_INVALID_ARGUMENT,
                        "reshape: found %d dimensions, expected 1 to %d", ndim, EQAT_MAX_DIMS);
    return eqi_op_reshape(tape, a, ndim, shape, out);
}

eqat_status eqat_op_slice(eqat_tape *tape, eqat_tensor *a, int32_t dim, int64_t start,
                          int64_t length, eqat_tensor **out)
{
    return eqi_op_slice(tape, a, dim, start, length, out);
}

eqat_status eqat_op_transpose(eqat_tape *tape, eqat_tensor *a, int32_t dim0, int32_t dim1,
                              eqat_tensor **out)
{
    return eqi_op_transpose(tape, a, dim0, dim1, out);
}

eqat_status eqat_op_cast(eqat_tape *tape, eqat_tensor *a, eqat_dtype dtype, eqat_tensor **out)
{
    return eqi_op_cast(tape, a, (eqi_dtype)dtype, out);
}

eqat_status eqat_op_mse(eqat_tape *tape, eqat_tensor *x, eqat_tensor *target, eqat_tensor **loss)
{
    return eqi_op_mse(tape, x, target, loss);
}

eqat_status eqat_op_linear_cross_entropy(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w,
                                         eqat_tensor *labels, eqat_tensor **loss,
                                         eqat_tensor **count)
{
    return eqi_op_linear_cross_entropy(tape, x, w, labels, loss, count);
}

eqat_status eqat_op_custom(eqat_tape *tape, const char *name, eqat_tensor *const *in, int32_t n_in,
                           eqat_tensor *out, eqat_backward_fn backward, void (*release)(void *user),
                           void *user)
{
    return eqi_op_custom(tape, name, in, n_in, out, backward, release, user);
}

eqat_status eqat_tape_add_grad(eqat_tape *tape, eqat_tensor *tensor, const eqat_tensor *grad)
{
    if (!tensor->requires_grad) return EQAT_OK;
    if (!eqi_view_same_shape(&tensor->v, &grad->v)) {
        char a[EQI_SHAPE_TEXT], b[EQI_SHAPE_TEXT];
        return eqi_fail(tape->ctx, EQAT_INVALID_ARGUMENT, "gradient: found %s, expected %s",
                        eqi_view_shape_text(&grad->v, a, sizeof a),
                        eqi_view_shape_text(&tensor->v, b, sizeof b));
    }
    /* A copy: the engine may share what it is given, and the caller's tensor stays the caller's. */
    eqi_tensor *copy;
    EQI_RETURN_IF(eqi_tensor_cast(grad,
                                  tensor->on_tape                  ? tensor->v.dtype
                                      : tensor->v.dtype == EQI_F64 ? EQI_F64
                                                                   : EQI_F32,
                                  &copy));
    eqat_status st = eqi_grad_add(tensor, copy);
    eqi_tensor_unref(copy);
    return st;
}

eqat_status eqat_tape_checkpoint(eqat_tape *tape, eqat_segment_fn segment, void *user,
                                 void (*release)(void *user), eqat_tensor *const *in, int32_t n_in,
                                 eqat_tensor **out)
{
    return eqi_tape_checkpoint(tape, segment, user, release, in, n_in, out);
}
