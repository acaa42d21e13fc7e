/* What tests of E2E-QP share: the small model, quantized; its parameters; what progress tells. */
#ifndef TESTS_TRAIN_E2E_H
#define TESTS_TRAIN_E2E_H

#include "public.h"

enum { BITS = 3 };

/* Linears of the pattern have bits of their own; 0: they stay dense. */
static inline bench set_up_mixed(const char *name, int64_t sequences, int bits, const char *pattern,
                                 int apart)
{
    bench b = {.ctx = make_context(2, 1)};
    b.model = open_model(b.ctx, name, EQAT_F32);
    eqat_quantizer *quantizer = make_quantizer(b.ctx, bits, 32);
    OK(b.ctx, add_rule(quantizer, pattern, apart, 32));
    OK(b.ctx, eqat_model_quantize_rtn(b.model, quantizer, NULL));
    eqat_quantizer_free(quantizer);
    b.data = make_data(b.ctx, sequences, 0, true);
    return b;
}

static inline bench set_up_packed(int64_t sequences)
{
    return set_up_mixed("model", sequences, BITS, "*", BITS);
}

static inline eqat_e2e_qp_options own_options(void)
{
    eqat_e2e_qp_options o;
    eqat_e2e_qp_options_init(&o, sizeof o);
    o.batch_size = 4;
    o.lr = 2e-3;
    return o;
}

static inline eqat_tensor *parameter(bench *b, const char *name)
{
    eqat_tensor *t;
    OK(b->ctx, eqat_model_parameter(b->model, name, &t));
    return t;
}

static inline eqat_tensor *gradient(bench *b, const char *name)
{
    eqat_tensor *g = eqat_tensor_grad(parameter(b, name));
    ck_assert_ptr_nonnull(g);
    return g;
}

static const char Q0[] = "model.layers.0.self_attn.q_proj.scales";

/* A progress callback that remembers, and cancels at a call. */
typedef struct seen {
    int64_t calls, cancel_at;
    double first, last, lr[8], norm;
} seen;

static inline int32_t watch(void *user, const eqat_progress *p)
{
    seen *s = user;
    ck_assert_str_eq(p->phase, "e2e-qp");
    ck_assert_int_eq(p->step, s->calls + 1);
    if (s->calls < 8) s->lr[s->calls] = p->lr;
    if (s->calls++ == 0) s->first = p->loss;
    s->last = p->loss;
    s->norm = p->grad_norm;
    return s->calls == s->cancel_at;
}

#endif
