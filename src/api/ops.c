#include <float.h>
#include <math.h>

#include "api/options.h"
#include "base/entry.h"
#include "eqat/tape.h"
#include "ops/ops.h"

/* What ops begin with. */
#define OP_ENTRY(out, ...)  \
    if (out) *(out) = NULL; \
    EQI_ENTER_OF(tape);     \
    EQI_NEED(tape->ctx, out, __VA_ARGS__)

static int64_t last_size(const eqat_tensor *t) { return t->v.shape[t->v.ndim - 1]; }

eqat_status eqat_op_linear(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w, eqat_tensor *bias,
                           eqat_tensor **out)
{
    OP_ENTRY(out, x, w);
    eqi_weight weight = {.w = w, .bias = bias};
    return eqi_op_linear(tape, x, &weight, out);
}

eqat_status eqat_op_embedding(eqat_tape *tape, eqat_tensor *ids, eqat_tensor *table,
                              eqat_dtype dtype, eqat_tensor **out)
{
    OP_ENTRY(out, ids, table);
    return eqi_op_embedding(tape, ids, table, (eqi_dtype)dtype, out);
}

eqat_status eqat_op_rmsnorm(eqat_tape *tape, eqat_tensor *x, eqat_tensor *gain, double eps,
                            double offset, eqat_tensor **out)
{
    OP_ENTRY(out, x, gain);
    return eqi_op_rmsnorm(tape, x, gain, eps, offset, out);
}

eqat_status eqat_op_rope(eqat_tape *tape, eqat_tensor *x, eqat_tensor *cos, eqat_tensor *sin,
                         eqat_tensor *positions, eqat_tensor **out)
{
    OP_ENTRY(out, x, cos, sin);
    return eqi_op_rope(tape, x, cos, sin, positions, out);
}

static const eqat_field attention_fields[] = {
    EQI_FIELD_F64(eqat_attention_options, scale, 0, 0, DBL_MAX, "of the scores; 0: 1/sqrt(D)"),
    EQI_FIELD_I64(eqat_attention_options, window, 0, 0, 1e15,
                  "positions that a query sees; 0: all"),
    EQI_FIELD_I64(eqat_attention_options, q_offset, 0, 0, 1e15, "position of the first query"),
    EQI_FIELD_F64(eqat_attention_options, softcap, 0, 0, DBL_MAX, "of the scores; 0: none"),
    EQI_FIELD_BOOL(eqat_attention_options, causal, true, "a query sees nothing behind it"),
};

const eqi_struct eqi_struct_attention =
    EQI_STRUCT(eqat_attention_options, "attention", attention_fields);

void eqat_attention_options_init(eqat_attention_options *options, size_t struct_size)
{
    eqi_options_defaults(&eqi_struct_attention, options, struct_size);
}

eqat_status eqat_op_attention(eqat_tape *tape, eqat_tensor *q, eqat_tensor *k, eqat_tensor *v,
                              eqat_tensor *segments, const eqat_attention_options *options,
                              eqat_tensor **out)
{
    OP_ENTRY(out, q, k, v);
    eqat_attention_options o;
    EQI_RETURN_IF(eqi_options_take(tape->ctx, &eqi_struct_attention, &o, options));
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
    OP_ENTRY(out, gate, up);
    return eqi_op_gated(tape, gate, up, (eqi_activation)activation, out);
}

eqat_status eqat_op_route(eqat_tape *tape, eqat_tensor *logits, int64_t k, bool normalised,
                          eqat_tensor **weights, eqat_tensor **index)
{
    if (index) *index = NULL;
    OP_ENTRY(weights, index, logits);
    return eqi_op_route(tape, logits, k, normalised, weights, index);
}

eqat_status eqat_op_gather_rows(eqat_tape *tape, eqat_tensor *x, eqat_tensor *rows,
                                eqat_tensor **out)
{
    OP_ENTRY(out, x, rows);
    return eqi_op_gather_rows(tape, x, rows, out);
}

eqat_status eqat_op_scatter_rows(eqat_tape *tape, eqat_tensor **sum, eqat_tensor *y,
                                 eqat_tensor *weights, eqat_tensor *rows, eqat_tensor *slots)
{
    EQI_ENTER_OF(tape);
    EQI_NEED(tape->ctx, sum, y, weights, rows, slots);
    EQI_NEED(tape->ctx, *sum);
    return eqi_op_scatter_rows(tape, sum, y, weights, rows, slots);
}

eqat_status eqat_op_add(eqat_tape *tape, eqat_tensor *a, eqat_tensor *b, eqat_tensor **out)
{
    OP_ENTRY(out, a, b);
    return eqi_op_add(tape, a, b, out);
}
eqat_status eqat_op_mul(eqat_tape *tape, eqat_tensor *a, eqat_tensor *b, eqat_tensor **out)
{
    OP_ENTRY(out, a, b);
    return eqi_op_mul(tape, a, b, out);
}

eqat_status eqat_op_scale(eqat_tape *tape, eqat_tensor *a, double factor, eqat_tensor **out)
{
    OP_ENTRY(out, a);
    return eqi_op_scale(tape, a, factor, out);
}

eqat_status eqat_op_reshape(eqat_tape *tape, eqat_tensor *a, int32_t ndim, const int64_t *shape,
                            eqat_tensor **out)
{
    OP_ENTRY(out, a, shape);
    if (ndim < 1 || ndim > EQAT_MAX_DIMS)
        return eqi_fail(tape->ctx, EQAT_INVALID_ARGUMENT,
                        "reshape: found %d dimensions, expected 1 to %d", ndim, EQAT_MAX_DIMS);
    return eqi_op_reshape(tape, a, ndim, shape, out);
}

eqat_status eqat_op_slice(eqat_tape *tape, eqat_tensor *a, int32_t dim, int64_t start,
                          int64_t length, eqat_tensor **out)
{
    OP_ENTRY(out, a);
    return eqi_op_slice(tape, a, dim, start, length, out);
}

eqat_status eqat_op_transpose(eqat_tape *tape, eqat_tensor *a, int32_t dim0, int32_t dim1,
                              eqat_tensor **out)
{
    OP_ENTRY(out, a);
    return eqi_op_transpose(tape, a, dim0, dim1, out);
}

eqat_status eqat_op_cast(eqat_tape *tape, eqat_tensor *a, eqat_dtype dtype, eqat_tensor **out)
{
    OP_ENTRY(out, a);
    return eqi_op_cast(tape, a, (eqi_dtype)dtype, out);
}

eqat_status eqat_op_mse(eqat_tape *tape, eqat_tensor *x, eqat_tensor *target, eqat_tensor **loss)
{
    OP_ENTRY(loss, x, target);
    return eqi_op_mse(tape, x, target, loss);
}

eqat_status eqat_op_linear_cross_entropy(eqat_tape *tape, eqat_tensor *x, eqat_tensor *w,
                                         eqat_tensor *labels, eqat_tensor **loss,
                                         eqat_tensor **count)
{
    if (count) *count = NULL;
    OP_ENTRY(loss, x, w, labels);
    return eqi_op_linear_cross_entropy(tape, x, w, labels, NULL, loss, count);
}

eqat_status eqat_op_kl_divergence(eqat_tape *tape, eqat_tensor *logits, eqat_tensor *target,
                                  eqat_tensor *labels, eqat_tensor **loss)
{
    OP_ENTRY(loss, logits, target);
    return eqi_op_kl_divergence(tape, logits, target, labels, loss);
}

/* release runs once whatever happens; `in` may be NULL when it is empty. */
static eqat_status check_custom(eqat_tape *tape, eqat_tensor *const *in, int32_t n_in,
                                eqat_tensor *out, eqat_backward_fn backward)
{
    if (n_in > 0) EQI_NEED(tape->ctx, in);
    EQI_NEED(tape->ctx, out, backward);
    return EQAT_OK;
}

eqat_status eqat_op_custom(eqat_tape *tape, const char *name, eqat_tensor *const *in, int32_t n_in,
                           eqat_tensor *out, eqat_backward_fn backward, void (*release)(void *user),
                           void *user)
{
    EQI_ENTER_OF(tape);
    eqat_status st = check_custom(tape, in, n_in, out, backward);
    if (st == EQAT_OK) return eqi_op_custom(tape, name, in, n_in, out, backward, release, user);
    if (release) release(user);
    return st;
}
