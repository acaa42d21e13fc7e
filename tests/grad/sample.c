#include "grad.h"

bool trains(kind k) { return k == X || k == P || k == RULE; }

static void free_data(void *user, void *data)
{
    (void)user;
    free(data);
}

/* The same values, first dimension fastest. */
static eqi_tensor *transposed(eqi_tensor *t)
{
    int64_t stride[EQI_MAX_DIMS], n = 1;
    for (int i = 0; i < t->v.ndim; i++) {
        stride[i] = n;
        n *= t->v.shape[i];
    }
    size_t size = (size_t)n * eqi_dtype_size(t->v.dtype);
    eqi_ctx *ctx = eqi_tensor_ctx(t);
    eqi_tensor *out;
    OK(ctx,
       eqi_tensor_wrap(ctx, &out, t->v.dtype, t->v.ndim, t->v.shape, stride, malloc(size), size,
                       free_data, NULL));
    OK(ctx, eqi_tensor_copy(out, t));
    return out;
}

static eqi_dtype dtype_of(kind k, eqi_dtype compute)
{
    if (k == X) return compute;
    if (k == I) return EQI_I32;
    if (k == U) return EQI_U32;
    return compute == EQI_F64 ? EQI_F64 : EQI_F32;
}

void sample_make(sample *s, eqi_ctx *ctx, const grad_case *c, eqi_dtype dtype, layout where)
{
    *s = (sample){.ctx = ctx, .c = c, .dtype = dtype};
    if (c->gaps && where == DENSE) where = GAPS;
    for (int i = 0; i < INPUTS; i++) {
        kind k = c->in[i].kind;
        if (k == NONE) continue;
        s->in[i] = make_random(ctx, dtype_of(k, dtype), c->in[i].shape, (uint32_t)(10 + i),
                               k == I || k == U ? 0 : 1);
    }
    if (c->prepare) c->prepare(s->in);
    for (int i = 0; i < INPUTS; i++) {
        if (!s->in[i]) continue;
        eqi_tensor *moved = NULL;
        if (where == GAPS) moved = scattered(s->in[i]);
        if (where == TRANSPOSED) moved = transposed(s->in[i]);
        if (moved) {
            eqi_tensor_unref(s->in[i]);
            s->in[i] = moved;
        }
        s->in[i]->requires_grad = trains(c->in[i].kind);
    }
}

void free_all(eqi_tensor **grads)
{
    for (int i = 0; i < INPUTS; i++) eqi_tensor_unref(grads[i]);
}

void sample_free(sample *s) { free_all(s->in); }

static eqat_status as_segment(eqi_tape *tape, void *user, eqi_tensor *const *in, int n_in,
                              eqi_tensor **out)
{
    const sample *s = user;
    (void)n_in;
    return s->c->run(tape, s->dtype, in, out);
}

static eqi_tensor *forward(sample *s, eqi_tape *tape, int how)
{
    eqi_tensor *in[INPUTS] = {NULL}, *out, *second, *both;
    for (int i = 0; i < INPUTS; i++) {
        if (!s->in[i]) continue;
        if ((how & THROUGH) && s->in[i]->requires_grad)
            OK(s->ctx, eqi_op_scale(tape, s->in[i], 1, &in[i]));
        else
            in[i] = eqi_tensor_ref(s->in[i]);
    }
    if (how & RECOMPUTED)
        OK(s->ctx, eqi_tape_checkpoint(tape, as_segment, s, NULL, in, INPUTS, &out));
    else
        OK(s->ctx, s->c->run(tape, s->dtype, in, &out));
    if (how & TWICE) {
        OK(s->ctx, s->c->run(tape, s->dtype, in, &second));
        OK(s->ctx, eqi_op_add(tape, out, second, &both));
        eqi_tensor_unref(out);
        eqi_tensor_unref(second);
        out = both;
    }
    free_all(in);
    return out;
}

static eqi_tensor *weights_for(const sample *s, const eqi_tensor *out)
{
    dims shape = {.n = out->v.ndim};
    memcpy(shape.at, out->v.shape, sizeof shape.at);
    return make_random(s->ctx, out->v.dtype, shape, 99, 1);
}

static void check_recorded(const sample *s, const eqi_tape *tape)
{
    for (size_t i = 0; i < tape->count; i++)
        if (!strcmp(tape->nodes[i].op->name, s->c->op)) return;
    ck_abort_msg("%s records no %s", s->c->name, s->c->op);
}

void sample_gradients(sample *s, int how, eqi_tensor **grads)
{
    eqi_tape *tape;
    OK(s->ctx, eqi_tape_create(s->ctx, &tape));
    for (int round = 0; round < (how & AGAIN ? 2 : 1); round++) {
        eqi_tensor *out = forward(s, tape, how);
        if (how == ONCE) check_recorded(s, tape);
        eqi_tensor *seed = weights_for(s, out);
        OK(s->ctx, eqi_tape_backward_from(tape, out, seed));
        ck_assert_uint_eq(tape->count, 0);
        eqi_tensor_unref(seed);
        eqi_tensor_unref(out);
    }
    eqi_tape_free(tape);
    for (int i = 0; i < INPUTS; i++) {
        eqi_tensor *g = s->in[i] ? s->in[i]->grad : NULL;
        ck_assert_msg((g != NULL) == (s->in[i] && s->in[i]->requires_grad),
                      "%s: gradient of input %d", s->c->name, i);
        grads[i] = g ? eqi_tensor_ref(g) : NULL;
        if (g) eqi_tensor_zero_grad(s->in[i]);
    }
}

double sample_value(sample *s)
{
    eqi_tape *tape;
    OK(s->ctx, eqi_tape_create(s->ctx, &tape));
    eqi_tape_set_recording(tape, false);
    eqi_tensor *out = forward(s, tape, ONCE);
    eqi_tensor *weights = weights_for(s, out);
    double sum = 0;
    for (int64_t i = 0; i < count(out); i++) sum += get(out, i) * get(weights, i);
    eqi_tensor_unref(weights);
    eqi_tensor_unref(out);
    eqi_tape_free(tape);
    return sum;
}
